// Correcting a mask: the bar of tools and its keys.

import { Correction } from "./correction.js";
import { ADDED } from "./layers.js";

const byId = (id) => document.getElementById(id);
const TOOLS = ["brush", "polygon", "region"];
const LARGEST = 200; // pixels across
const STEP = 8; // pixels of the picture for one key

export class Correcting {
  constructor(stage, viewer, { save, say, toast }) {
    Object.assign(this, { stage, viewer, say, toast });
    const clicks = {
      "tool-brush": () => this.setTool("brush"), "tool-polygon": () => this.setTool("polygon"),
      "tool-region": () => this.setTool("region"), "correction-add": () => this.setErasing(false),
      "correction-erase": () => this.setErasing(true), "correction-undo": () => this.undo(),
      "correction-cancel": () => this.leave(), "correction-save": save,
    };
    for (const [id, action] of Object.entries(clicks)) byId(id).addEventListener("click", action);
    byId("brush-size").addEventListener("input", (event) => this.setSize(Number(event.target.value)));
    byId("proposal").addEventListener("change", (event) => {
      event.target.blur(); // keys are the tools' again
      this.propose(event.target.value);
    });
    const move = (x, y, painting) => [null, () => { this.mask.step(x * STEP, y * STEP, painting); stage.ask(); }];
    this.keys = {
      b: ["brush", clicks["tool-brush"]],
      p: ["polygon: click its corners, the first one again to close it", clicks["tool-polygon"]],
      g: ["region: a click adds a region of another version, or erases one of the mask's own", clicks["tool-region"]],
      v: ["add regions of the next version", () => this.proposeNext()],
      a: ["add", clicks["correction-add"]],
      e: ["erase", clicks["correction-erase"]],
      "[": ["smaller brush", () => this.setSize(this.mask.size / 1.25 - 0.5)],
      "]": ["larger brush", () => this.setSize(this.mask.size * 1.25 + 0.5)],
      ArrowLeft: ["move (all four arrows)", move(-1, 0, false)[1]],
      ArrowRight: move(1, 0, false), ArrowUp: move(0, -1, false), ArrowDown: move(0, 1, false),
      "Shift+ArrowLeft": ["paint while moving (all four arrows)", move(-1, 0, true)[1]],
      "Shift+ArrowRight": move(1, 0, true), "Shift+ArrowUp": move(0, -1, true), "Shift+ArrowDown": move(0, 1, true),
      " ": ["click where the cursor is", () => this.click()],
      Enter: ["close the polygon; otherwise the same as Space", () => this.enter()],
      z: ["take back the last stroke, corner or click", clicks["correction-undo"]],
      s: ["save and take", save],
      "+": [null, () => stage.zoom(1.5)], "-": [null, () => stage.zoom(1 / 1.5)], 0: [null, () => stage.fit()],
      Escape: ["drop the polygon, or discard all", () => this.escape()],
    };
  }

  get mask() {
    return this.stage.correction;
  }

  // Begin with a copy of the version that most of the canvas shows.
  async start() {
    if (this.mask) return;
    const { stage, viewer } = this, { pair } = viewer;
    const shown = [stage.versionA, stage.versionB];
    if (stage.wipe <= 0.5) shown.reverse();
    const [base, other] = shown;
    try {
      const canvas = await stage.layers.whole(base);
      if (viewer.pair !== pair || this.mask) return;
      stage.set({ correction: new Correction(stage, canvas, this.toast) });
    } catch (error) {
      this.say(error);
      return;
    }
    byId("proposal").replaceChildren(...viewer.versions.map((name) => new Option(name, name, false, name === other)));
    stage.canvas.classList.add("correcting");
    byId("correction-bar").hidden = false;
    byId("wipe-bar").hidden = true;
    this.setSize(Number(byId("brush-size").value));
    this.setErasing(false);
    this.setTool("brush");
    this.toast(`Correcting a copy of ${base}; the original stays.`);
  }

  // Answers whether there is no correction any longer.
  leave() {
    if (!this.mask) return true;
    if (this.mask.touched && !window.confirm("Discard the correction?")) return false;
    this.stage.set({ correction: null });
    this.stage.canvas.classList.remove("correcting");
    byId("correction-bar").hidden = true;
    byId("wipe-bar").hidden = this.viewer.versions.length < 2;
    return true;
  }

  escape() {
    if (this.mask.corners.length) this.mask.corners = [];
    else this.leave();
    this.stage.ask();
  }

  setTool(tool) {
    this.mask.tool = tool;
    this.show();
    if (tool === "region" && !this.mask.proposal) this.propose(byId("proposal").value);
  }

  setErasing(erasing) {
    this.mask.erasing = erasing;
    this.show();
  }

  show() {
    const { tool, erasing } = this.mask;
    for (const name of TOOLS) byId(`tool-${name}`).setAttribute("aria-checked", String(name === tool));
    byId("correction-add").setAttribute("aria-checked", String(!erasing));
    byId("correction-erase").setAttribute("aria-checked", String(erasing));
    byId("brush-size-label").hidden = tool !== "brush";
    byId("proposal-label").hidden = tool !== "region" || erasing;
    this.stage.ask();
  }

  setSize(size) {
    const value = Math.min(LARGEST, Math.max(1, Math.round(size)));
    this.mask.size = value;
    byId("brush-size").value = value;
    byId("brush-size-said").textContent = value;
    this.stage.ask();
  }

  // Take regions from this version, once it is here.
  async propose(version) {
    const { mask, stage } = this;
    mask.proposal = null;
    try {
      const proposal = await stage.layers.whole(version, ADDED);
      if (version === byId("proposal").value) mask.proposal = proposal;
    } catch (error) {
      this.say(error);
    }
    stage.ask();
  }

  proposeNext() {
    const list = byId("proposal");
    list.selectedIndex = (list.selectedIndex + 1) % list.length;
    this.propose(list.value);
  }

  click() {
    this.mask.click();
    this.stage.ask();
  }

  enter() {
    if (this.mask.tool !== "polygon") this.mask.click();
    else this.mask.closePolygon();
    this.stage.ask();
  }

  undo() {
    if (!this.mask.undo()) this.toast("There is nothing to take back.");
    this.stage.ask();
  }
}
