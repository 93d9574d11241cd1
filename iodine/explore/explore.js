"use strict";
// The page of `python main.py explore`. What is done here stays here: `state`
// is all of it, and the address has it. The server infers and decodes.

let about, state, found, views;
let [names, second] = [[], []]; // of the latents; the second scene's slots
let moved; // the latent that was moved last, or that says most
let mixing = null; // of interpolation: the latents that it began with
let held; // the slider that was moved last: its moves are one edit
const past = []; // addresses of the states before

const find = (id) => document.getElementById(id);
const say = (text) => (find("status").textContent = text);
const round = (x) => +x.toFixed(4);
const latents = () => state.edit.map((slot) => slot.z);
const own = () => state.edit[state.chosen];

window.onunhandledrejection = ({ reason }) => say(reason.message);

// Asks the server a question, or gives it a file.
async function ask(path, question) {
  const body = question instanceof File ? question : JSON.stringify(question);
  const lost = () => new Response("is the command running?", { status: 503 });
  const response = await fetch(path, { method: "POST", body }).catch(lost);
  if (response.ok) return response;
  throw new Error(`This cannot be done: ${await response.text()}`);
}

const askFor = async (path, question) => (await ask(path, question)).json();

// Returns what does one job at a time; of those that wait only the last counts.
function queue() {
  let [running, wanted] = [Promise.resolve(), 0];
  return (job) => {
    const mine = ++wanted;
    const run = () => mine === wanted && job();
    return (running = running.then(run, run));
  };
}

const [entering, drawing] = [queue(), queue()];

// ------------------------------------------------------------------- state

// What of a decomposition can be edited, slot by slot.
const slotsOf = (data, { sample }) =>
  (sample ? data.samples : data.means).at(-1).map((values, from) => {
    const [z, kl] = [values, data.latent_kl[from]].map((x) => x.map(round));
    return { z, mark: z, kl, from };
  });

// Infers what the next state has to show, and then makes it the state.
const enter = (next, text, isEdit) =>
  entering(async () => {
    say("Inferring …");
    const { options } = next;
    const infer = (source) => askFor("infer", { ...source, ...options });
    const data = await infer(next.source);
    const other = next.second && (await infer(next.second));
    [found, second] = [data, other ? slotsOf(other, options) : []];
    const edit = next.edit ?? slotsOf(data, options);
    state = { ...next, edit, chosen: Math.min(next.chosen, edit.length - 1) };
    for (const name in options) find("options")[name].value = options[name];
    press(find("thumbnails"), next.source.scene);
    find("pair").inert = false;
    find("second-part").hidden = !other;
    await views.found.show(data, own().from ?? 0);
    if (other) await views.second.show(other);
    text ??= `${data.rows - 1} refinements. Click an object.`;
    await changed(text, isEdit);
  });

// Infers anew: the changes say of what, and how.
const open = (changes) => enter({ ...state, edit: null, ...changes });

async function use(source) {
  if (find("use").value === "open") return open({ source, chosen: 1 });
  const next = { ...state, second: source, partner: 1 };
  await enter(next, "Choose an object of the second scene, and put it in.");
  find("second").scrollIntoView({ block: "nearest" });
}

// Keeps the state in the address; an edit can be undone.
function settle(isEdit = true) {
  const [before, address] = [location.hash, `#${btoa(JSON.stringify(state))}`];
  if (isEdit && before && before !== address) past.push(before);
  history.replaceState(null, "", address);
}

// Shows the state that the address has, or else the first scene.
async function restore() {
  const given = location.hash.slice(1);
  try {
    const before = given && JSON.parse(atob(given));
    if (given) return await enter(before, "As it was.", false);
  } catch {
    history.replaceState(null, "", location.pathname);
  }
  const options = { ...about.options, sample: 0 };
  state = { source: { scene: 0 }, second: null, options, edit: null };
  Object.assign(state, { chosen: 1, partner: 2 });
  if (about.thumbnails.length) await enter(state);
  if (given) say("The address could not be read. This is the first scene.");
}

// ----------------------------------------------------------------- editing

const redraw = () =>
  drawing(async () => {
    const data = await askFor("decode", { latents: [latents()] });
    await views.edited.show(data, state.chosen);
  });

// Shows what follows from a state that was inferred.
function changed(text, isEdit = true) {
  say(text);
  if (own().from !== null) views.found.draw({ slot: own().from });
  const slot = Math.min(state.partner, partners().length - 1);
  find("partner").replaceChildren(...partners().map(partnerOption));
  find("partner").value = state.partner = slot;
  if (slot < second.length) views.second.draw({ slot });
  [mixing, find("mix").value] = [null, 0];
  showLatents();
  settle(isEdit);
  return redraw();
}

function add(text, slot) {
  if (state.edit.length === 16) return say("There are 16 slots already.");
  state.chosen = state.edit.push({ ...slot, from: null }) - 1;
  return changed(text);
}

function choose(chosen) {
  if (chosen < 0) return say("That object is gone. Undo brings it back.");
  state.chosen = chosen;
  return changed(`Slot ${chosen + 1} is chosen.`, false);
}

function choosePartner(k) {
  state.partner = k;
  return changed(`With ${find("partner")[k].text}.`, false);
}

// All slots; those of the second scene, copies, come first: they do not change.
const partners = () => [...second.map((x) => ({ ...x })), ...state.edit];
const partner = () => partners()[state.partner];

function partnerOption(_, k) {
  const own = `slot ${k - second.length + 1}`;
  return new Option(second[k] ? `second scene, slot ${k + 1}` : own, k);
}

function showLatents() {
  const { kl } = own();
  const order = [...kl.keys()].sort((a, b) => kl[b] - kl[a]).slice(0, 8);
  [moved] = order;
  find("latents").replaceChildren(...order.map(latentRow));
  find("which").textContent = `slot ${state.chosen + 1}`;
  find("swap").disabled = !names.some((_, i) => isPlace(i));
}

function latentRow(i) {
  const deviation = about.deviations[i];
  const [z, mark] = [own().z[i], own().mark[i]].map((x) => x / deviation);
  const row = find("latent").content.cloneNode(true).firstElementChild;
  const [range, out] = row.querySelectorAll("input, output");
  row.firstChild.textContent = names[i] ?? `latent ${i}`;
  row.title = `latent ${i}`;
  [range.value, out.value] = [z, z.toFixed(2)];
  const place = (Math.max(-3, Math.min(3, mark)) + 3) / 6;
  row.querySelector("i").style.left = `calc(7px + (100% - 16px) * ${place})`;
  range.oninput = () => {
    [moved, mixing] = [i, null];
    own().z = own().z.with(i, round(deviation * range.value));
    out.value = (+range.value).toFixed(2);
    return redraw();
  };
  range.onchange = () => {
    settle(held !== range);
    held = range;
  };
  return row;
}

const isPlace = (i) => names[i]?.startsWith("position");

const actions = {
  remove() {
    if (state.edit.length === 1) return say("The last slot stays.");
    state.edit.splice(state.chosen, 1);
    state.chosen = Math.max(0, state.chosen - 1);
    return changed("Removed.");
  },
  duplicate() {
    const z = own().z.map((x, i) => (isPlace(i) ? x - 2 * Math.sign(x) : x));
    return add("Duplicated. Move the copy by its latents.", { ...own(), z });
  },
  put: () => add("Put in.", partner()),
  swap() {
    const [mine, other] = [own(), partner()];
    const at = (a, b) => a.z.map((x, i) => (isPlace(i) ? b.z[i] : x));
    [mine.z, other.z] = [at(mine, other), at(other, mine)];
    return changed("Swapped what the latents say of position.");
  },
  undo() {
    if (!past.length) return say("There is nothing to undo.");
    history.replaceState(null, "", past.pop());
    return restore();
  },
  async infer() {
    await redraw();
    const before = views.edited.labels;
    const picture = views.edited.part(".kinds canvas").toDataURL();
    const options = { ...state.options, slots: state.edit.length };
    await open({ source: { picture }, options });
    say(verdict(before, views.found.labels));
  },
  picture: () => save("scene.png", views.edited.part("canvas").toDataURL()),
  npz: () => saveAnswer("latents.npz", "npz", [latents()]),
  "refinement-gif": () => saveAnswer("refinement.gif", "gif", found.samples),
  "latent-gif"() {
    const frames = Array.from({ length: 24 }, (_, t) => {
      const value = -3 * about.deviations[moved] * Math.cos((Math.PI * t) / 12);
      return latents().with(state.chosen, own().z.with(moved, value));
    });
    return saveAnswer(`latent_${moved}.gif`, "gif", frames);
  },
};

// Says which slots were found again: they share half of their pixels.
function verdict(before, after) {
  const count = (isIn) => before.filter((x, i) => isIn(x, after[i])).length;
  const isSame = (k, other) =>
    2 * count((x, y) => x === k && y === other) >=
    count((x, y) => x === k || y === other);
  const isFound = (k) => [...new Set(after)].some((x) => isSame(k, x));
  const present = [...new Set(before)].sort();
  const list = (slots) => slots.map((k) => k + 1).join(", ") || "none";
  return `Of slots ${list(present)} it found ${list(present.filter(isFound))}.`;
}

function save(download, href) {
  Object.assign(document.createElement("a"), { href, download }).click();
  say(`Saved ${download}.`);
}

async function saveAnswer(name, path, latents) {
  const blob = await (await ask(path, { latents })).blob();
  save(name, URL.createObjectURL(blob));
}

// ------------------------------------------------------------------- begin

async function upload([file]) {
  if (!file) return;
  if (file.size > 20 * 2 ** 20) return say("A file has at most 20 MB.");
  use(await askFor("upload", file));
}

for (const id in actions) find(id).onclick = actions[id];
find("options").onchange = ({ target: { name, value } }) =>
  find("options").reportValidity()
    ? open({ options: { ...state.options, [name]: +value } })
    : say("That number is too small or too large.");
find("mix").oninput = ({ target }) => {
  mixing ??= own().z;
  const other = partner().z;
  own().z = mixing.map((z, i) => round(z + target.value * (other[i] - z)));
  redraw();
};
find("mix").onchange = () => [showLatents(), settle()];
find("partner").onchange = ({ target }) => choosePartner(+target.value);
find("file").onchange = ({ target }) => upload(target.files);
document.onpaste = ({ clipboardData }) => upload(clipboardData.files);
// There are no files before they are dropped.
document.ondragover = document.ondrop = (event) => {
  event.preventDefault();
  upload(event.dataTransfer.files);
};
window.onpopstate = restore;

async function begin() {
  about = await askFor("about");
  const { checkpoint, folder, step, thumbnails } = about;
  find("about").textContent = `${checkpoint}, step ${step}`;
  find("folder").textContent = JSON.stringify(folder);
  views = {
    found: new SceneView(find("found"), ALL_KINDS, (from) =>
      choose(state.edit.findIndex((slot) => slot.from === from)),
    ),
    edited: new SceneView(find("edited"), ALL_KINDS.slice(1, 3), choose),
    second: new SceneView(find("second"), ["image"], choosePartner),
  };
  const titles = thumbnails.map((_, k) => k);
  const image = (k) => `<img src="${thumbnails[k]}" alt="scene">`;
  fill(find("thumbnails"), titles, (scene) => use({ scene }), image);
  await restore();
  names = await askFor("names"); // which takes a while at first
  if (state.edit) showLatents();
}

begin();
