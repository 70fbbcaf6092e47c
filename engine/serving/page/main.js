// The page's start: its parts are made and joined here.

import { Captions } from "./captions.js";
import { byId } from "./dom.js";
import { messages } from "./messages.js";
import { chosen, loadSettings } from "./settings.js";
import { tabs } from "./tabs.js";
import { Workbench } from "./workbench.js";

const workbench = new Workbench(chosen, messages);
new Captions(chosen, messages);
tabs(byId("views"), (tab) => {
  byId("task-option").hidden = tab.id !== "file-tab";
  messages.clear();
});
await loadSettings((description) => workbench.describe(description), messages);
