// The grid of thumbnails. Only the rows in sight exist as elements, however many pairs there are.

import { getCards, thumbnailPath } from "./api.js";

const CARD_WIDTH = 196; // at least, but for two on a phone
const CARD_HEIGHT = 214;
const GAP = 12;
const ROWS_BEYOND = 1; // rows kept ready above and below what is in sight
const REST = 80; // milliseconds in sight before a thumbnail is asked for
const CARDS_KEPT = 1000;
const SELECTED_MOST = 200; // as many cards as the server tells at once

export class Grid {
  constructor(scroll, holder, { open, fail }) {
    Object.assign(this, { scroll, holder, open, fail });
    this.stems = [];
    this.known = new Map(); // stem -> card, oldest first
    this.elements = new Map(); // index -> element
    this.current = 0;
    this.selected = new Set(); // stems that are decided on together
    this.columns = 1;
    scroll.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.layOut()).observe(scroll);
  }

  show(stems, stem = null) {
    this.stems = stems;
    this.selected.clear();
    this.current = Math.max(0, stems.indexOf(stem));
    this.clear();
    this.scroll.scrollTop = 0;
    this.layOut();
    this.keepInSight();
  }

  clear() {
    for (const index of this.elements.keys()) this.remove(index);
  }

  remove(index) {
    const element = this.elements.get(index);
    const image = element.querySelector("img");
    if (image) image.src = ""; // what is out of sight is not waited for
    element.remove();
    this.elements.delete(index);
  }

  layOut() {
    if (!this.scroll.clientWidth) return; // hidden
    const columns = Math.max(2, Math.floor((this.holder.clientWidth + GAP) / (CARD_WIDTH + GAP)));
    const width = (this.holder.clientWidth - (columns - 1) * GAP) / columns;
    if (columns !== this.columns || width !== this.width) this.clear();
    Object.assign(this, { columns, width });
    const rows = Math.ceil(this.stems.length / columns);
    this.holder.style.height = `${rows * (CARD_HEIGHT + GAP) + GAP}px`;
    this.draw();
  }

  draw() {
    const step = CARD_HEIGHT + GAP;
    const top = Math.floor(this.scroll.scrollTop / step) - ROWS_BEYOND;
    const bottom = Math.ceil((this.scroll.scrollTop + this.scroll.clientHeight) / step) + ROWS_BEYOND;
    const first = Math.max(0, top * this.columns);
    const last = Math.min(this.stems.length, bottom * this.columns);
    for (const index of this.elements.keys()) {
      if (index < first || index >= last) this.remove(index);
    }
    for (let index = first; index < last; index++) {
      if (!this.elements.has(index)) this.place(index);
    }
    this.mark();
    this.load(first, last);
  }

  place(index) {
    const element = document.createElement("button");
    element.type = "button";
    element.className = "card";
    element.setAttribute("role", "listitem");
    element.dataset.stem = this.stems[index];
    element.style.width = `${this.width}px`;
    element.style.height = `${CARD_HEIGHT}px`;
    element.style.left = `${(index % this.columns) * (this.width + GAP)}px`;
    element.style.top = `${GAP / 2 + Math.floor(index / this.columns) * (CARD_HEIGHT + GAP)}px`;
    element.addEventListener("click", (event) => this.clicked(index, event));
    this.elements.set(index, element);
    this.holder.append(element);
    this.fill(index);
  }

  fill(index) {
    const element = this.elements.get(index);
    const stem = this.stems[index];
    const card = this.known.get(stem);
    if (!element) return;
    const thumb = make("span", "thumb");
    if (card?.thumbnail) {
      thumb.append(thumbnail(thumbnailPath(card), element.querySelector("img")));
    } else if (card) {
      thumb.append("a file is missing");
    }
    const said = make("span", "said");
    if (card) {
      const left = card.flagged ? make("span", "flag", "flagged") : make("span", "", "");
      const trust = card.score === null ? "" : `trust ${card.score.toFixed(2)}`;
      said.append(card.choice ? make("span", "choice", card.choice) : left, make("span", "", trust));
    }
    element.replaceChildren(thumb, make("span", "name", stem), said);
  }

  // Ctrl (or Command) selects, Shift selects from the last one on; a plain click opens.
  clicked(index, event) {
    const [first, last] = event.shiftKey ? [Math.min(index, this.current), Math.max(index, this.current)] : [index, index];
    if (!event.shiftKey && !event.ctrlKey && !event.metaKey) { this.open(this.stems[index]); return; }
    for (const stem of this.stems.slice(first, last + 1)) this.select(stem, event.shiftKey || undefined);
    this.current = index;
    this.mark();
  }

  select(stem, wanted = !this.selected.has(stem)) {
    if (!stem) return;
    if (wanted && this.selected.size < SELECTED_MOST) this.selected.add(stem);
    else this.selected.delete(stem);
    this.mark();
  }

  selectNone() {
    this.selected.clear();
    this.mark();
  }

  async load(first, last) {
    const missing = this.stems.slice(first, last).filter((stem) => !this.known.has(stem));
    if (!missing.length || this.loading) return;
    this.loading = true;
    try {
      for (const card of await getCards(missing.slice(0, 100))) this.know(card);
    } catch (error) {
      this.fail(error);
      return;
    } finally {
      this.loading = false;
    }
    this.draw(); // what came into sight meanwhile
  }

  know(card) {
    this.known.delete(card.stem);
    this.known.set(card.stem, card);
    if (this.known.size > CARDS_KEPT) this.known.delete(this.known.keys().next().value);
    for (const [index, element] of this.elements) {
      if (element.dataset.stem === card.stem) this.fill(index);
    }
  }

  move(step) {
    const index = Math.min(this.stems.length - 1, Math.max(0, this.current + step));
    if (index < 0) return;
    this.current = index;
    this.keepInSight();
  }

  keepInSight() {
    const top = Math.floor(this.current / this.columns) * (CARD_HEIGHT + GAP);
    const bottom = top + CARD_HEIGHT + GAP;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (bottom > this.scroll.scrollTop + this.scroll.clientHeight) {
      this.scroll.scrollTop = bottom - this.scroll.clientHeight;
    }
    this.draw();
    this.elements.get(this.current)?.focus({ preventScroll: true });
  }

  mark() {
    for (const [index, element] of this.elements) {
      element.classList.toggle("current", index === this.current);
      element.classList.toggle("selected", this.selected.has(element.dataset.stem));
      element.setAttribute("aria-selected", String(this.selected.has(element.dataset.stem)));
      element.tabIndex = index === this.current ? 0 : -1;
    }
  }
}

// The one there is if it shows the same; a new one is asked for once it has stayed in sight.
function thumbnail(path, present) {
  if (present?.getAttribute("src") === path) return present;
  const image = new Image();
  image.alt = "";
  image.fetchPriority = "low"; // names and decisions come first
  setTimeout(() => { if (image.isConnected) image.src = path; }, REST);
  return image;
}

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
