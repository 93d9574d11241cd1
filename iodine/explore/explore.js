"use strict";
// The page of `python main.py explore`. What is done here stays here: `state`
// is all of it, and the address has it. The server infers and decodes.

const [MAX_SLOTS, MAX_UPLOAD] = [16, 20 * 2 ** 20];

let about, state, found, second, views, settled, partners;
let [past, names, turn] = [[], [], 0];
let moved = null; // the latent that was moved last
let mixing = null; // of interpolation: the latents that it began with

const find = (id) => document.getElementById(id);
const say = (text) => (find("status").textContent = text);
const round = (x) => +x.toFixed(4);
const latents = () => state.edit.map((slot) => slot.z);
const own = () => state.edit?.[state.chosen];

window.onunhandledrejection = ({ reason }) => {
  const isLost = reason.message === "Failed to fetch";
  say(isLost ? "No answer: is the command running?" : reason.message);
};

async function ask(path, body, headers = {}) {
  const method = body ? "POST" : "GET";
  const response = await fetch(path, { method, body, headers });
  if (response.ok) return response;
  throw new Error(`This cannot be done: ${await response.text()}`);
}

const askFor = async (path, question) =>
  (await ask(path, question && JSON.stringify(question))).json();
const infer = ({ source, options }) =>
  askFor("infer", { ...source, ...options });

// What of a decomposition can be edited, slot by slot.
const slotsOf = (data, { sample } = state) =>
  (sample ? data.samples : data.means).at(-1).map((values, from) => {
    const [z, kl] = [values.map(round), data.latent_kl[from].map(round)];
    return { z, mark: z, kl, from };
  });

// ------------------------------------------------------------------- state

// Infers what the next state has to show, and then makes it the state.
async function enter(next) {
  const [mine, begun] = [++turn, performance.now()];
  say("Inferring …");
  const data = await infer(next);
  if (mine !== turn) return; // something else was opened meanwhile
  const edit = next.edit ?? slotsOf(data, next);
  const chosen = Math.min(next.chosen, edit.length - 1);
  [found, state] = [data, { ...next, edit, chosen }];
  const time = ((performance.now() - begun) / 1000).toFixed(2);
  say(`${found.rows - 1} refinements in ${time} s. Click an object.`);
  const shown = { ...next.options, sample: next.sample ? "yes" : "" };
  for (const name in shown) find("options")[name].value = shown[name];
  press(find("thumbnails").children, (k) => k === next.source.scene);
  find("pair").inert = false;
  await views.found.show(found, own().from ?? 0);
  await changed();
}

// Infers anew: the changes say of what, and how.
const open = (changes) => enter({ ...state, edit: null, ...changes });

async function use(source) {
  if (find("use").value === "open") return open({ source, chosen: 1 });
  second = await infer({ ...state, source });
  find("second-part").hidden = false;
  await views.second.show(second, 1);
  showPartners(secondName(1));
  find("second").scrollIntoView({ block: "nearest" });
  say("Choose an object of the second scene, and put it in.");
}

// Keeps the state in the address, and what was before it to be undone.
function settle(isEdit = true) {
  const before = settled;
  settled = JSON.stringify(state);
  if (isEdit && before && before !== settled) past.push(before);
  history.replaceState(null, "", `#${btoa(settled)}`);
}

// -------------------------------------------------------------------- editing

// Decodes what is there now; of what waits only the last counts.
let [drawing, wanted] = [Promise.resolve(), 0];
function redraw() {
  const mine = ++wanted;
  const draw = async () => {
    if (mine !== wanted) return;
    const data = await askFor("decode", { latents: [latents()] });
    await views.edited.show(data, state.chosen);
  };
  return (drawing = drawing.then(draw, draw));
}

// Shows all that depends on the slots but their pictures.
function showSlots() {
  mixing = null;
  find("mix").value = 0;
  showPartners();
  showLatents();
}

function changed(text) {
  if (text) say(text);
  showSlots();
  settle();
  return redraw();
}

function add(text, slot) {
  if (state.edit.length === MAX_SLOTS)
    return say(`There are ${MAX_SLOTS} slots already.`);
  state.chosen = state.edit.push(slot) - 1;
  return changed(text);
}

function choose(chosen) {
  if (chosen < 0) return say("That object is gone. Undo brings it back.");
  state.chosen = chosen;
  views.edited.choose(chosen);
  if (own().from !== null) views.found.choose(own().from);
  say(views.edited.part(".facts").textContent);
  showSlots();
  settle(false);
}

const chooseFound = (from) =>
  choose(state.edit.findIndex((slot) => slot.from === from));
const isPlace = (i) => names[i]?.[0].startsWith("position");

function showLatents() {
  const { kl } = own();
  const order = [...kl.keys()].sort((a, b) => kl[b] - kl[a]).slice(0, 8);
  find("latents").replaceChildren(...order.map(latentRow));
  find("which").textContent = `slot ${state.chosen + 1}`;
}

function latentRow(i) {
  const [mean, deviation] = about.prior.map((values) => values[i]);
  const scaled = (z) => (z - mean) / deviation;
  const row = find("latent").content.cloneNode(true).firstElementChild;
  const [range, out] = row.querySelectorAll("input, output");
  const [name, r] = names[i] ?? [`latent ${i}`];
  row.firstChild.textContent = name;
  row.title = r ? `latent ${i}, correlation ${r}` : name;
  range.value = scaled(own().z[i]);
  out.value = scaled(own().z[i]).toFixed(2);
  const place = Math.max(-3, Math.min(3, scaled(own().mark[i])));
  const left = `calc(7px + (100% - 16px) * ${(place + 3) / 6})`;
  row.querySelector("i").style.left = left;
  range.oninput = () => {
    [moved, mixing] = [i, null];
    own().z = own().z.with(i, round(mean + deviation * range.value));
    out.value = (+range.value).toFixed(2);
    say(`${row.title}: ${out.value}`);
    redraw();
  };
  range.onchange = () => settle();
  return row;
}

// Offers all slots but the chosen one, those of the second scene, too.
function showPartners(value = find("partner").value) {
  partners = new Map(state.edit.map((slot, k) => [`slot ${k + 1}`, slot]));
  partners.delete(`slot ${state.chosen + 1}`);
  if (second)
    slotsOf(second).forEach((slot, k) => partners.set(secondName(k), slot));
  const options = [...partners.keys()].map((text) => new Option(text));
  find("partner").replaceChildren(...options);
  if (partners.has(value)) find("partner").value = value;
  const k = find("partner").selectedIndex - state.edit.length + 1;
  if (k >= 0 && views.second.tiles) views.second.choose(k);
}

const secondName = (k) => `second scene, slot ${k + 1}`;
const partner = () => partners.get(find("partner").value);
const copyOf = (slot) => ({ ...slot, from: null });

const actions = {
  remove() {
    if (state.edit.length === 1) return say("The last slot stays.");
    state.edit.splice(state.chosen, 1);
    state.chosen = Math.max(0, state.chosen - 1);
    return changed("Removed.");
  },
  duplicate() {
    const z = own().z.map((x, i) => (isPlace(i) ? x - 2 * Math.sign(x) : x));
    const text = "Duplicated. Move the copy on by its latents.";
    return add(text, { ...copyOf(own()), z });
  },
  put: () => add("Put in.", copyOf(partner())),
  swap() {
    const [mine, other] = [own(), partner()];
    const [a, b] = [mine.z, other.z];
    if (!names.some((_, i) => isPlace(i) && a[i] !== b[i]))
      return say("No latent is known that says they are in other places.");
    mine.z = a.map((x, i) => (isPlace(i) ? b[i] : x));
    other.z = b.map((x, i) => (isPlace(i) ? a[i] : x));
    return changed("Swapped what the latents say of position.");
  },
  async undo() {
    if (!past.length) return say("There is nothing to undo.");
    settled = past.pop();
    await enter(JSON.parse(settled));
    say("Undone.");
  },
  async infer() {
    const before = views.edited.labels;
    const picture = document.createElement("canvas");
    views.edited.paint(picture, views.edited.pixels("rebuilt"));
    const options = { ...state.options, slots: state.edit.length };
    await open({ source: { picture: picture.toDataURL() }, options });
    say(verdict(before, views.found.labels));
  },
  picture: () =>
    views.edited.part(".stage canvas").toBlob((x) => save("scene.png", x)),
  npz: () => saveAnswer("latents.npz", "npz", [latents()]),
  "refinement-gif": () => saveAnswer("refinement.gif", "gif", found.samples),
  "latent-gif"() {
    const { z, kl } = own();
    const i = moved ?? kl.indexOf(Math.max(...kl));
    const [mean, deviation] = about.prior.map((values) => values[i]);
    const frames = Array.from({ length: 24 }, (_, t) => {
      const value = mean - 3 * deviation * Math.cos((Math.PI * t) / 12);
      return latents().with(state.chosen, z.with(i, value));
    });
    return saveAnswer(`latent_${i}.gif`, "gif", frames);
  },
};

// Says which slots were found again, by the pixels that they share.
function verdict(before, after) {
  const isSame = (k, other) => {
    const sum = [...before].map((x, i) => (x === k) + (after[i] === other));
    return 2 * sum.filter((n) => n === 2).length >= sum.filter((n) => n).length;
  };
  const [present, others] = [before, after].map((x) => [...new Set(x)].sort());
  const isMissed = (k) => !others.some((other) => isSame(k, other));
  const missed = present.filter(isMissed).map((k) => k + 1);
  const rest = missed.length ? ` Not found: slot ${missed.join(", ")}.` : "";
  const number = present.length - missed.length;
  return `Found ${number} of ${present.length} slots that were there.${rest}`;
}

function save(name, blob) {
  const link = document.createElement("a");
  Object.assign(link, { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 9000);
  say(`Saved ${name}.`);
}

async function saveAnswer(name, path, latents) {
  save(name, await (await ask(path, JSON.stringify({ latents }))).blob());
}

// ---------------------------------------------------------------------- begin

async function upload([file]) {
  if (!file) return;
  if (file.size > MAX_UPLOAD) return say("A file has at most 20 MB.");
  const headers = { "X-Name": encodeURIComponent(file.name) };
  await use(await (await ask("upload", file, headers)).json());
}

for (const id in actions) find(id).onclick = actions[id];
find("options").onchange = ({ target: { name, value } }) => {
  if (!find("options").reportValidity())
    return say("That number is too small or too large.");
  if (name === "sample") return open({ sample: !!value });
  return open({ options: { ...state.options, [name]: +value } });
};
find("mix").oninput = ({ target }) => {
  mixing ??= own().z;
  const other = partner().z;
  own().z = mixing.map((z, i) => round(z + target.value * (other[i] - z)));
  redraw();
};
find("mix").onchange = () => [showLatents(), settle()];
find("partner").onchange = showSlots;
find("file").onchange = ({ target }) => upload(target.files);
document.onpaste = ({ clipboardData }) => upload(clipboardData.files);
// There are no files before they are dropped.
document.ondragover = document.ondrop = (event) => {
  event.preventDefault();
  upload(event.dataTransfer.files);
};
window.onhashchange = () => location.reload();

async function begin() {
  about = await askFor("about");
  const { checkpoint, step, options, thumbnails } = about;
  find("about").textContent = `${checkpoint}, step ${step}`;
  find("folder").textContent = JSON.stringify(checkpoint);
  const put = (k) => showPartners(secondName(k));
  views = {
    found: new SceneView(find("found"), ALL_KINDS, chooseFound),
    edited: new SceneView(find("edited"), ALL_KINDS.slice(1, 3), choose),
    second: new SceneView(find("second"), ALL_KINDS.slice(0, 1), put),
  };
  thumbnails.forEach((src, scene) => {
    const button = document.createElement("button");
    button.append(Object.assign(new Image(), { src, alt: `scene ${scene}` }));
    button.onclick = () => use({ scene });
    find("thumbnails").append(button);
  });
  const source = { scene: 0 };
  state = { source, options, sample: false, edit: null, chosen: 1 };
  if (!thumbnails.length) say("There are no scenes here: open a file.");
  try {
    if (location.hash) await enter(JSON.parse(atob(location.hash.slice(1))));
    else if (thumbnails.length) await enter(state);
  } catch {
    await enter({ ...state, source, options, edit: null });
    say("The address could not be read. This is the first scene.");
  }
  names = await askFor("names"); // which takes a while at first
  if (own()) showLatents();
}

begin();
