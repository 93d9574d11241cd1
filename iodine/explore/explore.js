"use strict";
// The page of `python main.py explore`. What is done here is kept here: `state`
// is all of it, and the address has it. The server infers and decodes.

const MAX_SLOTS = 16;
const MAX_UPLOAD = 20 * 2 ** 20;
const MAX_UNDO = 100;
const NUM_LATENTS = 8;

const find = (id) => document.getElementById(id);
const past = [];
let about, state, found, second, views;
let names = [];
let turn = 0;
let gesture = false; // whether a slider is being moved
let moved = null; // the latent that was moved last
let mixing = null; // of interpolation: the latents that it began with

const say = (text) => (find("status").textContent = text);

// What a user has to know, and no bug.
class Refusal extends Error {}
window.addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof Refusal)) return;
  event.preventDefault();
  say(event.reason.message);
});

async function ask(path, body, headers = {}) {
  const method = body === undefined ? "GET" : "POST";
  const response = await fetch(path, { method, body, headers }).catch(() => {
    throw new Refusal("No answer: is the command still running?");
  });
  if (response.ok) return response;
  throw new Refusal(`This cannot be done: ${await response.text()}`);
}

const askFor = async (path, question) =>
  (await ask(path, question && JSON.stringify(question))).json();
const infer = ({ source, options }) =>
  askFor("infer", { ...source, ...options });
const latents = () => state.edit.map((slot) => slot.z);

// What of a decomposition can be edited, slot by slot.
function slotsOf(data) {
  const rounded = (values) => values.map((x) => +x.toFixed(4));
  return data.latents.at(-1).map((z, k) => ({
    z: rounded(z),
    mark: rounded(z),
    kl: rounded(data.latent_kl[k]),
    from: k,
  }));
}

// ------------------------------------------------------------------- state

// Infers what the next state has to show, and then makes it the state.
async function enter(next) {
  const mine = ++turn;
  const begun = performance.now();
  say("Inferring …");
  const data = await infer(next);
  if (mine !== turn) return; // something else was opened meanwhile
  const edit = next.edit ?? slotsOf(data);
  const chosen = Math.min(next.chosen, edit.length - 1);
  [found, state] = [data, { ...next, edit, chosen }];
  const seconds = ((performance.now() - begun) / 1000).toFixed(2);
  say(`${found.rows - 1} refinements in ${seconds} s. Click an object.`);
  const { sample, ...numbers } = state.options;
  const shown = { ...numbers, sample: sample ? "yes" : "" };
  for (const [name, value] of Object.entries(shown))
    find("options").elements[name].value = value;
  [...find("thumbnails").children].forEach((thumbnail, i) =>
    thumbnail.setAttribute("aria-pressed", i === state.source.scene),
  );
  find("pair").inert = false;
  await views.found.show(found, edit[chosen].from ?? 0);
  await changed();
}

// Infers anew: the changes say of what, and how.
function open(changes) {
  const before = JSON.stringify(state);
  return enter({ ...state, edit: null, ...changes }).then(() => remember(before));
}

async function openSecond(source) {
  second = await infer({ ...state, source });
  find("second-part").hidden = false;
  await views.second.show(second, 1);
  showPartners("second 1");
  say("Choose an object of the second scene, then Put in, Swap or Interpolate.");
}

const use = (source) =>
  find("use").value === "second" ? openSecond(source) : open({ source, chosen: 1 });

function remember(before = JSON.stringify(state)) {
  past.push(before);
  past.splice(0, past.length - MAX_UNDO);
}

async function undo() {
  if (!past.length) return say("There is nothing to undo.");
  await enter(JSON.parse(past.pop()));
  say("Undone.");
}

function keepAddress() {
  const code = btoa(JSON.stringify(state)).replaceAll("+", "-");
  history.replaceState(null, "", `#${code.replaceAll("/", "_")}`);
}

function fromAddress() {
  const code = location.hash.slice(1).replaceAll("-", "+");
  return JSON.parse(atob(code.replaceAll("_", "/")));
}

// -------------------------------------------------------------------- editing

// Decodes what is there now; while one picture is made, only the last counts.
let isDecoding = false;
let isOld = false;
async function redraw() {
  isOld = true;
  if (isDecoding) return;
  isDecoding = true;
  try {
    while (isOld) {
      isOld = false;
      const data = await askFor("decode", { latents: latents() });
      await views.edited.show(data, state.chosen);
    }
  } finally {
    isDecoding = false;
  }
}

// Shows all that depends on the slots but their pictures.
function showSlots() {
  mixing = null;
  find("mix").value = 0;
  showLatents();
  showPartners(find("partner").value);
  showPython();
  keepAddress();
}

function changed() {
  showSlots();
  return redraw();
}

function edit(text, change) {
  remember();
  change(state.edit, state.edit[state.chosen]);
  state.chosen = Math.min(state.chosen, state.edit.length - 1);
  say(text);
  return changed();
}

function choose(chosen) {
  state.chosen = chosen;
  views.edited.choose(chosen);
  const { from } = state.edit[chosen];
  if (from !== null) views.found.choose(from);
  say(views.edited.facts.textContent);
  showSlots();
}

function chooseFound(from) {
  const chosen = state.edit.findIndex((slot) => slot.from === from);
  if (chosen >= 0) return choose(chosen);
  say("That object is not in your scene any more. Undo brings it back.");
}

const isPlace = (i) => names[i]?.[0].startsWith("position");

function showLatents() {
  const slot = state.edit[state.chosen];
  const order = slot.kl.map((_, i) => i).sort((a, b) => slot.kl[b] - slot.kl[a]);
  const rows = order.slice(0, NUM_LATENTS).map((i) => latentRow(slot, i));
  find("latents").replaceChildren(...rows);
  find("which").textContent = `slot ${state.chosen + 1}`;
}

function latentRow(slot, i) {
  const [mean, deviation] = [about.prior.mean[i], about.prior.deviation[i]];
  const scaled = (z) => (z - mean) / deviation;
  const out = make("output", {}, scaled(slot.z[i]).toFixed(2));
  const mark = make("i", { title: "inferred" });
  const place = Math.max(-3, Math.min(3, scaled(slot.mark[i])));
  mark.style.left = `calc(8px + (100% - 16px) * ${(place + 3) / 6} - 1px)`;
  const [name, r] = names[i] ?? [`latent ${i}`, null];
  const range = make("input", {
    type: "range",
    min: -3,
    max: 3,
    step: 0.02,
    value: scaled(slot.z[i]),
    "aria-label": r ? `latent ${i}, ${name}` : name,
    oninput: () => {
      if (!gesture) remember();
      gesture = true;
      [moved, mixing] = [i, null];
      slot.z[i] = +(mean + deviation * range.value).toFixed(4);
      out.value = (+range.value).toFixed(2);
      redraw();
    },
    onchange: () => {
      gesture = false;
      showPython();
      keepAddress();
    },
  });
  const title = r ? `latent ${i}, correlation ${r}` : "";
  const label = make("span", { title }, make("b", {}, name), r ? ` ${i}` : "");
  const track = make("span", { class: "track" }, range, mark);
  return make("label", { class: "latent" }, label, track, out);
}

function showPartners(value) {
  const options = state.edit.map((_, k) => ["edit", k, `slot ${k + 1}`]);
  options.splice(state.chosen, 1);
  for (const k of second ? second.colors.keys() : [])
    options.push(["second", k, `second scene, slot ${k + 1}`]);
  find("partner").replaceChildren(
    ...options.map(([where, k, text]) =>
      make("option", { value: `${where} ${k}` }, text),
    ),
  );
  find("partner").value = value;
  if (!find("partner").value) find("partner").selectedIndex = options.length - 1;
}

function partner() {
  const [where, k] = find("partner").value.split(" ");
  return where === "edit" ? state.edit[k] : slotsOf(second)[k];
}

const isFull = () => state.edit.length >= MAX_SLOTS;
const copyOf = (slot) => ({ ...structuredClone(slot), from: null });

const actions = {
  remove() {
    if (state.edit.length === 1) return say("The last slot stays.");
    return edit("Removed.", (slots) => slots.splice(state.chosen, 1));
  },
  duplicate() {
    if (isFull()) return say(`There are ${MAX_SLOTS} slots already.`);
    const text = "Duplicated, and moved aside. Move it on by its latents.";
    return edit(text, (slots, slot) => {
      const copy = copyOf(slot);
      copy.z = copy.z.map((z, i) => (isPlace(i) ? z - 2 * Math.sign(z) : z));
      state.chosen = slots.push(copy) - 1;
    });
  },
  put() {
    if (isFull()) return say(`There are ${MAX_SLOTS} slots already.`);
    const copy = copyOf(partner());
    return edit("Put in.", (slots) => (state.chosen = slots.push(copy) - 1));
  },
  swap() {
    const other = partner();
    if (!state.edit.includes(other))
      return edit("Replaced by an object of the second scene.", (slots) =>
        slots.splice(state.chosen, 1, copyOf(other)),
      );
    if (!names.some((_, i) => isPlace(i)))
      return say("No latent is known to say where an object is.");
    return edit("Swapped places: what their latents say of position.", (_, own) =>
      own.z.forEach((z, i) => {
        if (isPlace(i)) [own.z[i], other.z[i]] = [other.z[i], z];
      }),
    );
  },
  undo,
  async infer() {
    const { edited } = views;
    const before = edited.labels();
    const picture = make("canvas");
    edited.paint(picture, edited.pixels("reconstruction"));
    const options = { ...state.options, slots: state.edit.length };
    await open({ source: { picture: picture.toDataURL() }, options });
    say(verdict(before, views.found.labels()));
  },
  picture() {
    const { stage } = views.edited;
    const zoom = Math.max(1, Math.round(512 / stage.width));
    const [width, height] = [zoom * stage.width, zoom * stage.height];
    const large = make("canvas", { width, height });
    const context = large.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(stage, 0, 0, width, height);
    large.toBlob((blob) => save("scene.png", blob));
  },
  async npz() {
    const question = JSON.stringify({ latents: latents() });
    save("latents.npz", await (await ask("npz", question)).blob());
  },
  "refinement-gif": () => saveGif("refinement.gif", found.latents),
  "latent-gif"() {
    const { z, kl } = state.edit[state.chosen];
    const i = moved ?? kl.indexOf(Math.max(...kl));
    const up = [...Array(13).keys()].map((step) => step / 2 - 3);
    const frames = [...up, ...up.reverse().slice(1, -1)].map((value) => {
      const row = [...z];
      row[i] = about.prior.mean[i] + about.prior.deviation[i] * value;
      return latents().with(state.chosen, row);
    });
    return saveGif(`latent_${i}.gif`, frames);
  },
  async address() {
    await navigator.clipboard.writeText(location.href);
    say("Copied: the address of this page as it is now.");
  },
};

// Says which slots were found again, by the pixels that they share.
function verdict(before, after) {
  const missed = [];
  const present = [...new Set(before)].sort((a, b) => a - b);
  for (const k of present) {
    const overlaps = [...new Set(after)].map((other) => {
      const both = before.filter((x, i) => x === k && after[i] === other).length;
      const any = before.filter((x, i) => x === k || after[i] === other).length;
      return both / any;
    });
    const best = Math.max(...overlaps);
    const percent = Math.round(100 * best);
    if (best < 0.5) missed.push(`slot ${k + 1} (overlap ${percent} %)`);
  }
  const number = present.length - missed.length;
  const rest = missed.length ? ` Not found: ${missed.join(", ")}.` : "";
  return `Found ${number} of ${present.length} slots that were there.${rest}`;
}

// -------------------------------------------------------------------- keeping

function save(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`Saved ${name}.`);
}

async function saveGif(name, frames) {
  say("Drawing …");
  save(name, await (await ask("gif", JSON.stringify({ frames }))).blob());
}

function showPython() {
  const folder = JSON.stringify(about.checkpoint);
  const lines = ["import iodine", "import numpy as np", ""];
  lines.push(`model, config = iodine.restore(${folder})`);
  if (state.edit.length !== about.slots)
    lines.push(
      'parts = config["model"]',
      'parts["num_components"] = ' + state.edit.length,
      'parts["output_dist"]["num_components"] = ' + state.edit.length,
      `model, _ = iodine.restore(${folder}, config)`,
    );
  lines.push(
    'z = np.load("latents.npz")["latents"]  # [K, Z], kept by "Latents"',
    "_, x_dist = model.decode(z[None])",
    "image = x_dist.mean()[0, 0]  # [H, W, C]",
  );
  find("python").textContent = lines.join("\n");
}

// -------------------------------------------------------------------- begin

async function upload(file) {
  if (!file) return;
  if (file.size > MAX_UPLOAD) return say("Files have at most 20 MB.");
  const headers = { "X-Name": encodeURIComponent(file.name) };
  await use(await (await ask("upload", file, headers)).json());
}

// Latents get their names when the server knows them.
async function learnNames() {
  const known = await askFor("names");
  if (!known || !state.edit || gesture) return setTimeout(learnNames, 2000);
  names = known;
  showLatents();
}

function listen() {
  for (const [id, action] of Object.entries(actions))
    find(id).onclick = action;
  find("options").onchange = ({ target }) => {
    const value = target.name === "sample" ? !!target.value : +target.value;
    if (!target.reportValidity()) return;
    return open({ options: { ...state.options, [target.name]: value } });
  };
  find("mix").oninput = () => {
    if (!gesture) remember();
    gesture = true;
    const slot = state.edit[state.chosen];
    mixing ??= [...slot.z];
    const [share, other] = [+find("mix").value, partner().z];
    slot.z = mixing.map((z, i) => +(z + share * (other[i] - z)).toFixed(4));
    redraw();
  };
  find("mix").onchange = () => {
    gesture = false;
    showLatents();
    showPython();
    keepAddress();
  };
  find("partner").onchange = showSlots;
  find("file").onclick = ({ target }) => (target.value = "");
  find("file").onchange = ({ target }) => upload(target.files[0]);
  document.onpaste = ({ clipboardData }) => {
    if (clipboardData.files.length) return upload(clipboardData.files[0]);
  };
  document.ondragover = (event) => event.preventDefault();
  document.ondrop = (event) => {
    event.preventDefault();
    return upload(event.dataTransfer.files[0]);
  };
  document.onkeydown = (event) => {
    if (event.ctrlKey && event.key === "z") return undo();
  };
  window.onhashchange = () => location.reload();
}

async function begin() {
  about = await askFor("about");
  const [height, width] = about.shape;
  find("about").textContent =
    `${about.checkpoint}, step ${about.step}: ${about.slots} slots, ` +
    `${height} × ${width} pixels`;
  const all = ["image", "reconstruction", "masks", "error"];
  views = {
    found: new SceneView(find("found"), all, chooseFound),
    edited: new SceneView(find("edited"), ["reconstruction", "masks"], choose),
    second: new SceneView(find("second"), ["image"], (k) =>
      showPartners(`second ${k}`),
    ),
  };
  find("thumbnails").append(
    ...about.thumbnails.map((src, scene) => {
      const image = make("img", { src, alt: `scene ${scene}` });
      return make("button", { onclick: () => use({ scene }) }, image);
    }),
  );
  listen();
  const { slots, refinements, seed, sample } = about;
  const options = { slots, refinements, seed, sample };
  state = { source: { scene: 0 }, options, edit: null, chosen: 1 };
  try {
    if (location.hash) await enter(fromAddress());
    else if (about.thumbnails.length) await enter(state);
    else say("There are no scenes here: open a file.");
  } catch {
    await enter(state);
    say("The address could not be read. This is the first scene.");
  }
  await learnNames();
}

begin();
