"use strict";
// A decomposed scene: its pictures, its slots, a slider over the refinements.
// What it draws comes from `iodine/drawing/sheet.py`.

const SVG = ["svg", "path", "polyline", "line"];
const STEP_MILLISECONDS = 350;
const ERROR_COLOR = [200, 60, 20];

function make(tag, attributes = {}, ...children) {
  const space = "http://www.w3.org/2000/svg";
  const element = SVG.includes(tag)
    ? document.createElementNS(space, tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

class SceneView {
  // `kinds` of pictures are to choose from; `onchoose` is told of a slot.
  constructor(root, kinds, onchoose = () => {}) {
    this.onchoose = onchoose;
    this.kind = kinds[0];
    this.slot = this.t = 0;
    this.stage = make("canvas", { role: "img" });
    this.line = make("path", { "vector-effect": "non-scaling-stroke" });
    this.under = this.line.cloneNode();
    this.svg = make("svg", { "aria-hidden": true }, this.under, this.line);
    this.small = kinds.map((kind) => this.button(kind, () => this.turn(kind)));
    this.play = make("button", { onclick: () => this.toggle() }, "Play");
    this.range = make("input", {
      type: "range",
      min: 0,
      "aria-label": "refinement",
      oninput: () => this.step(+this.range.value),
    });
    this.told = make("output");
    this.time = make("div", { class: "time" }, this.play, this.range, this.told);
    this.slots = make("div", { class: "tiles", role: "group" });
    this.slots.setAttribute("aria-label", "slots");
    this.own = ["alone", "mask"].map((name) =>
      make("figure", {}, make("canvas"), make("figcaption", {}, name)),
    );
    this.facts = make("p");
    this.curves = make("div", { class: "curves" });
    const large = make("div", { class: "stage" }, this.stage, this.svg);
    large.onclick = (event) => this.choose(this.slotAt(event), true);
    const group = { class: "tiles", role: "group", "aria-label": "pictures" };
    root.classList.add("view");
    root.replaceChildren(
      large,
      this.time,
      make("div", group, ...this.small),
      this.slots,
      make("div", { class: "own" }, ...this.own, this.facts),
      this.curves,
    );
  }

  button(name, onclick) {
    return make("button", { onclick }, make("canvas"), make("span", {}, name));
  }

  // Shows another scene; stays at the refinement where there is but one.
  async show(data, slot = this.slot) {
    const image = new Image();
    image.src = data.sheet;
    await image.decode();
    if (this.timer) this.toggle();
    this.data = data;
    const { width, height } = image;
    const canvas = make("canvas", { width, height });
    this.sheet = canvas.getContext("2d", { willReadFrequently: true });
    this.sheet.drawImage(image, 0, 0);
    this.svg.setAttribute("viewBox", `0 0 ${data.width} ${data.height}`);
    this.slots.replaceChildren(
      ...data.colors.map((color, k) => {
        const tile = this.button(`slot ${k + 1}`, () => this.choose(k, true));
        tile.style.setProperty("--slot", color);
        return tile;
      }),
    );
    this.range.max = data.rows - 1;
    this.time.hidden = data.rows === 1;
    this.curves.replaceChildren(
      ...Object.entries(data.curves).map(([name, y]) => this.curve(name, y)),
    );
    this.slot = Math.min(slot, data.colors.length - 1);
    this.step(data.rows - 1);
  }

  curve(name, values) {
    const least = Math.min(...values);
    const span = Math.max(...values) - least || 1;
    const points = values.map((y, t) => [
      (100 * t) / Math.max(values.length - 1, 1),
      38 - (36 * (y - least)) / span,
    ]);
    const attributes = { viewBox: "0 0 100 40", preserveAspectRatio: "none" };
    return make(
      "figure",
      { "data-name": name },
      make("figcaption"),
      make(
        "svg",
        { ...attributes, "aria-hidden": true },
        make("line", { y1: 0, y2: 40 }),
        make("polyline", { points: points.join(" ") }),
      ),
    );
  }

  // One picture of the sheet, RGBA.
  tile(column, t = this.t) {
    const { width, height } = this.data;
    const [x, y] = [column * width, t * height];
    return this.sheet.getImageData(x, y, width, height).data;
  }

  // The number of the slot of every pixel.
  labels(t = this.t) {
    return this.tile(2, t).filter((_, i) => i % 4 === 0);
  }

  slotAt(event) {
    const { width, height } = this.data;
    const box = this.stage.getBoundingClientRect();
    const x = Math.floor((width * (event.clientX - box.left)) / box.width);
    const y = Math.floor((height * (event.clientY - box.top)) / box.height);
    return this.labels()[y * width + x];
  }

  paint(canvas, pixel) {
    const { width, height } = this.data;
    const image = new ImageData(width, height);
    for (let i = 0; i < image.data.length; i += 4) image.data.set(pixel(i), i);
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // Returns what paints a kind of picture: (place) => RGBA.
  pixels(kind) {
    const [image, made] = [this.tile(0), this.tile(1)];
    if (kind === "masks") return this.mixed();
    if (kind === "error") {
      return (i) => {
        const part = (c) => Math.abs(image[i + c] - made[i + c]);
        return [...ERROR_COLOR, Math.min(255, part(0) + part(1) + part(2))];
      };
    }
    const shown = kind === "image" ? image : made;
    return (i) => shown.subarray(i, i + 4);
  }

  mixed() {
    const { colors } = this.data;
    const rgb = colors.map((color) =>
      [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255),
    );
    const masks = colors.map((_, k) => this.tile(3 + colors.length + k));
    const sum = (i, c) => masks.reduce((all, m, k) => all + m[i] * rgb[k][c], 0);
    return (i) => [sum(i, 0), sum(i, 1), sum(i, 2), 255];
  }

  // A slot's component, where its mask is; all of it; or its mask.
  part(k, how) {
    const component = this.tile(3 + k);
    const mask = this.tile(3 + this.data.colors.length + k);
    if (how === "mask") return (i) => mask.subarray(i, i + 4);
    return (i) => {
      const alpha = how === "cut" ? mask[i] : 255;
      return [component[i], component[i + 1], component[i + 2], alpha];
    };
  }

  step(t) {
    this.t = t;
    this.range.value = t;
    const last = this.data.rows - 1;
    this.told.value = `${t} of ${last}`;
    for (const figure of this.curves.children) {
      const { name } = figure.dataset;
      const value = this.data.curves[name][t];
      figure.firstChild.textContent = `${name} ${+value.toPrecision(4)}`;
      const line = figure.querySelector("line");
      for (const x of ["x1", "x2"]) line.setAttribute(x, (100 * t) / (last || 1));
    }
    this.small.forEach((button) => {
      const kind = button.textContent;
      this.paint(button.firstChild, this.pixels(kind));
    });
    [...this.slots.children].forEach((button, k) =>
      this.paint(button.firstChild, this.part(k, "cut")),
    );
    this.turn(this.kind);
    this.choose(this.slot);
  }

  // Shows another picture large.
  turn(kind) {
    this.kind = kind;
    this.paint(this.stage, this.pixels(kind));
    this.stage.setAttribute("aria-label", kind);
    for (const button of this.small)
      button.setAttribute("aria-pressed", button.textContent === kind);
  }

  choose(slot, isNew = false) {
    this.slot = slot;
    const { width, colors, kl } = this.data;
    const labels = this.labels();
    const edges = [];
    labels.forEach((label, i) => {
      if (label !== slot) return;
      const [x, y] = [i % width, Math.floor(i / width)];
      const ends = x === width - 1 || labels[i + 1] !== slot;
      if (labels[i - width] !== slot) edges.push(`M${x} ${y}h1`);
      if (labels[i + width] !== slot) edges.push(`M${x} ${y + 1}h1`);
      if (x === 0 || labels[i - 1] !== slot) edges.push(`M${x} ${y}v1`);
      if (ends) edges.push(`M${x + 1} ${y}v1`);
    });
    for (const path of [this.under, this.line])
      path.setAttribute("d", edges.join(""));
    this.line.style.stroke = colors[slot];
    [...this.slots.children].forEach((button, k) =>
      button.setAttribute("aria-pressed", k === slot),
    );
    this.own.forEach((figure) => {
      const how = figure.textContent;
      this.paint(figure.firstChild, this.part(slot, how));
    });
    const count = labels.filter((label) => label === slot).length;
    const share = ((100 * count) / labels.length).toFixed(1);
    const nats = kl ? `, KL ${kl[this.t][slot].toFixed(1)} nats` : "";
    this.facts.textContent = `Slot ${slot + 1}: ${share} % of pixels${nats}`;
    if (isNew) this.onchoose(slot);
  }

  toggle() {
    const stop = () => {
      this.timer = clearInterval(this.timer);
      this.play.textContent = "Play";
    };
    if (this.timer) return stop();
    if (this.t === this.data.rows - 1) this.step(0);
    this.play.textContent = "Pause";
    this.timer = setInterval(() => {
      this.step(this.t + 1);
      if (this.t >= this.data.rows - 1) stop();
    }, STEP_MILLISECONDS);
  }
}

// Where the data lies in the page itself.
for (const data of document.querySelectorAll("script.scene")) {
  const view = new SceneView(data.nextElementSibling, [
    "image",
    "reconstruction",
    "masks",
    "error",
  ]);
  view.show(JSON.parse(data.textContent), 1);
}
