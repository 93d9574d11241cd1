"use strict";
// A decomposed scene: its pictures, its slots, a slider over the refinements.
// What it draws comes from `iodine/drawing/sheet.py`.

const TEMPLATE = `
<div class="stage"><canvas role="img"></canvas>
<svg aria-hidden="true"><path/><path/></svg></div>
<div class="time"><button type="button">Play</button>
<input type="range" min="0" aria-label="refinement"><output></output></div>
<div class="kinds tiles" role="group" aria-label="pictures"></div>
<div class="slots tiles" role="group" aria-label="slots"></div>
<p class="facts"></p><div class="curves"></div>`;
const ALL_KINDS = "image rebuilt masks error alone mask".split(" ");
const STEP_MILLISECONDS = 350;

class SceneView {
  // `kinds` of pictures are to choose from; `onchoose` is told of a slot.
  constructor(root, kinds = ALL_KINDS, onchoose = () => {}) {
    root.innerHTML = TEMPLATE;
    root.classList.add("view");
    this.part = (selector) => root.querySelector(selector);
    Object.assign(this, { kinds, onchoose, kind: kinds[0], slot: 0 });
    this.part(".stage").onclick = ({ offsetX, offsetY, target }) => {
      const { width } = this.data;
      const pixel = target.clientWidth / width;
      const [x, y] = [offsetX, offsetY].map((at) => Math.floor(at / pixel));
      this.pick(this.labels[y * width + x]);
    };
    this.part(".time button").onclick = () => this.toggle();
    this.part("input").oninput = ({ target }) => this.step(+target.value);
    this.fill(".kinds", kinds, (k) => this.turn(kinds[k]));
  }

  // Puts buttons with a canvas each into a group.
  fill(group, names, onclick) {
    this.part(group).innerHTML = names
      .map((name) => `<button type="button"><canvas></canvas>${name}</button>`)
      .join("");
    this.buttons(group).forEach((x, k) => (x.onclick = () => onclick(k)));
  }

  buttons(group) {
    return [...this.part(group).children];
  }

  // Shows another scene, after its last refinement.
  async show(data, slot = this.slot) {
    const image = new Image();
    image.src = data.sheet;
    await image.decode();
    if (this.timer) this.toggle();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    this.sheet = canvas.getContext("2d", { willReadFrequently: true });
    this.sheet.drawImage(image, 0, 0);
    const { width, height, rows, colors } = data;
    Object.assign(this, { data, last: rows - 1 });
    this.slot = Math.min(slot, colors.length - 1);
    this.part("svg").setAttribute("viewBox", `0 0 ${width} ${height}`);
    const names = colors.map((_, k) => `slot ${k + 1}`);
    this.fill(".slots", names, (k) => this.pick(k));
    this.part("input").max = this.last;
    this.part(".time").hidden = !this.last;
    this.step(this.last);
  }

  step(t) {
    const { width, height, colors, curves } = this.data;
    this.t = this.part("input").value = t;
    this.tiles = Array.from({ length: 3 + 2 * colors.length }, (_, column) =>
      this.sheet.getImageData(column * width, t * height, width, height).data,
    );
    this.labels = this.tiles[2].filter((_, i) => i % 4 === 0);
    this.part("output").value = `${t} of ${this.last}`;
    const drawn = Object.entries(curves).map((curve) => drawCurve(...curve, t));
    this.part(".curves").innerHTML = drawn.join("");
    this.buttons(".slots").forEach((button, k) => {
      button.style.setProperty("--slot", css(colors[k]));
      this.paint(button.firstChild, this.pixels("cut", k));
    });
    this.choose(this.slot);
  }

  // Returns what paints a picture: (place of a pixel) => RGBA.
  pixels(kind, slot = this.slot) {
    const { colors } = this.data;
    const [image, made, , ...parts] = this.tiles;
    const masks = parts.splice(colors.length);
    const copy = (tile, alpha) => (i) =>
      [tile[i], tile[i + 1], tile[i + 2], alpha ? alpha[i] : 255];
    const off = (i) =>
      [i, i + 1, i + 2].reduce((e, j) => e + Math.abs(image[j] - made[j]), 0);
    const mix = (i, c) => masks.reduce((x, m, k) => x + m[i] * colors[k][c], 0);
    return {
      image: copy(image),
      rebuilt: copy(made),
      alone: copy(parts[slot]),
      mask: copy(masks[slot]),
      cut: copy(parts[slot], masks[slot]),
      masks: (i) => [mix(i, 0), mix(i, 1), mix(i, 2), 255],
      error: (i) => [200, 60, 20, Math.min(off(i), 255)],
    }[kind];
  }

  paint(canvas, pixel) {
    const image = new ImageData(this.data.width, this.data.height);
    for (let i = 0; i < image.data.length; i += 4) image.data.set(pixel(i), i);
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // Shows a picture large.
  turn(kind) {
    this.kind = kind;
    this.paint(this.part(".stage canvas"), this.pixels(kind));
    this.part(".stage canvas").setAttribute("aria-label", kind);
    press(this.buttons(".kinds"), (k) => this.kinds[k] === kind);
  }

  pick(slot) {
    this.choose(slot);
    this.onchoose(slot);
  }

  choose(slot) {
    this.slot = slot;
    this.turn(this.kind);
    this.buttons(".kinds").forEach((button, k) =>
      this.paint(button.firstChild, this.pixels(this.kinds[k])),
    );
    const { width, colors, kl } = this.data;
    const at = (x, y) =>
      x >= 0 && x < width && this.labels[y * width + x] === slot;
    let [line, count] = ["", 0];
    this.labels.forEach((label, i) => {
      const [x, y] = [i % width, Math.floor(i / width)];
      if (label !== slot) return;
      count++;
      for (const [right, down] of [[0, -1], [0, 1], [-1, 0], [1, 0]])
        if (!at(x + right, y + down))
          line += `M${x + (right > 0)} ${y + (down > 0)}${right ? "v" : "h"}1`;
    });
    for (const path of this.part("svg").children) path.setAttribute("d", line);
    this.part("path + path").style.stroke = css(colors[slot]);
    press(this.buttons(".slots"), (k) => k === slot);
    const share = ((100 * count) / this.labels.length).toFixed(1);
    const nats = kl ? `, KL ${kl[this.t][slot].toFixed(1)} nats` : "";
    const text = `Slot ${slot + 1}: ${share} % of the pixels${nats}`;
    this.part(".facts").textContent = text;
  }

  // Plays, or stops.
  toggle() {
    if (!this.timer && this.t === this.last) this.step(0);
    // What does not change would be no film.
    if (!this.timer && this.kind === "image") this.turn("rebuilt");
    const next = () => {
      this.step(this.t + 1);
      if (this.t === this.last) this.toggle();
    };
    this.timer = this.timer
      ? clearInterval(this.timer)
      : setInterval(next, STEP_MILLISECONDS);
    this.part(".time button").textContent = this.timer ? "Pause" : "Play";
  }
}

function drawCurve(name, values, now) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const height = (y) => 38 - (36 * (y - least)) / (most - least || 1);
  const points = values.map((y, t) => `${t},${height(y)}`);
  const box = `viewBox="0 0 ${values.length - 1 || 1} 40"`;
  return `<figure>${name} ${+values[now].toPrecision(4)}
<svg ${box} preserveAspectRatio="none" aria-hidden="true">
<path d="M${now} 0v40"/><polyline points="${points.join(" ")}"/></svg>
</figure>`;
}

const css = (color) => `rgb(${color.map((x) => 255 * x)})`;

function press(buttons, isOn) {
  [...buttons].forEach((x, k) => x.setAttribute("aria-pressed", isOn(k)));
}

// In a page that has the data in itself.
for (const data of document.querySelectorAll("script.scene"))
  new SceneView(data.nextElementSibling).show(JSON.parse(data.textContent), 1);
