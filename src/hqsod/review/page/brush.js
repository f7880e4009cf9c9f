// Correcting a mask by hand. The mask is the alpha of one canvas at full size, so that what the brush
// does not touch keeps its values to the bit.

import { TINT, blank } from "./layers.js";

const STROKES_KEPT = 40;
const OPACITY = 0.55;

export class Brush {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.erasing = false;
    this.size = 24; // pixels across
    this.strokes = []; // what stood below each stroke: {x, y, data}
    this.cursor = { x: canvas.width / 2, y: canvas.height / 2 };
    this.seen = true;
  }

  get touched() {
    return this.strokes.length > 0;
  }

  begin(point) {
    this.before = blank(this.canvas.width, this.canvas.height);
    this.before.getContext("2d", { willReadFrequently: true }).drawImage(this.canvas, 0, 0);
    this.box = [Infinity, Infinity, -Infinity, -Infinity];
    this.last = point;
    this.extend(point);
  }

  extend(point) {
    if (!this.before) return;
    const { context } = this;
    context.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    context.strokeStyle = `rgb(${TINT.join(" ")})`;
    context.lineWidth = this.size;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(this.last.x, this.last.y);
    context.lineTo(point.x, point.y + (point.y === this.last.y && point.x === this.last.x ? 0.01 : 0));
    context.stroke();
    const reach = this.size / 2 + 2;
    for (const { x, y } of [this.last, point]) {
      this.box = [
        Math.min(this.box[0], x - reach), Math.min(this.box[1], y - reach),
        Math.max(this.box[2], x + reach), Math.max(this.box[3], y + reach),
      ];
    }
    this.last = point;
  }

  end() {
    if (!this.before) return;
    const [left, top] = [Math.max(0, Math.floor(this.box[0])), Math.max(0, Math.floor(this.box[1]))];
    const right = Math.min(this.canvas.width, Math.ceil(this.box[2]));
    const bottom = Math.min(this.canvas.height, Math.ceil(this.box[3]));
    if (right > left && bottom > top) {
      const data = this.before.getContext("2d").getImageData(left, top, right - left, bottom - top);
      this.strokes.push({ x: left, y: top, data });
      if (this.strokes.length > STROKES_KEPT) this.strokes.shift();
    }
    this.before = null;
  }

  undo() {
    const stroke = this.strokes.pop();
    if (stroke) this.context.putImageData(stroke.data, stroke.x, stroke.y);
    return Boolean(stroke);
  }

  hover(point) {
    this.cursor = point;
    this.seen = true;
  }

  leave() {
    this.seen = false;
  }

  // Move by keyboard; `painting` draws along the way.
  step(x, y, painting) {
    const point = { x: this.cursor.x + x, y: this.cursor.y + y };
    if (painting) { this.begin(this.cursor); this.extend(point); this.end(); }
    this.hover(point);
  }

  dab() {
    this.begin(this.cursor);
    this.end();
  }

  draw(context, stage) {
    context.globalAlpha = OPACITY;
    const { width, height } = this.canvas;
    context.drawImage(this.canvas, stage.left, stage.top, width * stage.scale, height * stage.scale);
    context.globalAlpha = 1;
    if (!this.seen) return;
    const x = stage.left + this.cursor.x * stage.scale;
    const y = stage.top + this.cursor.y * stage.scale;
    for (const [colour, wide] of [["#000", 3], [this.erasing ? "#6cf" : "#fff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide * (window.devicePixelRatio || 1);
      context.beginPath();
      context.arc(x, y, Math.max(2, (this.size / 2) * stage.scale), 0, 2 * Math.PI);
      context.stroke();
    }
  }

  // The mask as an opaque grey PNG.
  png() {
    const { width, height } = this.canvas;
    const result = blank(width, height);
    const data = this.context.getImageData(0, 0, width, height);
    for (let at = 0; at < data.data.length; at += 4) {
      data.data[at] = data.data[at + 1] = data.data[at + 2] = data.data[at + 3];
      data.data[at + 3] = 255;
    }
    result.getContext("2d").putImageData(data, 0, 0);
    return new Promise((done) => result.toBlob(done, "image/png"));
  }
}
