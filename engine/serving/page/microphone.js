// The microphone as blocks of 16-bit samples, and as a recording.

export const SAMPLE_RATE = 16000;

/** Call `onBlock(Int16Array, level)` for each block of 16 kHz mono samples until `stop()`; level is 0 to 1. */
export async function listen(onBlock) {
  const stream = await microphone();
  const context = new AudioContext({ sampleRate: SAMPLE_RATE });
  await context.audioWorklet.addModule(new URL("pcm-worklet.js", import.meta.url));
  const blocks = new AudioWorkletNode(context, "pcm-blocks", { numberOfOutputs: 0 });
  blocks.port.onmessage = ({ data }) => onBlock(data.samples, data.level);
  context.createMediaStreamSource(stream).connect(blocks);
  return {
    stop() {
      stopped(stream);
      return context.close();
    },
  };
}

/** Record until `stop()`, which resolves to a File in the browser's own format. */
export async function record() {
  const stream = await microphone();
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  recorder.start();
  return {
    stop: () =>
      new Promise((resolve) => {
        recorder.onstop = () => {
          stopped(stream);
          const type = recorder.mimeType.split(";")[0];
          resolve(new File(pieces, `recording.${type.split("/")[1] ?? "webm"}`, { type }));
        };
        recorder.stop();
      }),
  };
}

async function microphone() {
  if (!navigator.mediaDevices) throw new Error("Browsers give the microphone only to pages from localhost or https.");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (error) {
    if (error.name === "NotAllowedError") throw new Error("The browser was not allowed to use the microphone.");
    if (error.name === "NotFoundError") throw new Error("No microphone was found.");
    throw error;
  }
}

const stopped = (stream) => stream.getTracks().forEach((track) => track.stop());
