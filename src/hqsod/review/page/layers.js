// Tiles of a pair: fetched once, turned into what a view shows, the longest unused forgotten.

import { tilePath } from "./api.js";

const KEPT = 160; // canvases of at most 512 x 512: 160 MB
const ADDED = [226, 61, 128];
const REMOVED = [0, 158, 200];
const TINT = [255, 140, 0];
export const PICTURE = "picture";

// For each view, what lies over the photograph: values of the shown mask and of the other -> RGBA.
const COLOURS = {
  cutout: (value) => [0, 0, 0, (255 - value) * 0.72],
  tint: (value) => [...TINT, value * 0.5],
  mask: (value) => [value, value, value, 255],
  difference: (value, other) =>
    value > other ? [...ADDED, (value - other) * 0.8]
      : [...REMOVED, (other - value) * 0.8],
};

export class Layers {
  constructor(pair, changed) {
    Object.assign(this, { pair, changed });
    this.levels = [{ width: pair.width, height: pair.height }];
    for (let size = this.levels[0]; Math.max(size.width, size.height) > pair.tile; ) {
      size = { width: Math.ceil(size.width / 2), height: Math.ceil(size.height / 2) };
      this.levels.push(size);
    }
    this.canvases = new Map(); // what is drawn
    this.fetched = new Map(); // promises of tiles
  }

  // The tile as the view shows it, or null while it is on its way.
  tile(view, shown, other, level, row, column) {
    const key = [view, shown, view === "difference" ? other : "", level, row, column].join("|");
    const canvas = this.canvases.get(key);
    if (canvas !== undefined) {
      this.canvases.delete(key);
      this.canvases.set(key, canvas); // now the newest
      return canvas;
    }
    this.canvases.set(key, null);
    this.make(view, shown, other, level, row, column).then(
      (made) => { this.keep(key, made); this.changed(); },
      () => { this.canvases.delete(key); },
    );
    return null;
  }

  keep(key, canvas) {
    this.canvases.delete(key);
    this.canvases.set(key, canvas);
    for (const old of this.canvases.keys()) {
      if (this.canvases.size <= KEPT) break;
      this.canvases.delete(old);
    }
  }

  async make(view, shown, other, level, row, column) {
    const first = await this.fetch(shown, level, row, column);
    if (view === PICTURE) return first;
    const values = pixels(first);
    const others = view === "difference" ? pixels(await this.fetch(other, level, row, column)) : values;
    const result = blank(first.width, first.height);
    const context = result.getContext("2d");
    const out = context.createImageData(first.width, first.height);
    const table = view === "difference" ? null : [...Array(256).keys()].map((v) => COLOURS[view](v));
    for (let at = 0; at < values.length; at += 4) {
      const colour = table ? table[values[at]] : COLOURS.difference(values[at], others[at]);
      for (let channel = 0; channel < 4; channel++) out.data[at + channel] = colour[channel];
    }
    context.putImageData(out, 0, 0);
    return result;
  }

  async fetch(layer, level, row, column) {
    const path = tilePath(this.pair, layer, level, row, column);
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(`tile ${path}: ${answer.status}`);
    return createImageBitmap(await answer.blob());
  }

  // The whole mask at full size as the alpha of one canvas, to be corrected: alpha is kept exactly.
  async whole(layer, colour = TINT) {
    const { width, height } = this.levels[0];
    const canvas = blank(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const { tile } = this.pair;
    const jobs = [];
    for (let row = 0; row * tile < height; row++) {
      for (let column = 0; column * tile < width; column++) {
        jobs.push(this.fetch(layer, 0, row, column).then((bitmap) => {
          const data = new ImageData(pixels(bitmap), bitmap.width, bitmap.height);
          for (let at = 0; at < data.data.length; at += 4) {
            data.data[at + 3] = data.data[at];
            [data.data[at], data.data[at + 1], data.data[at + 2]] = colour;
          }
          context.putImageData(data, column * tile, row * tile);
        }));
      }
    }
    await Promise.all(jobs);
    return canvas;
  }
}

export function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function pixels(bitmap) {
  const context = blank(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
}

export { ADDED, TINT };
