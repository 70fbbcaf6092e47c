// The model, language and task of the next run, and the key of a server that asks for one.

import { getJson, useKey } from "./api.js";
import { byId, el } from "./dom.js";

const [model, language, task] = ["model", "language", "task"].map(byId);

/** What is chosen. */
export const chosen = () => ({ model: model.value, language: language.value, task: task.value });

/** Load the server's models and describe the chosen one: `onModel(description)`, again whenever another is chosen. */
export async function loadSettings(onModel, messages) {
  const describe = async () => {
    messages.tell(`Loading ${model.value} …`);
    const description = await getJson(`page/encoder?model=${encodeURIComponent(model.value)}`);
    showLanguages(description.languages);
    byId("policy").textContent = `policy ${description.policy}`;
    onModel(description);
    messages.tell("");
  };
  const guarded = (work) => async () => {
    try {
      messages.clear();
      await work();
    } catch (error) {
      messages.tell("");
      messages.fail(error);
      byId("key-form").hidden = error.status !== 401;
      if (error.status === 401) byId("key").focus();
    }
  };
  const load = guarded(async () => {
    const { data } = await getJson("v1/models");
    const served = data.filter(({ id, root }) => id === root); // the others stand for one of these
    model.replaceChildren(...served.map(({ id }) => el("option", {}, id)));
    byId("key-form").hidden = true;
    await describe();
  });
  model.addEventListener("change", guarded(describe));
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(byId("key").value);
    load();
  });
  await load();
}

function showLanguages(languages) {
  const before = language.value;
  const names = Object.entries(languages).map(([code, name]) => el("option", { value: code }, name));
  const onlyEnglish = names.length === 1;
  language.replaceChildren(...(onlyEnglish ? names : [el("option", { value: "" }, "Detect"), ...names]));
  language.value = before in languages || !onlyEnglish ? before : "en";
  task.querySelector("[value=translate]").disabled = onlyEnglish;
  if (onlyEnglish) task.value = "transcribe";
}
