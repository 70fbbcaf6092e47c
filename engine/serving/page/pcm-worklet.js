// Runs in the audio thread: gathers what the microphone gives into blocks of 16-bit samples.

const BLOCK_SECONDS = 0.1;

class PcmBlocks extends AudioWorkletProcessor {
  #block = new Int16Array(BLOCK_SECONDS * sampleRate);
  #filled = 0;
  #peak = 0;

  process([[channel]]) {
    for (const sample of channel ?? []) {
      const value = Math.max(-1, Math.min(1, sample));
      this.#peak = Math.max(this.#peak, Math.abs(value));
      this.#block[this.#filled++] = Math.round(value * 32767);
      if (this.#filled === this.#block.length) this.#send();
    }
    return true;
  }

  #send() {
    this.port.postMessage({ samples: this.#block.slice(), level: this.#peak });
    this.#filled = this.#peak = 0;
  }
}

registerProcessor("pcm-blocks", PcmBlocks);
