// The player of the chosen file.

export class Player {
  #audio;
  #url;

  /** `onTime(seconds)` is called as the playing position moves. */
  constructor(audio, onTime) {
    this.#audio = audio;
    audio.addEventListener("timeupdate", () => onTime(audio.currentTime));
    // A recording of the browser's own states no length, and cannot be sought in until its end was asked for once.
    audio.addEventListener("loadedmetadata", () => {
      if (audio.duration !== Infinity) return;
      audio.currentTime = Number.MAX_SAFE_INTEGER;
      audio.addEventListener("durationchange", () => (audio.currentTime = 0), { once: true });
    });
  }

  load(file) {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = URL.createObjectURL(file);
    if (file.size) this.#audio.src = this.#url;
    else this.#audio.removeAttribute("src"); // browsers log an error of their own for an empty file
  }

  async playFrom(seconds) {
    this.#audio.currentTime = seconds;
    await this.#audio.play().catch(() => {}); // a format that the browser cannot play is still transcribed
  }
}
