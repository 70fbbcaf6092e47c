// OpenAI's realtime transcription over a WebSocket: samples go, events come.

import { openSocket } from "./api.js";
import { SAMPLE_RATE } from "./microphone.js";

const NOTHING_LEFT = "input_audio_buffer_commit_empty";
const FINISH_SECONDS = 5; // for the text of the last words
const TRANSCRIPTION = "conversation.item.input_audio_transcription";

/**
 * A session. `onWords(text, item)` has words of a phrase that do not change any more, `onPartial(text, item)` the words
 * after them as they seem so far, `onPhrase(text, item)` a phrase that is complete, and `onEnd(message)` the reason for
 * the end, empty after `finish`.
 */
export class RealtimeSession {
  #socket = openSocket("v1/realtime?intent=transcription");
  #on;
  #failure = "";
  #finishing = false;

  constructor({ model, language }, on) {
    this.#on = on;
    this.#socket.onopen = () => this.#send(update(model, language));
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    this.#socket.onclose = () =>
      on.onEnd(this.#failure || (this.#finishing ? "" : "The server ended the captions, or could not be reached."));
  }

  /** Send samples, an Int16Array at 16 kHz; dropped while the socket is not open. */
  append(samples) {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#send({ type: "input_audio_buffer.append", audio: base64(new Uint8Array(samples.buffer)) });
  }

  /** Ask for the text of the rest, and close once it has come. */
  finish() {
    this.#finishing = true;
    if (this.#socket.readyState === WebSocket.OPEN) this.#send({ type: "input_audio_buffer.commit" });
    setTimeout(() => this.#socket.close(), 1000 * FINISH_SECONDS);
  }

  #send(event) {
    this.#socket.send(JSON.stringify(event));
  }

  #receive(event) {
    const item = event.item_id;
    if (event.type === "tilewhisper.partial") this.#on.onPartial(event.text, item);
    else if (event.type === `${TRANSCRIPTION}.delta`) this.#on.onWords(event.delta, item);
    else if (event.type === `${TRANSCRIPTION}.completed`) {
      this.#on.onPhrase(event.transcript, item);
      if (this.#finishing) this.#socket.close();
    } else if (event.type === "error" || event.type === `${TRANSCRIPTION}.failed`) {
      if (event.error.code !== NOTHING_LEFT) this.#failure = event.error.message;
      this.#socket.close();
    }
  }
}

const update = (model, language) => ({
  type: "session.update",
  session: {
    type: "transcription",
    audio: {
      input: {
        format: { type: "audio/pcm", rate: SAMPLE_RATE },
        transcription: { model, ...(language && { language }) },
        turn_detection: { type: "server_vad" },
      },
    },
  },
});

function base64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
