// One pair: what is known of it, what was decided, and the buttons to decide.

import { closeUpPath } from "./api.js";
import { make } from "./grid.js";

const byId = (id) => document.getElementById(id);
const VIEWS = [
  ["cutout", "Cut-out", "o"], ["tint", "Tint", "t"], ["difference", "Difference", "d"], ["mask", "Mask", "m"],
];
const LETTERS = { refined: "r", upscaled: "u" };

export class Viewer {
  constructor(stage, { decide, viewed }) {
    Object.assign(this, { stage, decide });
    for (const [view, name, key] of VIEWS) {
      const button = make("button", "", `${name} `);
      button.type = "button";
      button.dataset.view = view;
      button.setAttribute("role", "radio");
      button.append(make("kbd", "", key));
      button.addEventListener("click", () => viewed(view));
      byId("views").append(button);
    }
  }

  get versions() {
    return Object.keys(this.pair.layers).filter((layer) => layer !== "picture");
  }

  // The mask painted last, if there is one.
  get corrected() {
    return this.versions.findLast((name) => name.startsWith("corrected-"));
  }

  // What each decision key means for this pair.
  choices() {
    const letter = (name) => LETTERS[name] ?? (name === this.corrected ? "c" : null);
    const taken = this.versions.map((name, index) => [letter(name) ?? String(index + 1), name, `Take ${name}`]);
    return [...taken, ["x", "reject", "Reject pair"], ["l", "later", "Later"]];
  }

  show(pair, position, total) {
    const { stem, choice } = this.pair ?? {};
    this.pair = pair;
    if (stem !== pair.stem || choice !== pair.choice) this.pick(null, null);
    else this.pick(this.stage.versionA, this.stage.versionB);
    byId("stem").textContent = pair.stem;
    byId("position").textContent = total ? `${position + 1} of ${total.toLocaleString()}` : "";
    byId("previous").disabled = position <= 0;
    byId("next").disabled = position + 1 >= total;
    byId("note").value = pair.note;
    this.showState();
    this.showChoices();
    this.showFigures();
    this.showCloseUp();
    this.showHistory();
    this.setView(this.stage.view);
  }

  // Which versions stand left and right of the slider: those that the figures compare, or what was
  // decided.
  pick(left, right) {
    const names = this.versions;
    const versionA = names.includes(left) ? left : names[0];
    const decided = names.indexOf(this.pair.choice) > 0 ? this.pair.choice : names[1] ?? names[0];
    const versionB = names.includes(right) ? right : decided;
    for (const [id, value] of [["version-a", versionA], ["version-b", versionB]]) {
      byId(id).replaceChildren(...names.map((name) => new Option(name, name, false, name === value)));
    }
    byId("wipe-bar").hidden = names.length < 2;
    this.stage.show(this.pair, versionA, versionB);
  }

  setView(view) {
    this.stage.set({ view });
    for (const button of byId("views").children) {
      button.setAttribute("aria-checked", String(button.dataset.view === view));
    }
    byId("wipe").hidden = view === "difference";
    byId("legend").hidden = view !== "difference";
    byId("legend").replaceChildren(
      make("span", "legend-removed", `only ${this.stage.versionA}`), " / ",
      make("span", "legend-added", `only ${this.stage.versionB}`),
    );
  }

  showState() {
    const { pair } = this;
    const line = byId("state");
    line.className = `state${pair.flagged ? " flagged" : ""}${pair.choice ? " decided" : ""}`;
    const trust = pair.score === null ? "" : ` Trust ${pair.score.toFixed(2)}.`;
    const counts = pair.counts_as === null ? "the pair is left out" : `${pair.counts_as} is used`;
    if (pair.rebuilt) line.textContent = `Decided before the pair was rebuilt: look again.${trust}`;
    else if (pair.choice === "later") line.textContent = `Put off; until then ${counts}.${trust}`;
    else if (pair.choice) line.textContent = `Decided: ${counts}.${trust}`;
    else line.textContent = `${pair.flagged ? "Flagged" : "Not flagged"}, undecided: ${counts}.${trust}`;
    if (pair.notes) line.append(make("br"), pair.notes);
  }

  showChoices() {
    byId("decide").replaceChildren(...this.choices().map(([key, choice, words]) => {
      const button = make("button", choice === this.pair.choice ? "taken" : "", `${words} `);
      button.type = "button";
      button.dataset.choice = choice;
      button.append(make("kbd", "", key));
      button.addEventListener("mousedown", (event) => event.preventDefault()); // a note keeps the focus, and is sent along
      button.addEventListener("click", () => this.decide(choice));
      return button;
    }));
  }

  showFigures() {
    const lines = this.pair.quality.map(({ words, value, verdict }) => {
      const line = make("li");
      line.append(make("span", verdict, words), make("span", "value", value));
      return line;
    });
    byId("figures-said").replaceChildren(...(lines.length ? lines : [make("li", "", "None were recorded.")]));
  }

  // Where the versions that the figures compare differ most, as they were built.
  showCloseUp() {
    const [first, second] = this.versions;
    const figure = byId("close-up");
    const [caption, image] = figure.children;
    figure.hidden = !second || second.startsWith("corrected-") || !this.pair.thumbnail;
    if (figure.hidden) return;
    caption.textContent = `Where they differ most: picture, ${first}, ${second}`;
    image.src = closeUpPath(this.pair);
  }

  showHistory() {
    const lines = this.pair.history.map(({ made, who, choice, note }) => {
      const when = new Date(made).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
      return make("li", "", `${choice ?? "undecided again"}: ${who}, ${when}${note ? ` - ${note}` : ""}`);
    });
    byId("history-title").hidden = !lines.length;
    byId("history").replaceChildren(...lines);
  }
}

export { VIEWS };
