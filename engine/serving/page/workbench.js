// The view of a file: its runs, the transcript, the times, the encoder, and the comparison of two runs.

import { audioInput } from "./audio-input.js";
import { realTimeChart, stagesChart } from "./chart.js";
import { comparison } from "./comparison.js";
import { byId, el } from "./dom.js";
import { EncoderSection } from "./encoder.js";
import { figuresOf, shown } from "./figures.js";
import { bytes, clockTime, counted } from "./format.js";
import { Player } from "./player.js";
import { encoderError, Run } from "./runs.js";
import { renamed, save } from "./save.js";
import { Transcript } from "./transcript.js";

export class Workbench {
  #chosen;
  #messages;
  #file = null;
  #runs = [];
  #running = null;
  #transcript = new Transcript(byId("segments"), (seconds) => this.#player.playFrom(seconds));
  #player = new Player(byId("player"), (seconds) => this.#transcript.highlight(seconds));
  #encoder = new EncoderSection(() => this.#showButtons());

  /** `chosen()` gives {model, language, task}; `messages` shows errors. */
  constructor(chosen, messages) {
    this.#chosen = chosen;
    this.#messages = messages;
    audioInput((file) => this.#open(file), messages);
    byId("again").addEventListener("click", () => this.#run());
    byId("run-changed").addEventListener("click", () => this.#run());
    byId("cancel").addEventListener("click", () => {
      this.#running?.cancel();
      byId("again").focus(); // the button that had the focus disappears
    });
    for (const button of byId("downloads").querySelectorAll("button")) {
      button.addEventListener("click", () => this.#save(button.value));
    }
    for (const id of ["before", "after"]) byId(id).addEventListener("change", () => this.#compare());
  }

  /** Another model was chosen. */
  describe(description) {
    this.#encoder.describe(description);
    this.#showButtons();
  }

  #open(file) {
    this.#file = file;
    this.#runs = [];
    this.#player.load(file);
    byId("file-name").textContent = `${file.name}, ${bytes(file.size)}`;
    byId("chosen").hidden = false;
    for (const id of ["times", "comparison"]) byId(id).hidden = true;
    this.#run();
  }

  async #run() {
    this.#running?.cancel();
    const run = new Run(this.#runs.length + 1, this.#file, this.#chosen(), this.#encoder.overrides);
    this.#running = run;
    this.#messages.clear();
    this.#transcript.clear();
    byId("language-found").textContent = "";
    byId("empty").hidden = true;
    this.#showButtons();
    try {
      await run.start({
        upload: (sent, total) => this.#progress(sent < total ? "Uploading" : "Reading the audio", sent, total),
        start: (info) => this.#started(info),
        segment: (segment) => this.#decoded(run, segment),
      });
      if (this.#running === run) this.#finished(run);
    } catch (error) {
      if (this.#running !== run) return; // another run has taken its place
      this.#messages.tell(error.name === "AbortError" ? "Cancelled" : "");
      if (error.name !== "AbortError") this.#messages.fail(error);
    }
    if (this.#running !== run) return;
    this.#running = null;
    this.#showButtons();
  }

  #started({ language, language_probability: probability }) {
    const detected = probability === null ? "" : ` (detected, ${Math.round(100 * probability)} %)`;
    byId("language-found").textContent = `${language}${detected}`;
    this.#progress("Transcribing", 0, 1);
  }

  #decoded(run, segment) {
    this.#transcript.add(segment);
    this.#progress(`Transcribed ${clockTime(segment.end)}`, segment.end, run.info.duration);
  }

  #progress(text, done, total) {
    byId("progress").value = total ? done / total : 0;
    byId("progress-text").textContent = text;
  }

  #finished(run) {
    this.#runs.push(run);
    this.#encoder.showRun(run.report);
    this.#showTimes(run);
    this.#messages.tell(run.text.trim() ? `${run.name} is complete.` : `${run.name} is complete: no speech was found.`);
    if (this.#runs.length > 1) this.#offerComparison();
  }

  #showTimes(run) {
    const tiles = figuresOf(run.report).map((figure) =>
      el("div", {}, el("dt", {}, figure.name), el("dd", {}, el("strong", {}, shown(figure)), " ", el("small", {}, figure.note))),
    );
    byId("figures").replaceChildren(...tiles);
    byId("charts").replaceChildren(realTimeChart(run), stagesChart([run]));
    const { machine } = run.report;
    byId("ran-on").textContent = `${run.model}, ${counted(machine.threads, "thread")} of ${machine.cpu}`;
    byId("times").hidden = false;
  }

  #offerComparison() {
    for (const [id, at] of [["before", -2], ["after", -1]]) {
      byId(id).replaceChildren(...this.#runs.map((run) => el("option", { value: run.number }, describeRun(run))));
      byId(id).value = this.#runs.at(at).number;
    }
    byId("comparison").hidden = false;
    this.#compare();
  }

  #compare() {
    const [before, after] = ["before", "after"].map((id) => this.#runs.find((run) => run.number === Number(byId(id).value)));
    const error = before.model === after.model ? encoderError(before, after) : Promise.resolve(null);
    byId("compared").replaceChildren(...comparison(before, after, error));
  }

  #save(format) {
    const run = this.#runs.at(-1);
    save(renamed(this.#file.name, format), run.downloads[format]);
  }

  #showButtons() {
    const [busy, done] = [this.#running !== null, this.#runs.length > 0];
    byId("working").hidden = !busy;
    byId("downloads").hidden = busy || !done;
    byId("run-changed").disabled = !this.#file;
  }
}

function describeRun({ name, model, overrides }) {
  return `${name}: ${model}, ${overrides.size ? `${overrides.size} changed` : "unchanged"}`;
}
