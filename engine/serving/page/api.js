// Requests to the server that this page came from.

let key = ""; // in memory only: gone when the page is closed

export const useKey = (text) => (key = text);

/** An answer other than success; its message is the server's. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The JSON of a path. */
export async function getJson(path) {
  return answered(await reached(fetch(path, { headers: authorization() })));
}

/** The JSON answer to a form. */
export async function postForm(path, form) {
  return answered(await reached(fetch(path, { method: "POST", body: form, headers: authorization() })));
}

/**
 * Post a form whose answer is JSON lines: `onUpload(sent, total)` in bytes, `onLine(object)` as each line arrives.
 * fetch does not tell how much of a body is sent, so this is an XMLHttpRequest. Aborting `signal` ends the request.
 */
export function postStreaming(path, form, { onUpload, onLine, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let read = 0;
    const takeLines = () => {
      if (request.status !== 200) return;
      const end = request.responseText.lastIndexOf("\n") + 1;
      const lines = request.responseText.slice(read, end).split("\n").filter(Boolean);
      read = end;
      for (const line of lines) onLine(JSON.parse(line));
    };
    const finish = (act) => {
      try {
        act();
      } catch (error) {
        reject(error);
      }
    };
    request.upload.onprogress = (event) => onUpload(event.loaded, event.total);
    request.onprogress = () => finish(takeLines);
    request.onload = () =>
      finish(() => {
        if (request.status !== 200) throw serverError(request.status, request.responseText);
        takeLines();
        resolve();
      });
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.open("POST", path);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.send(form);
  });
}

/** A WebSocket of a path. Browsers let no page set its headers, so the key is one of its subprotocols, as OpenAI's. */
export function openSocket(path) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"]);
}

const authorization = () => (key ? { Authorization: `Bearer ${key}` } : {});

async function reached(request) {
  try {
    return await request;
  } catch {
    throw unreachable();
  }
}

async function answered(response) {
  if (!response.ok) throw serverError(response.status, await response.text());
  return response.json();
}

function serverError(status, body) {
  try {
    return new ServerError(status, JSON.parse(body).error.message);
  } catch {
    return new ServerError(status, `The server answered with status ${status}.`);
  }
}

const unreachable = () => new ServerError(0, "The server cannot be reached. Is it still running?");
