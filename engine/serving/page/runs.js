// The runs of one file: what was asked for, and what came of it.

import { postForm, postStreaming } from "./api.js";

/** One transcription of a file. `overrides` is a Map of site -> backend on top of the server's policy. */
export class Run {
  segments = [];
  info = null;
  report = null;
  downloads = null;
  #stop = new AbortController();

  constructor(number, file, { model, language, task }, overrides) {
    Object.assign(this, { number, file, model, language, task, overrides });
  }

  get name() {
    return `Run ${this.number}`;
  }

  get text() {
    return this.segments.map((segment) => segment.text).join("");
  }

  get done() {
    return this.report !== null;
  }

  /** Transcribe; `on` has `upload(sent, total)`, `start(info)` and `segment(segment)`. Throws the server's error. */
  async start(on) {
    const form = new FormData();
    form.append("model", this.model);
    form.append("task", this.task);
    if (this.language) form.append("language", this.language);
    form.append("backends", overrideLines(this));
    form.append("file", this.file);
    const onLine = (line) => {
      if (line.type === "start") on.start((this.info = line));
      else if (line.type === "segment") on.segment(this.segments[this.segments.push(line) - 1]);
      else if (line.type === "end") Object.assign(this, { report: line.report, downloads: line.downloads });
      else throw new Error(line.error.message);
    };
    await postStreaming("page/transcriptions", form, { onUpload: on.upload, onLine, signal: this.#stop.signal });
    if (!this.done) throw new Error("The server ended the answer before the transcript was complete.");
  }

  cancel() {
    this.#stop.abort();
  }
}

/** How far the encoder's states of two runs are apart: the relative Frobenius norm over the first 30 s. */
export async function encoderError(before, after) {
  const form = new FormData();
  form.append("model", after.model);
  form.append("before", overrideLines(before));
  form.append("after", overrideLines(after));
  form.append("file", after.file);
  return (await postForm("page/encoder-error", form)).error;
}

// Sorted, so that the server recognizes a model that it has already.
const overrideLines = ({ overrides }) => [...overrides].map(([site, backend]) => `${site}=${backend}`).sort().join("\n");
