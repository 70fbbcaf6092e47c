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
  #lines = new Map(); // phrase -> {line, final, partial}
  #button = byId("captions-toggle");

  /** `options()` gives {model, language}; `messages` shows errors. */
  constructor(options, messages) {
    this.#options = options;
    this.#messages = messages;
    this.#button.addEventListener("click", () => (this.#session ? this.#stop() : this.#start()));
    byId("captions-save").addEventListener("click", () => save("captions.txt", this.#text));
  }

  get #text() {
    return [...this.#lines.values()].map(({ final }) => `${final.textContent}\n`).join("");
  }

  async #start() {
    this.#messages.clear();
    const session = new RealtimeSession(this.#options(), {
      onWords: (text, phrase) => this.#line(phrase).final.append(text),
      onPartial: (text, phrase) => this.#showPartial(text, phrase),
      onPhrase: (text, phrase) => this.#complete(text.trim(), phrase),
      onEnd: (message) => this.#end(message),
    });
    this.#session = session;
    this.#show(true);
    try {
      const microphone = await listen((samples, level) => {
        session.append(samples);
        byId("level").value = level;
      });
      if (this.#session === session) this.#microphone = microphone;
      else microphone.stop(); // the session ended while the browser asked for permission
    } catch (error) {
      session.finish();
      this.#messages.fail(error);
    }
  }

  #stop() {
    this.#release();
    this.#session.finish();
    this.#button.disabled = true; // until the rest of the text has come
  }

  #end(message) {
    this.#release();
    this.#session = null;
    for (const { partial } of this.#lines.values()) partial.textContent = "";
    this.#show(false);
    if (message) this.#messages.fail(new Error(message));
  }

  #release() {
    this.#microphone?.stop();
    this.#microphone = null;
  }

  #line(phrase) {
    if (!this.#lines.has(phrase)) {
      const [final, partial] = [el("span"), el("span", { class: "partial", "aria-hidden": "true" })];
      const line = el("p", {}, final, partial);
      this.#lines.set(phrase, { line, final, partial });
      byId("captions").append(line);
    }
    return this.#lines.get(phrase);
  }

  #showPartial(text, phrase) {
    this.#line(phrase).partial.textContent = text;
    const view = byId("captions-view");
    view.scrollTop = view.scrollHeight;
  }

  #complete(text, phrase) {
    if (text) {
      const { final, partial } = this.#line(phrase);
      if (final.textContent !== text) final.textContent = text;
      partial.textContent = "";
      byId("captions-save").hidden = false;
    } else {
      this.#lines.get(phrase)?.line.remove();
      this.#lines.delete(phrase);
    }
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
