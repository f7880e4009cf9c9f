// The page: two views (the grid, one pair), the keys, and what happens when a person decides.

import * as api from "./api.js";
import { Correcting } from "./correcting.js";
import { Grid, make } from "./grid.js";
import { Stage } from "./stage.js";
import { VIEWS, Viewer } from "./viewer.js";

const byId = (id) => document.getElementById(id);
const STATES = [
  ["left", "To do"], ["flagged", "Flagged"], ["undecided", "Undecided"], ["later", "Later"],
  ["decided", "Decided"], ["all", "All"],
];
const PAN = 80; // screen pixels for one key
const UNDO_KEPT = 200;
const SEARCH_PAUSE = 200; // milliseconds without a letter before the search runs

const query = { state: "left", search: "", figure: "", at_least: "", at_most: "" };
let about = { figures: [] };
let position = -1; // of the pair in the grid's list
let busy = false; // a decision is on its way

const grid = new Grid(byId("scroll"), byId("cards"), { open: openPair, fail: say });
const stage = new Stage(byId("canvas"), {
  zoomed: (scale) => { byId("zoom").textContent = `${Math.round(scale * 100)} %`; },
  wiped: setWipe,
});
const viewer = new Viewer(stage, { decide, viewed: (view) => viewer.setView(view) });
const correcting = new Correcting(stage, viewer, { save: saveCorrection, say, toast });

// ---- saying things

let toastEnds = 0;
function say(error) {
  toast(error.message, true);
}
function toast(words, isError = false) {
  const element = byId("toast");
  element.textContent = words;
  element.classList.toggle("error", isError);
  element.hidden = false;
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => { element.hidden = true; }, isError ? 12000 : 3500);
}

function showCounts(counts) {
  const { all, left, decided, flagged_left: flagged } = counts;
  byId("done").max = Math.max(1, all);
  byId("done").value = decided;
  byId("left").textContent = `${left.toLocaleString()} of ${all.toLocaleString()} to do, ${flagged.toLocaleString()} of them flagged`;
  for (const button of byId("states").children) {
    button.lastElementChild.textContent = counts[button.dataset.state].toLocaleString();
  }
}

// ---- the grid

async function refresh(stem = null) {
  const descending = about.figures.find(({ name }) => name === query.figure)?.high_is_bad ?? false;
  try {
    const { stems, counts } = await api.findPairs({ ...query, descending });
    showCounts(counts);
    grid.show(stems, stem);
    byId("nothing").hidden = stems.length > 0;
    byId("nothing").textContent = counts.all ? "No pair fits these filters." : "This data set has no built pairs yet.";
  } catch (error) {
    say(error);
  }
  for (const button of byId("states").children) {
    button.setAttribute("aria-checked", String(button.dataset.state === query.state));
  }
  byId("range").hidden = !query.figure;
  sessionStorage.setItem("query", JSON.stringify(query));
}

function setState(state) {
  query.state = state;
  refresh();
}

function showGrid() {
  if (!correcting.leave()) return;
  const stem = viewer.pair?.stem;
  location.hash = "";
  byId("pair-view").hidden = true;
  byId("grid-view").hidden = false;
  grid.current = Math.max(0, grid.stems.indexOf(stem));
  grid.layOut();
  grid.keepInSight();
}

// ---- one pair

async function openPair(stem) {
  if (!correcting.leave()) return;
  try {
    const pair = await api.getPair(stem);
    position = grid.stems.indexOf(stem);
    byId("grid-view").hidden = true;
    byId("pair-view").hidden = false;
    viewer.show(pair, position, grid.stems.length);
    location.hash = `pair/${encodeURIComponent(stem)}`;
    prefetch(grid.stems[position + 1]);
  } catch (error) {
    say(error);
  }
}

// Have the next pair's tiles made while a person looks at this one.
async function prefetch(stem) {
  if (!stem) return;
  const pair = await api.getPair(stem).catch(() => null);
  for (const layer of Object.keys(pair?.layers ?? {})) {
    fetch(api.tilePath(pair, layer, 0, 0, 0)).catch(() => null);
  }
}

function step(by) {
  const stem = grid.stems[position + by];
  if (stem !== undefined) openPair(stem);
  else toast(by > 0 ? "This is the last pair of the list." : "This is the first pair of the list.");
}

const isOpen = () => !byId("pair-view").hidden;

// ---- decisions

// By stem, the number of the decision that this window wrote last: what others wrote since is not undone.
const written = JSON.parse(sessionStorage.getItem("written") ?? "{}");
let saving; // the note that is on its way

// Each entry holds what stood before: of one pair, or of several decided together.
const undoable = JSON.parse(sessionStorage.getItem("undo") ?? "[]");
function remember(pairs) {
  undoable.push(pairs.map(({ stem, choice, note, seen }) => ({ stem, choice, note, seen })));
  undoable.splice(0, undoable.length - UNDO_KEPT);
  sessionStorage.setItem("undo", JSON.stringify(undoable));
}

// Send what `send` sends, once at a time; show what came of it. Answers whether it was saved.
async function commit(stem, send) {
  if (busy) return false;
  busy = true;
  try {
    const { card, counts } = await send();
    grid.know(card);
    showCounts(counts);
    written[stem] = card.number;
    sessionStorage.setItem("written", JSON.stringify(written));
    return true;
  } catch (error) {
    if (error instanceof api.Overtaken) await reload(stem);
    say(error);
    return false;
  } finally {
    busy = false;
  }
}

async function reload(stem) {
  const pair = await api.getPair(stem);
  grid.know(pair);
  if (isOpen() && viewer.pair.stem === stem) viewer.show(pair, position, grid.stems.length);
}

const who = () => byId("who").value.trim() || about.who;

async function decide(choice) {
  await saving;
  if (!isOpen() && grid.selected.size) { await decideSelected(choice); return; }
  const pair = isOpen() ? viewer.pair : grid.known.get(grid.stems[grid.current]);
  if (!pair) return;
  const note = isOpen() ? byId("note").value : pair.note;
  const wish = { choice, note, who: who(), after: pair.number, seen: pair.seen };
  if (!await commit(pair.stem, () => api.decide(pair.stem, wish))) return;
  remember([pair]);
  toast(`${pair.stem}: ${choice}. Press z to undo.`);
  if (!isOpen()) grid.move(1);
  else await goOn(pair.stem);
}

async function goOn(stem) {
  viewer.pair.note = byId("note").value; // it is saved
  byId("note").blur();
  if (position + 1 < grid.stems.length) step(1);
  else await reload(stem);
}

// Decide on all selected pairs; stop at the first that is refused.
async function decideSelected(choice) {
  const done = [];
  for (const pair of await api.getCards([...grid.selected]).catch(() => [])) {
    const wish = { choice, note: pair.note, who: who(), after: pair.number, seen: pair.seen };
    if (!await commit(pair.stem, () => api.decide(pair.stem, wish))) break;
    done.push(pair);
    grid.select(pair.stem, false);
  }
  if (!done.length) return;
  remember(done);
  if (!grid.selected.size) toast(`${done.length} pairs: ${choice}. Press z to undo.`);
}

async function undo() {
  const last = undoable.at(-1);
  if (!last) { toast("There is nothing to take back."); return; }
  const before = [...last];
  try {
    while (last.length) {
      const { stem, choice, note, seen } = last[0];
      const wish = { choice, note, who: who(), after: written[stem] ?? 0, seen };
      const done = await commit(stem, () => api.decide(stem, wish));
      const now = grid.known.get(stem);
      const overtaken = !done && (now?.number !== written[stem] || now?.seen !== seen);
      if (done || overtaken) last.shift(); // what others made of a pair since is not ours to take back
      if (!last.length) undoable.pop();
      if (!done) return; // the rest is taken back next
    }
  } catch (error) {
    say(error);
    return;
  } finally {
    sessionStorage.setItem("undo", JSON.stringify(undoable));
  }
  const [{ stem, choice }] = before;
  if (isOpen()) await openPair(stem);
  toast(before.length > 1 ? `${before.length} pairs restored.` : `${stem}: ${choice ?? "undecided"} again.`);
}

function saveNote() {
  const { pair } = viewer;
  if (pair && byId("note").value !== pair.note) saving = sendNote(pair, byId("note").value);
}

async function sendNote(pair, note) {
  const wish = { choice: pair.choice, note, who: who(), after: pair.number, seen: pair.seen };
  if (!await commit(pair.stem, () => api.decide(pair.stem, wish))) return;
  remember([pair]);
  if (viewer.pair.stem === pair.stem) await reload(pair.stem);
  toast(`${pair.stem}: note saved.`);
}

// ---- corrections

async function saveCorrection() {
  const { pair } = viewer;
  if (correcting.mask.corners.length) { toast("The polygon is still open: press p, then Enter, to close it, or Esc to drop it."); return; }
  const png = await correcting.mask.png();
  const wish = { who: who(), after: pair.number, note: byId("note").value, seen: pair.seen };
  if (!await commit(pair.stem, () => api.correct(pair.stem, png, wish))) return;
  remember([pair]);
  correcting.mask.changes = [];
  correcting.leave();
  await goOn(pair.stem);
  toast(`${pair.stem}: correction saved and used. Press z to undo the decision.`);
}

// ---- keys

function setWipe(share) {
  byId("wipe").value = Math.round(share * 100);
  stage.set({ wipe: share });
}

function flip() {
  setWipe(stage.wipe > 0.5 ? 0 : 1);
}

const DECIDING = {
  r: ["take refined", () => decideNamed("refined")],
  u: ["take upscaled", () => decideNamed("upscaled")],
  c: ["take the corrected mask painted last", () => decideNamed(isOpen() ? viewer.corrected : null)],
  "1-9": ["take a folder's version by its number", null],
  x: ["reject the pair", () => decide("reject")],
  l: ["come back later", () => decide("later")],
  z: ["undo", undo],
};
const GRID_KEYS = {
  ArrowLeft: ["move (all four arrows)", () => grid.move(-1)],
  ArrowRight: [null, () => grid.move(1)],
  ArrowDown: [null, () => grid.move(grid.columns)],
  ArrowUp: [null, () => grid.move(-grid.columns)],
  Enter: ["open", () => openPair(grid.stems[grid.current])],
  " ": ["select, to decide on several at once", () => grid.select(grid.stems[grid.current])],
  Escape: ["select none", () => grid.selectNone()],
  f: ["next filter", () => setState(STATES[(STATES.findIndex(([s]) => s === query.state) + 1) % STATES.length][0])],
  "/": ["search", () => byId("filters").elements.search.focus()],
};
const PAIR_KEYS = {
  ArrowRight: ["next pair", () => step(1)],
  ArrowLeft: ["previous pair", () => step(-1)],
  n: ["write a note (Esc saves it)", () => byId("note").focus()],
  b: ["correct the mask", () => correcting.start()],
  ...Object.fromEntries(VIEWS.map(([view, name, key]) => [key, [name.toLowerCase(), () => viewer.setView(view)]])),
  " ": ["hide the masks while held", () => stage.set({ hidden: true })],
  v: ["flip between the two versions", flip],
  ",": ["slider to the left", () => setWipe(Math.max(0, stage.wipe - 0.05))],
  ".": ["slider to the right", () => setWipe(Math.min(1, stage.wipe + 0.05))],
  "+": ["larger", () => stage.zoom(1.5)],
  "-": ["smaller", () => stage.zoom(1 / 1.5)],
  0: ["fit", () => stage.fit()],
  9: ["one image pixel to one screen pixel", () => stage.zoom(1 / stage.scale)],
  "Shift+ArrowLeft": ["pan (all four arrows)", () => stage.pan(PAN, 0)],
  "Shift+ArrowRight": [null, () => stage.pan(-PAN, 0)],
  "Shift+ArrowUp": [null, () => stage.pan(0, PAN)],
  "Shift+ArrowDown": [null, () => stage.pan(0, -PAN)],
  Escape: ["all pairs", showGrid],
};
function decideNamed(name) {
  if (name && (!isOpen() || viewer.versions.includes(name))) decide(name);
  else toast(isOpen() ? `There is no ${name ?? "corrected"} mask of this pair.` : "Open the pair first.");
}

function showHelp() {
  const sections = [
    ["Deciding", DECIDING], ["The grid", GRID_KEYS], ["One pair", PAIR_KEYS], ["Correcting", correcting.keys],
  ];
  const named = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", "Shift+ArrowLeft": "Shift ←", Escape: "Esc" };
  byId("keys").replaceChildren(...sections.map(([title, keys]) => {
    const list = make("dl");
    for (const [key, [words]] of Object.entries(keys)) {
      if (!words) continue;
      const term = make("dt");
      term.append(make("kbd", "", named[key] ?? key));
      list.append(term, make("dd", "", words));
    }
    const section = make("section");
    section.append(make("h3", "", title), list);
    return section;
  }));
  byId("help").showModal();
}

function pressed(event) {
  if (byId("help").open || event.altKey || event.metaKey) return;
  const field = event.target.closest("input:not([type=range]), textarea, select");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  if (event.ctrlKey && event.key !== "z") return;
  const onButton = event.target.closest("button:not(.card), input:not([type=range])") && ["Enter", " "].includes(event.key);
  const onSlider = event.target.matches("input[type=range]") && event.key.startsWith("Arrow");
  if (onButton || onSlider) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  if (!event.repeat || /Arrow|[+\-,.[\]]/.test(event.key)) action();
}

function actionOf(event) {
  if (event.key === "?") return showHelp;
  const name = event.shiftKey && event.key.startsWith("Arrow") ? `Shift+${event.key}` : event.key;
  const letter = name.length === 1 ? name.toLowerCase() : name;
  if (correcting.mask) return correcting.keys[letter]?.[1];
  const own = isOpen() ? PAIR_KEYS : GRID_KEYS;
  const numbered = isOpen() && viewer.choices().find(([key]) => key === letter);
  if (numbered) return () => decide(numbered[1]);
  return (own[letter] ?? DECIDING[letter])?.[1];
}

// ---- start

function listen() {
  document.addEventListener("keydown", pressed);
  document.addEventListener("keyup", (event) => { if (event.key === " ") stage.set({ hidden: false }); });
  const clicks = {
    "help-button": showHelp, back: showGrid, previous: () => step(-1), next: () => step(1), undo,
    correct: () => correcting.start(), "zoom-in": () => stage.zoom(1.5), "zoom-out": () => stage.zoom(1 / 1.5),
    "zoom-fit": () => stage.fit(),
  };
  for (const [id, action] of Object.entries(clicks)) byId(id).addEventListener("click", action);
  byId("wipe").addEventListener("input", (event) => stage.set({ wipe: event.target.value / 100 }));
  for (const id of ["version-a", "version-b"]) {
    byId(id).addEventListener("change", () => {
      viewer.pick(byId("version-a").value, byId("version-b").value);
      viewer.setView(stage.view); // its legend names them
    });
  }
  byId("note").addEventListener("blur", saveNote);
  byId("who").addEventListener("change", () => localStorage.setItem("who", byId("who").value.trim()));
  let pause = 0;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", (event) => {
    query[event.target.name] = event.target.value;
    clearTimeout(pause);
    pause = setTimeout(refresh, event.target.name === "search" ? SEARCH_PAUSE : 0);
  });
  window.addEventListener("beforeunload", (event) => { if (correcting.mask?.touched) event.preventDefault(); });
}

function fillFilters() {
  Object.assign(query, JSON.parse(sessionStorage.getItem("query") ?? "{}"));
  for (const [state, name] of STATES) {
    const button = make("button", "", name);
    button.type = "button";
    button.dataset.state = state;
    button.setAttribute("role", "radio");
    button.append(make("small"));
    button.addEventListener("click", () => setState(state));
    byId("states").append(button);
  }
  byId("figure").append(...about.figures.map(({ name, title }) => new Option(`by ${title}`, name)));
  for (const [name, value] of Object.entries(query)) {
    const field = byId("filters").elements[name];
    if (field) field.value = value;
  }
}

async function start() {
  listen();
  try {
    about = await api.aboutSet();
  } catch (error) {
    say(error);
    return;
  }
  document.title = `${about.name} - hqsod review`;
  byId("set-name").textContent = about.name;
  byId("who").value = localStorage.getItem("who") || about.who;
  fillFilters();
  const hash = location.hash;
  await refresh();
  if (hash.startsWith("#pair/")) await openPair(decodeURIComponent(hash.slice(6)));
}

start();
