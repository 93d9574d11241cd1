"use strict";
// A decomposed scene: its pictures, its slots, a slider over the refinements.
// What it draws comes from `iodine/drawing/sheet.py`.

const TEMPLATE = `
<div class="stage"><canvas role="img"></canvas>
<svg aria-hidden="true"><path/><path/></svg></div>
<div class="time"><button type="button">Play</button>
<input type="range" min="0" aria-label="refinement"><output></output></div>
<div class="kinds tiles" role="radiogroup" aria-label="pictures"></div>
<div class="slots tiles" role="radiogroup" aria-label="slots"></div>
<p class="facts"></p><div class="curves"></div>`;
const ALL_KINDS = "image rebuilt masks error alone mask".split(" ");
const STEP_MILLISECONDS = 350;

class SceneView {
  // `kinds` of pictures are to choose from; `onchoose` is told of a slot.
  constructor(root, kinds = ALL_KINDS, onchoose = () => {}) {
    root.innerHTML = TEMPLATE;
    root.classList.add("view");
    this.part = (selector) => root.querySelector(selector);
    this.parts = (selector) => root.querySelectorAll(selector);
    Object.assign(this, { kinds, onchoose, kind: kinds[0], slot: 0 });
    this.part(".stage").onclick = ({ offsetX, offsetY, target }) => {
      const { width } = this.data;
      const pixel = target.clientWidth / width;
      const [x, y] = [offsetX, offsetY].map((at) => Math.floor(at / pixel));
      this.pick(this.labels[y * width + x]);
    };
    this.part("button").onclick = () => this.toggle();
    this.part("input").oninput = ({ target }) =>
      this.draw({ t: +target.value });
    fill(this.part(".kinds"), kinds, (k) => this.draw({ kind: kinds[k] }));
  }

  // Shows another scene, after its last refinement.
  async show(data, slot = this.slot) {
    const { width, height, rows, colors, sheet } = data;
    const image = new Image();
    image.src = sheet;
    await image.decode();
    if (this.timer) this.toggle();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    this.sheet = canvas.getContext("2d", { willReadFrequently: true });
    this.sheet.drawImage(image, 0, 0);
    this.part("svg").setAttribute("viewBox", `0 0 ${width} ${height}`);
    const names = colors.map((_, k) => `slot ${k + 1}`);
    fill(this.part(".slots"), names, (k) => this.pick(k));
    const last = rows - 1;
    this.part("input").max = last;
    this.part(".time").hidden = !last;
    slot = Math.min(slot, colors.length - 1);
    this.draw({ data, last, t: last, slot });
  }

  pick(slot) {
    this.draw({ slot });
    this.onchoose(slot);
  }

  // Draws all of it, after changes of what is to be seen.
  draw(changes) {
    Object.assign(this, changes);
    const { data, kinds, kind, slot, t } = this;
    const { colors, curves, kl } = data;
    this.labels = this.picture("labels").data.filter((_, i) => i % 4 === 0);
    this.part("input").value = t;
    this.part("output").value = `${t} of ${this.last}`;
    const drawn = Object.entries(curves).map((curve) => drawCurve(...curve, t));
    this.part(".curves").innerHTML = drawn.join("");
    this.paint(this.part("canvas"), kind, slot);
    this.part("canvas").setAttribute("aria-label", kind);
    const paint = (canvas, k) => this.paint(canvas, kinds[k], slot);
    this.parts(".kinds canvas").forEach(paint);
    const cut = (canvas, k) => this.paint(canvas, "alone", k, true);
    this.parts(".slots canvas").forEach(cut);
    press(this.part(".kinds"), kinds.indexOf(kind));
    press(this.part(".slots"), slot);
    const line = this.outline();
    for (const path of this.parts(".stage path")) path.setAttribute("d", line);
    const color = colors[slot].map((x) => 255 * x);
    this.part("path + path").style.stroke = `rgb(${color})`;
    const count = this.labels.filter((label) => label === slot).length;
    const share = ((100 * count) / this.labels.length).toFixed(1);
    const nats = kl ? `, KL ${kl[t][slot].toFixed(1)} nats` : "";
    const text = `Slot ${slot + 1}: ${share} % of the pixels${nats}`;
    this.part(".facts").textContent = text;
  }

  // Returns a part of the sheet.
  picture(kind, slot = 0) {
    const { width, height, colors } = this.data;
    const places = { image: 0, rebuilt: 1, masks: 2, error: 3, labels: 4 };
    const [alone, mask] = [5 + slot, 5 + colors.length + slot];
    const x = { ...places, alone, mask }[kind] * width;
    return this.sheet.getImageData(x, this.t * height, width, height);
  }

  paint(canvas, kind, slot, isCut = false) {
    const picture = this.picture(kind, slot);
    const opacity = isCut ? this.picture("mask", slot).data : [];
    for (let i = 0; i < opacity.length; i += 4)
      picture.data[i + 3] = opacity[i];
    [canvas.width, canvas.height] = [picture.width, picture.height];
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  // Returns the path around the slot's pixels.
  outline() {
    const { width, height } = this.data;
    const isIn = (x, y) =>
      x >= 0 && x < width && this.labels[y * width + x] === this.slot;
    let line = "";
    for (let y = 0; y <= height; y++)
      for (let x = 0; x <= width; x++) {
        if (isIn(x, y) !== isIn(x, y - 1)) line += `M${x} ${y}h1`;
        if (isIn(x, y) !== isIn(x - 1, y)) line += `M${x} ${y}v1`;
      }
    return line;
  }

  // Plays, or stops.
  toggle() {
    if (this.timer) this.timer = clearInterval(this.timer);
    else {
      if (this.t === this.last) this.draw({ t: 0 });
      // What does not change would be no film.
      if (this.kind === "image") this.draw({ kind: "rebuilt" });
      this.timer = setInterval(() => {
        this.draw({ t: this.t + 1 });
        if (this.t === this.last) this.toggle();
      }, STEP_MILLISECONDS);
    }
    this.part("button").textContent = this.timer ? "Pause" : "Play";
  }
}

function drawCurve(name, values, now) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const points = values.map((y, t) => `${t},${-y}`).join(" ");
  const box = `0 ${-most} ${values.length - 1 || 1} ${most - least || 1}`;
  return `<figure>${name} ${+values[now].toPrecision(4)}
<svg viewBox="${box}" preserveAspectRatio="none" aria-hidden="true">
<path d="M${now} ${-most}V${-least}"/><polyline points="${points}"/></svg>
</figure>`;
}

let groups = 0;

// Has a group offer pictures, one stop of the Tab key for all of them. Those
// that are there stay, as one may have the focus.
function fill(group, names, onclick, picture = () => "<canvas></canvas>") {
  if (group.children.length === names.length) return;
  const input = `<input type="radio" name="group ${groups++}" value=`;
  const tile = (name, k) => `<label>${input}${k}>${picture(k)}${name}</label>`;
  group.innerHTML = names.map(tile).join("");
  group.onclick = ({ target: { value } }) => value && onclick(+value);
}

// Shows which one of a group is chosen.
function press(group, chosen) {
  const show = (input, k) => (input.checked = k === chosen);
  group.querySelectorAll("input").forEach(show);
}

// In a page that has the data in itself.
for (const data of document.querySelectorAll("script.scene"))
  new SceneView(data.nextElementSibling).show(JSON.parse(data.textContent), 1);
