// What the page tells: errors in an assertive live region, progress in a polite one.

import { byId } from "./dom.js";

export const messages = {
  /** Show an error of the server or the browser. */
  fail(error) {
    byId("error").textContent = error.message;
  },

  /** Announce progress, in words. */
  tell(text) {
    byId("status").textContent = text;
  },

  clear() {
    byId("error").textContent = "";
    byId("status").textContent = "";
  },
};
