// The connected region of a mask that a click means.

const THRESHOLD = 127; // a pixel above it is the object's, as everywhere in hqsod

// Values of the region under `point` in a canvas whose alpha is a mask, within the box around it, and
// 0 beside it; null where the mask is empty. From its pixels above the threshold the region runs on
// downhill, over the soft contour, so that no grey rim is left out.
export function regionAt(canvas, point) {
  const { width, height } = canvas;
  const column = Math.floor(point.x), row = Math.floor(point.y);
  if (column < 0 || row < 0 || column >= width || row >= height) return null;
  const { data } = canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height);
  const mask = new Uint8Array(width * height);
  for (let at = 0; at < mask.length; at++) mask[at] = data[4 * at + 3];
  const start = row * width + column;
  if (mask[start] <= THRESHOLD) return null;
  const inside = new Uint8Array(mask.length);
  const open = [];
  const enter = (at, level) => {
    if (inside[at] !== 0 || !(mask[at] > THRESHOLD || (mask[at] && mask[at] < level))) return;
    inside[at] = 1;
    open.push(at);
  };
  let [left, top, right, bottom] = [column, row, column, row];
  enter(start, 0);
  while (open.length) {
    const at = open.pop(), x = at % width, y = (at - x) / width;
    left = Math.min(left, x); right = Math.max(right, x);
    top = Math.min(top, y); bottom = Math.max(bottom, y);
    if (x > 0) enter(at - 1, mask[at]);
    if (x + 1 < width) enter(at + 1, mask[at]);
    enter(at - width, mask[at]); // outside of the mask there is undefined, which is not 0
    enter(at + width, mask[at]);
  }
  const region = { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
  const values = new Uint8Array(region.width * region.height);
  for (let at = 0; at < values.length; at++) {
    const from = (top + Math.floor(at / region.width)) * width + left + (at % region.width);
    if (inside[from]) values[at] = mask[from];
  }
  return { ...region, values };
}
