// Where a file comes from: dropped, chosen, or recorded.

import { byId } from "./dom.js";
import { record } from "./microphone.js";

/** `onFile(File)` is called with each file; `messages` shows errors. */
export function audioInput(onFile, messages) {
  const [zone, picker, button] = [byId("drop"), byId("file"), byId("record")];
  picker.addEventListener("change", () => {
    if (picker.files.length) onFile(picker.files[0]);
    picker.value = ""; // so that choosing the same file again counts
  });
  for (const type of ["dragenter", "dragover"]) zone.addEventListener(type, (event) => hover(event, true));
  for (const type of ["dragleave", "drop"]) zone.addEventListener(type, (event) => hover(event, false));
  zone.addEventListener("drop", ({ dataTransfer }) => dataTransfer.files.length && onFile(dataTransfer.files[0]));
  // A file that misses the zone must not replace the page.
  for (const type of ["dragover", "drop"]) window.addEventListener(type, (event) => event.preventDefault());

  const hover = (event, over) => {
    event.preventDefault();
    zone.classList.toggle("over", over);
  };
  let recording = null;
  button.addEventListener("click", async () => {
    try {
      const last = recording;
      recording = last ? null : await record();
      button.textContent = recording ? "Stop recording" : "Record";
      button.classList.toggle("recording", recording !== null);
      messages.tell(recording ? "Recording …" : "");
      if (last) onFile(await last.stop());
    } catch (error) {
      messages.fail(error);
    }
  });
}
