// Live captions: the microphone's speech as text, grey while it may still change.

import { byId, el } from "./dom.js";
import { listen } from "./microphone.js";
import { RealtimeSession } from "./realtime.js";
import { save } from "./save.js";

export class Captions {
  #options;
  #messages;
  #session = null;
  #microphone = null;
  #lines = new Map(); // item -> paragraph
  #button = byId("captions-toggle");

  /** `options()` gives {model, language}; `messages` shows errors. */
  constructor(options, messages) {
    this.#options = options;
    this.#messages = messages;
    this.#button.addEventListener("click", () => (this.#session ? this.#stop() : this.#start()));
    byId("captions-save").addEventListener("click", () => save("captions.txt", this.#text));
  }

  get #text() {
    return [...byId("captions").children].map((line) => `${line.textContent}\n`).join("");
  }

  async #start() {
    this.#messages.clear();
    this.#session = new RealtimeSession(this.#options(), {
      onPartial: (text) => this.#showPartial(text),
      onDelta: (text, item) => this.#line(item).append(text),
      onFinal: (text, item) => this.#showFinal(text, item),
      onEnd: (message) => this.#end(message),
    });
    this.#show(true);
    try {
      this.#microphone = await listen((samples, level) => {
        this.#session?.append(samples);
        byId("level").value = level;
      });
    } catch (error) {
      this.#session.finish();
      this.#messages.fail(error);
    }
  }

  #stop() {
    this.#microphone?.stop();
    this.#session.finish();
    this.#button.disabled = true; // until the rest of the text has come
  }

  #end(message) {
    this.#microphone?.stop();
    this.#microphone = this.#session = null;
    this.#showPartial("");
    this.#show(false);
    if (message) this.#messages.fail(new Error(message));
  }

  #line(item) {
    if (!this.#lines.has(item)) {
      const line = el("p");
      this.#lines.set(item, line);
      byId("captions").append(line);
      byId("captions-save").hidden = false;
    }
    return this.#lines.get(item);
  }

  #showFinal(text, item) {
    if (text.trim()) this.#line(item).textContent = text.trim();
    this.#showPartial("");
  }

  #showPartial(text) {
    byId("partial").textContent = text;
    const view = byId("captions-view");
    view.scrollTop = view.scrollHeight;
  }

  #show(running) {
    this.#button.textContent = running ? "Stop" : "Start captions";
    this.#button.classList.toggle("recording", running);
    this.#button.disabled = false;
    byId("level").hidden = !running;
    byId("level").value = 0;
    byId("captions-hint").hidden = running || this.#lines.size > 0;
  }
}
