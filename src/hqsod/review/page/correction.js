// A mask being corrected, with a brush, a polygon, and a click that takes a whole region. The mask is
// the alpha of one canvas at full size, so that what is not touched keeps its values to the bit.

import { TINT, blank } from "./layers.js";
import { regionAt } from "./region.js";

const CHANGES_KEPT = 40;
const OPACITY = 0.55;
const ARM = 9; // screen pixels of the cross that shows where a click goes
const NEAR = 8; // screen pixels within which a click on a corner closes the polygon

export class Correction {
  constructor(stage, canvas, missed) {
    Object.assign(this, { stage, canvas, missed });
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.tool = "brush"; // or polygon, or region
    this.erasing = false;
    this.size = 24; // pixels across
    this.corners = []; // of the polygon while it is open
    this.proposal = null; // the version that regions are added from, as such a canvas
    this.changes = []; // what stood below each: {x, y, data}
    this.cursor = { x: canvas.width / 2, y: canvas.height / 2 };
    this.seen = true;
  }

  get touched() {
    return this.changes.length + this.corners.length > 0;
  }

  // ---- from press to release

  begin(point) {
    this.last = point;
    if (this.tool !== "brush") return;
    this.start();
    this.extend(point);
  }

  extend(point) {
    const from = this.last;
    this.last = point;
    if (!this.before) return;
    const { context } = this;
    context.lineWidth = this.size;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(point.x, point.y + (point.y === from.y && point.x === from.x ? 0.01 : 0));
    context.stroke();
    this.cover([from, point], this.size / 2);
  }

  // `clicks`: whether it was more than the first of two fingers.
  end(clicks = true) {
    if (this.before) this.keep();
    else if (clicks && this.tool === "polygon") this.addCorner(this.last);
    else if (clicks && this.tool === "region") this.takeRegion(this.last);
  }

  click() {
    this.begin(this.cursor);
    this.end();
  }

  // ---- what a change covers

  start() {
    this.before = blank(this.canvas.width, this.canvas.height);
    this.before.getContext("2d", { willReadFrequently: true }).drawImage(this.canvas, 0, 0);
    this.box = [Infinity, Infinity, -Infinity, -Infinity];
    this.context.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    this.context.strokeStyle = this.context.fillStyle = `rgb(${TINT.join(" ")})`;
  }

  cover(points, reach = 0) {
    const [left, top, right, bottom] = this.box;
    const across = points.map(({ x }) => x), down = points.map(({ y }) => y);
    this.box = [
      Math.min(left, ...across.map((x) => x - reach - 2)), Math.min(top, ...down.map((y) => y - reach - 2)),
      Math.max(right, ...across.map((x) => x + reach + 2)), Math.max(bottom, ...down.map((y) => y + reach + 2)),
    ];
  }

  keep() {
    const [left, top] = [Math.max(0, Math.floor(this.box[0])), Math.max(0, Math.floor(this.box[1]))];
    const right = Math.min(this.canvas.width, Math.ceil(this.box[2]));
    const bottom = Math.min(this.canvas.height, Math.ceil(this.box[3]));
    if (right > left && bottom > top) {
      const data = this.before.getContext("2d").getImageData(left, top, right - left, bottom - top);
      this.changes.push({ x: left, y: top, data });
      if (this.changes.length > CHANGES_KEPT) this.changes.shift();
    }
    this.before = null;
  }

  undo() {
    if (this.tool === "polygon" && this.corners.pop()) return true;
    const change = this.changes.pop();
    if (change) this.context.putImageData(change.data, change.x, change.y);
    return Boolean(change);
  }

  // ---- the polygon and the region

  addCorner(point) {
    const reach = (NEAR * ratio()) / this.stage.scale;
    const isNear = (corner) => corner && Math.hypot(corner.x - point.x, corner.y - point.y) < reach;
    if (!isNear(this.corners[0]) && !isNear(this.corners.at(-1))) this.corners.push(point);
    else if (this.corners.length > 2) this.closePolygon();
  }

  closePolygon() {
    if (this.corners.length < 3) { this.missed("A polygon has at least three corners."); return; }
    this.start();
    this.context.beginPath();
    for (const { x, y } of this.corners) this.context.lineTo(x, y);
    this.context.fill();
    this.cover(this.corners);
    this.keep();
    this.corners = [];
  }

  // Add a region of the proposal, or erase one of the mask itself.
  takeRegion(point) {
    const source = this.erasing ? this.canvas : this.proposal;
    const region = source && regionAt(source, point);
    if (!region) { this.missed(source ? "There is no object there." : "That version is still loading."); return; }
    const { x, y, width, height, values } = region;
    this.start();
    const image = this.context.getImageData(x, y, width, height);
    for (let at = 0; at < values.length; at++) {
      if (!values[at]) continue;
      const alpha = image.data[4 * at + 3];
      image.data.set(TINT, 4 * at);
      image.data[4 * at + 3] = this.erasing ? alpha - values[at] : Math.max(alpha, values[at]);
    }
    this.context.putImageData(image, x, y);
    this.cover([{ x, y }, { x: x + width, y: y + height }]);
    this.keep();
  }

  // ---- the cursor

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
    if (painting && this.tool === "brush") { this.begin(this.cursor); this.extend(point); this.end(); }
    this.hover(point);
  }

  draw(context) {
    const { left, top, scale } = this.stage;
    const { width, height } = this.canvas;
    context.globalAlpha = OPACITY;
    const proposal = this.tool === "region" && !this.erasing ? this.proposal : null;
    for (const layer of [proposal, this.canvas]) {
      if (layer) context.drawImage(layer, left, top, width * scale, height * scale);
    }
    context.globalAlpha = 1;
    for (const [colour, wide] of [["#000", 3], [this.erasing ? "#6cf" : "#fff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide * ratio();
      context.beginPath();
      this.outline(context, ({ x, y }) => [left + x * scale, top + y * scale]);
      context.stroke();
    }
  }

  outline(context, onScreen) {
    const [x, y] = onScreen(this.cursor), arm = ARM * ratio();
    if (this.corners.length) {
      const [firstX, firstY] = onScreen(this.corners[0]);
      context.rect(firstX - arm / 2, firstY - arm / 2, arm, arm);
      context.moveTo(firstX, firstY);
      for (const corner of this.corners) context.lineTo(...onScreen(corner));
      if (this.seen && this.tool === "polygon") context.lineTo(x, y);
    }
    if (!this.seen) return;
    const radius = this.tool === "brush" ? Math.max(2, (this.size / 2) * this.stage.scale) : 0;
    context.moveTo(x + radius, y);
    if (radius) { context.arc(x, y, radius, 0, 2 * Math.PI); return; }
    for (const [dx, dy] of [[arm, 0], [0, arm]]) {
      context.moveTo(x - dx, y - dy);
      context.lineTo(x + dx, y + dy);
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

const ratio = () => window.devicePixelRatio || 1;
