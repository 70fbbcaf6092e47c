// The segments of a run, each a button that plays from its start.

import { el, unseen } from "./dom.js";
import { clockTime } from "./format.js";

export class Transcript {
  #list;
  #onSeek;
  #rows = [];

  /** `onSeek(seconds)` is called when a segment is chosen. */
  constructor(list, onSeek) {
    this.#list = list;
    this.#onSeek = onSeek;
  }

  clear() {
    this.#rows = [];
    this.#list.replaceChildren();
  }

  show(segments) {
    this.clear();
    segments.forEach((segment) => this.add(segment));
  }

  add({ start, end, text }) {
    const time = el("time", {}, unseen("Play from "), clockTime(start));
    const button = el("button", { type: "button", class: "segment", onclick: () => this.#onSeek(start) });
    button.append(time, el("span", {}, text.trim()));
    this.#rows.push({ start, end, button });
    this.#list.append(el("li", {}, button));
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    const atEnd = scrollHeight - scrollTop - clientHeight < 2 * button.offsetHeight + 8;
    if (atEnd) this.#list.scrollTop = scrollHeight; // follows new text, unless the reader has scrolled up
  }

  /** Mark the segment that the player is in. */
  highlight(seconds) {
    for (const { start, end, button } of this.#rows) {
      const current = start <= seconds && seconds < end;
      if (current === button.hasAttribute("aria-current")) continue;
      button.toggleAttribute("aria-current", current);
      if (current) button.setAttribute("aria-current", "true");
      if (current) button.scrollIntoView({ block: "nearest" });
    }
  }
}
