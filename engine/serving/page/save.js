// Files that the browser saves.

import { el } from "./dom.js";

/** Let the browser save a text under a name. */
export function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  el("a", { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}

/** A file's name with another extension. */
export const renamed = (name, extension) => `${name.replace(/\.[^.]*$/, "")}.${extension}`;
