// The encoder's section: the grid, the backends that a selection can change to, and the changes made so far.

import { usedLabel } from "./backends.js";
import { byId, el } from "./dom.js";
import { EncoderGrid } from "./encoder-grid.js";

export class EncoderSection {
  #grid = new EncoderGrid(byId("grid"), (sites, title) => this.#select(sites, title));
  #planned = new Map(); // site -> {requested, backend} under the server's policy
  #measured = new Map(); // site -> {requested, used, seconds} of the last run
  #changes = new Map(); // site -> backend
  #selected = [];
  #onChange;

  /** `onChange()` is called when a backend was chosen. */
  constructor(onChange) {
    this.#onChange = onChange;
    byId("undo").addEventListener("click", () => this.#change(new Map()));
  }

  /** The chosen backends on top of the server's policy: site -> backend. */
  get overrides() {
    return new Map(this.#changes);
  }

  /** Show a model's encoder, without changes and without times. */
  describe({ sites, decoder, backends }) {
    this.#planned = new Map([...sites, { site: "decoder", ...decoder }].map((each) => [each.site, each]));
    this.#measured.clear();
    this.#changes.clear();
    this.#grid.build(sites.map(({ site }) => site));
    byId("palette").replaceChildren(...backends.map((backend) => this.#choice(backend)));
    this.#select([], "");
    this.#show();
  }

  /** Show the times of a run. */
  showRun({ sites, decoder }) {
    this.#measured = new Map([...sites, { site: "decoder", ...decoder }].map((each) => [each.site, each]));
    this.#show();
  }

  #chosen = (site) => this.#changes.get(site) ?? this.#planned.get(site).requested;

  /** A site as the last run had it, or as the next run will try it if that is another backend. */
  #state = (site) => {
    const [chosen, ran, planned] = [this.#chosen(site), this.#measured.get(site), this.#planned.get(site)];
    const changed = this.#changes.has(site);
    if (ran?.requested === chosen) return { label: usedLabel(ran.used) ?? chosen, seconds: ran.seconds, changed };
    return { label: changed ? chosen : planned.backend, changed };
  };

  #show() {
    this.#grid.show(this.#state);
    const count = this.#changes.size;
    byId("changes").textContent = count ? `${count} of ${this.#planned.size} changed` : "The server's policy, unchanged";
    byId("undo").hidden = !count;
    for (const button of byId("palette").children) {
      const pressed = this.#selected.some((site) => this.#chosen(site) === button.dataset.backend);
      button.setAttribute("aria-pressed", pressed);
    }
  }

  #select(sites, title) {
    this.#selected = sites;
    byId("selection").textContent = title || "Choose a cell, a row or a column";
    for (const button of byId("palette").children) {
      const cannotDecode = sites.includes("decoder") && !("decodes" in button.dataset);
      button.disabled = !sites.length || cannotDecode || !("available" in button.dataset);
    }
    this.#show();
  }

  #choice({ name, summary, reason, decodes }) {
    const button = el("button", {
      type: "button",
      class: "choice",
      "data-backend": name,
      "data-decodes": decodes,
      "data-available": !reason,
      title: reason ?? summary,
      onclick: () => this.#choose(name),
    });
    button.append(el("span", { class: "name" }, name), " ", el("span", { class: "summary" }, reason?.split(";")[0] ?? summary));
    return button;
  }

  #choose(backend) {
    const changes = this.overrides;
    for (const site of this.#selected) {
      if (this.#planned.get(site).requested === backend) changes.delete(site);
      else changes.set(site, backend);
    }
    this.#change(changes);
  }

  #change(changes) {
    this.#changes = changes;
    this.#show();
    this.#onChange();
  }
}
