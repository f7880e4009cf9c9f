// The canvas: photograph and masks, zoomed and panned; drawn at most once a frame.

import { Layers, PICTURE } from "./layers.js";

const LARGEST = 40; // screen pixels for one of the picture
const GRIP = 14; // pixels around the divider that take hold of it

export class Stage {
  constructor(canvas, { zoomed, wiped }) {
    Object.assign(this, { canvas, zoomed, wiped });
    this.context = canvas.getContext("2d");
    this.view = "cutout";
    this.hidden = false; // the masks
    this.wipe = 0.5;
    this.correction = null; // the mask being corrected
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.up(event));
    }
    canvas.addEventListener("pointerleave", () => { this.correction?.leave(); this.ask(); });
  }

  show(pair, versionA, versionB) {
    const same = this.pair?.stem === pair.stem;
    Object.assign(this, { pair, versionA, versionB });
    this.layers = new Layers(pair, () => this.ask());
    if (same) this.ask();
    else this.fit();
  }

  set(values) {
    Object.assign(this, values);
    this.ask();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio);
    const height = Math.round(this.canvas.clientHeight * ratio);
    if (!width || !height || (width === this.canvas.width && height === this.canvas.height)) return;
    this.canvas.width = width;
    this.canvas.height = height;
    if (this.fitted) this.fit();
    else this.ask();
  }

  fit() {
    if (!this.pair) return;
    const { width, height } = this.canvas;
    const [top, left, rows, columns] = this.pair.window; // without the black around it
    this.scale = Math.min(width / columns, height / rows) * 0.98;
    this.left = width / 2 - (left + columns / 2) * this.scale;
    this.top = height / 2 - (top + rows / 2) * this.scale;
    this.fitted = true;
    this.ask();
  }

  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const smallest = Math.min(this.canvas.width / this.pair.width, this.canvas.height / this.pair.height) / 4;
    const scale = Math.min(LARGEST, Math.max(Math.min(smallest, 1), this.scale * factor));
    this.left = x - (x - this.left) * (scale / this.scale);
    this.top = y - (y - this.top) * (scale / this.scale);
    this.scale = scale;
    this.fitted = false;
    this.ask();
  }

  pan(x, y) {
    const { width, height } = this.canvas;
    const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
    this.left = clamp(this.left + x, width / 4 - this.pair.width * this.scale, width * 0.75);
    this.top = clamp(this.top + y, height / 4 - this.pair.height * this.scale, height * 0.75);
    this.fitted = false;
    this.ask();
  }

  ask() {
    if (this.asked || !this.pair) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.draw(); });
  }

  draw() {
    const began = performance.now();
    const { context, canvas } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = this.scale < 1;
    if (!this.drawLayer(PICTURE, PICTURE)) this.drawWaiting();
    if (this.correction) this.correction.draw(context);
    else if (!this.hidden) this.drawMasks();
    this.zoomed(this.scale);
    canvas.dataset.drawn = (performance.now() - began).toFixed(2);
  }

  drawMasks() {
    if (this.view === "difference" || this.versionA === this.versionB) {
      this.drawLayer(this.view, this.versionB, this.versionA);
      return;
    }
    const divider = Math.round(this.wipe * this.canvas.width);
    this.clipped(0, divider, () => this.drawLayer(this.view, this.versionA));
    this.clipped(divider, this.canvas.width, () => this.drawLayer(this.view, this.versionB));
    if (this.wipe > 0 && this.wipe < 1) this.drawDivider(divider);
  }

  clipped(left, right, draw) {
    const { context, canvas } = this;
    context.save();
    context.beginPath();
    context.rect(left, 0, right - left, canvas.height);
    context.clip();
    draw();
    context.restore();
  }

  drawDivider(x) {
    const { context, canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    context.fillStyle = "#0008";
    context.fillRect(x - 1.5 * ratio, 0, 3 * ratio, canvas.height);
    context.fillStyle = "#fff";
    context.fillRect(x - 0.5 * ratio, 0, ratio, canvas.height);
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    context.textBaseline = "top";
    for (const [name, side] of [[this.versionA, -1], [this.versionB, 1]]) {
      const width = context.measureText(name).width;
      const at = side < 0 ? x - width - 14 * ratio : x + 14 * ratio;
      context.fillStyle = "#000a";
      context.fillRect(at - 6 * ratio, 8 * ratio, width + 12 * ratio, 22 * ratio);
      context.fillStyle = "#fff";
      context.fillText(name, at, 12 * ratio);
    }
  }

  // Coarser tiles lie under the finer ones, so that there is always something to see. Answers
  // whether there was.
  drawLayer(view, shown, other) {
    const levels = this.layers.levels.length;
    const wanted = Math.min(levels - 1, Math.max(0, Math.floor(Math.log2(1 / this.scale) + 0.3)));
    const complete = this.drawLevel(view, shown, other, wanted, false);
    if (complete) return this.drawLevel(view, shown, other, wanted, true);
    const something = this.drawLevel(view, shown, other, levels - 1, true);
    if (view === PICTURE) this.drawLevel(view, shown, other, wanted, true);
    return something;
  }

  drawWaiting() {
    const { context, canvas } = this;
    context.fillStyle = "#aaa";
    context.font = `${15 * (window.devicePixelRatio || 1)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.fillText("preparing the picture ...", canvas.width / 2, canvas.height / 2);
    context.textAlign = "start";
  }

  // Draw a level's tiles in sight; answers whether all of them are there.
  drawLevel(view, shown, other, level, paint) {
    const size = this.layers.levels[level];
    const scale = (this.scale * this.pair.width) / size.width;
    const side = this.pair.tile * scale;
    const first = (start) => Math.max(0, Math.floor(-start / side));
    const last = (start, room, length) =>
      Math.min(Math.ceil(length / this.pair.tile), Math.ceil((room - start) / side));
    let complete = true;
    for (let row = first(this.top); row < last(this.top, this.canvas.height, size.height); row++) {
      for (let column = first(this.left); column < last(this.left, this.canvas.width, size.width); column++) {
        const tile = this.layers.tile(view, shown, other, level, row, column);
        if (!tile) { complete = false; continue; }
        if (!paint) continue;
        const x = Math.round(this.left + column * side), y = Math.round(this.top + row * side);
        const right = Math.round(this.left + column * side + tile.width * scale);
        const bottom = Math.round(this.top + row * side + tile.height * scale);
        this.context.drawImage(tile, x, y, right - x, bottom - y);
      }
    }
    return complete;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    return { x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio };
  }

  inPicture({ x, y }) {
    return { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale };
  }

  wheel(event) {
    event.preventDefault();
    if (!this.pair) return;
    const { x, y } = this.at(event);
    this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), x, y);
  }

  down(event) {
    if (!this.pair) return;
    const point = this.at(event);
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, point);
    const ratio = window.devicePixelRatio || 1;
    const nearDivider = Math.abs(point.x - this.wipe * this.canvas.width) < GRIP * ratio;
    const divides = !this.hidden && this.view !== "difference" && this.versionA !== this.versionB;
    if (this.pointers.size > 1) {
      if (this.dragging === "tool") this.correction?.end(false);
      this.dragging = "pinch";
    } else if (this.correction && event.button === 0) {
      this.dragging = "tool";
      this.correction.begin(this.inPicture(point));
    } else if (!this.correction && divides && nearDivider) this.dragging = "wipe";
    else this.dragging = "pan";
    this.ask();
  }

  move(event) {
    const point = this.at(event);
    const before = this.pointers.get(event.pointerId);
    if (this.correction) { this.correction.hover(this.inPicture(point)); this.ask(); }
    if (!before) return;
    if (this.dragging === "pinch") this.pinch(event.pointerId, point);
    else if (this.dragging === "tool") this.correction?.extend(this.inPicture(point));
    else if (this.dragging === "wipe") this.wiped(Math.min(1, Math.max(0, point.x / this.canvas.width)));
    else this.pan(point.x - before.x, point.y - before.y);
    this.pointers.set(event.pointerId, point);
    this.ask();
  }

  pinch(id, point) {
    const fixed = [...this.pointers].find(([other]) => other !== id)[1];
    const before = this.pointers.get(id);
    const reach = ({ x, y }) => Math.max(1, Math.hypot(x - fixed.x, y - fixed.y));
    this.pan((point.x - before.x) / 2, (point.y - before.y) / 2);
    this.zoom(reach(point) / reach(before), (point.x + fixed.x) / 2, (point.y + fixed.y) / 2);
  }

  up(event) {
    if (this.dragging === "tool") this.correction?.end(event.type === "pointerup");
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.dragging = null;
    this.ask();
  }
}
