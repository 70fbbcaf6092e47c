// The grid of layers by products: a cell's colour is its backend, its depth the time. Arrow keys move the selection.

import { colour } from "./backends.js";
import { el, unseen } from "./dom.js";
import { COLUMNS, rowsOf } from "./encoder-layout.js";
import { duration } from "./format.js";

const ALL = "Whole encoder";

export class EncoderGrid {
  #table;
  #onSelect;
  #lines = []; // of {button, column}, from top to bottom and left to right
  #cells = new Map(); // site -> {button, name, time, mark}

  /** `onSelect(sites, title)` is called when a cell, row, column or the whole encoder is chosen. */
  constructor(table, onSelect) {
    this.#table = table;
    this.#onSelect = onSelect;
    table.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Lay out the sites of a model. */
  build(sites) {
    const rows = rowsOf(sites);
    this.#lines = [];
    this.#cells.clear();
    const inColumn = (product) => sites.filter((site) => site.endsWith(`.${product}`));
    const corner = this.#head("All", ALL, sites, -1, { scope: "col" });
    const columns = COLUMNS.map(({ product, head, title }, column) =>
      this.#head(head, `${title} of all layers`, inColumn(product), column, { scope: "col" }),
    );
    this.#lines.push([corner, ...columns]);
    const body = rows.map((row) => {
      const sitesOfRow = row.cells.map((cell) => cell.site);
      const line = [this.#head(row.name, row.name, sitesOfRow, -1, { scope: "row" })];
      line.push(...row.cells.map((cell) => this.#cell(cell)));
      this.#lines.push(line);
      return el("tr", {}, line.map(({ place }) => place));
    });
    this.#table.replaceChildren(
      el("thead", {}, el("tr", {}, this.#lines[0].map(({ place }) => place))),
      el("tbody", {}, body),
    );
    corner.button.tabIndex = 0;
  }

  /** Show each site's {label, seconds, changed} as `stateOf(site)` gives it; seconds are undefined before a run. */
  show(stateOf) {
    const states = [...this.#cells].map(([site, cell]) => ({ ...cell, ...stateOf(site), site }));
    const longest = Math.max(...states.map(({ site, seconds }) => (site === "decoder" ? 0 : (seconds ?? 0))));
    for (const { button, name, time, mark, label, seconds, changed } of states) {
      button.dataset.backend = colour(label);
      button.classList.toggle("changed", changed);
      button.style.setProperty("--share", longest && seconds ? Math.min(1, seconds / longest).toFixed(3) : "0");
      name.textContent = label;
      time.textContent = seconds === undefined ? "" : duration(seconds);
      mark.textContent = changed ? ", changed" : "";
    }
  }

  #head(text, title, sites, column, attributes) {
    const button = el("button", { type: "button", tabindex: -1, "aria-label": title }, text);
    return this.#place(el("th", attributes, button), button, sites, title, column);
  }

  #cell({ site, title, column, span, isWide }) {
    const [name, time, mark] = [el("span", { class: "name" }), el("span", { class: "time" }), unseen("")];
    const shown = isWide ? el("span", { class: "site" }, site) : unseen(`${title}: `);
    const button = el("button", { type: "button", class: "cell", tabindex: -1, title }, shown, name, " ", time, mark);
    this.#cells.set(site, { button, name, time, mark });
    return this.#place(el("td", { colspan: span }, button), button, [site], title, column);
  }

  #place(place, button, sites, title, column) {
    button.addEventListener("focus", () => this.#select(button, sites, title));
    button.addEventListener("click", () => button.focus()); // Safari does not focus a clicked button
    return { place, button, column };
  }

  #select(button, sites, title) {
    for (const each of this.#table.querySelectorAll("button")) each.tabIndex = each === button ? 0 : -1;
    for (const [site, { button: cell }] of this.#cells) cell.classList.toggle("selected", sites.includes(site));
    this.#onSelect(sites, title);
  }

  #move(event) {
    const line = this.#lines.findIndex((places) => places.some(({ button }) => button === event.target));
    if (line < 0) return;
    const at = this.#lines[line].findIndex(({ button }) => button === event.target);
    const under = (other) => this.#lines[other]?.findLast(({ column }) => column <= this.#lines[line][at].column);
    const target = {
      ArrowLeft: () => this.#lines[line][at - 1],
      ArrowRight: () => this.#lines[line][at + 1],
      ArrowUp: () => under(line - 1),
      ArrowDown: () => under(line + 1),
      Home: () => this.#lines[line][0],
      End: () => this.#lines[line].at(-1),
    }[event.key]?.();
    if (!target) return;
    event.preventDefault();
    target.button.focus();
  }
}
