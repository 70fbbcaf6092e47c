// Two runs side by side: figures, text, stages, the encoder's cells, and how far the encoder's states are apart.

import { colour, usedLabel } from "./backends.js";
import { stagesChart } from "./chart.js";
import { wordDiff } from "./diff.js";
import { el, unseen } from "./dom.js";
import { COLUMNS, rowsOf } from "./encoder-layout.js";
import { figuresOf, shown } from "./figures.js";
import { change, duration } from "./format.js";

/** The comparison's parts; `error` is a promise of the relative error of the encoder's states. */
export function comparison(before, after, error) {
  return [
    part("Figures", figuresTable(before, after), el("h3", {}, "Error of the encoder"), errorLine(error)),
    el("section", { class: "part" }, stagesChart([before, after])),
    part("Text", textDifference(before, after)),
    part("Encoder, cell by cell", cellsTable(before, after)),
  ];
}

const part = (title, ...content) => el("section", { class: "part" }, el("h3", {}, title), content);

function figuresTable(before, after) {
  const [first, second] = [figuresOf(before.report), figuresOf(after.report)];
  const rows = first.map((figure, index) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, figure.name),
      el("td", {}, shown(figure)),
      el("td", {}, shown(second[index])),
      el("td", { class: "delta" }, change(figure.value, second[index].value)),
    ),
  );
  const heads = ["", before.name, after.name, "change"].map((head) =>
    head ? el("th", { scope: "col" }, head) : el("td"),
  );
  return el("table", { class: "figures" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows));
}

function errorLine(error) {
  const line = el("p", { class: "error-figure" }, "Encoding the first 30 s with both …");
  const show = (value) => {
    if (value === null) return "The runs are of different models, so their states cannot be compared.";
    if (value === 0) return "0: the states are equal, bit for bit.";
    return `${(100 * value).toPrecision(3)} % relative difference of the states (Frobenius norm, first 30 s).`;
  };
  error.then(
    (value) => (line.textContent = show(value)),
    (failure) => (line.textContent = failure.message),
  );
  return line;
}

function textDifference(before, after) {
  const groups = wordDiff(before.text, after.text);
  if (groups.every(({ kind }) => kind === "same")) return el("p", {}, "The texts are equal.");
  const tags = { removed: ["del", `[only ${before.name}: `], added: ["ins", `[only ${after.name}: `] };
  const words = groups.flatMap(({ kind, words }) => {
    const text = words.join(" ");
    if (kind === "same") return [text, " "];
    const [tag, lead] = tags[kind];
    return [el(tag, {}, unseen(lead), text, unseen("]")), " "];
  });
  const legend = el("p", { class: "legend" }, el("del", {}, `only ${before.name}`), " ", el("ins", {}, `only ${after.name}`));
  return [legend, el("p", { class: "difference" }, words)];
}

function cellsTable(before, after) {
  const sitesOf = (run) => new Map([...run.report.sites, { site: "decoder", ...run.report.decoder }].map((s) => [s.site, s]));
  const [first, second] = [sitesOf(before), sitesOf(after)];
  if (first.size !== second.size) return el("p", {}, "The runs are of different models.");
  const cell = ({ site, title, span, isWide }) => {
    const [a, b] = [first.get(site), second.get(site)];
    const [labelA, labelB] = [usedLabel(a.used) ?? a.requested, usedLabel(b.used) ?? b.requested];
    const switched = labelA !== labelB;
    return el(
      "td",
      { colspan: span, title, class: switched && "switched", "data-backend": colour(labelB) },
      isWide && el("span", { class: "site" }, site),
      el("span", { class: "name" }, switched ? `${labelA} → ${labelB}` : labelB),
      el("span", { class: "time" }, `${duration(a.seconds)} → ${duration(b.seconds)}`),
      el("span", { class: "delta" }, change(a.seconds, b.seconds)),
    );
  };
  const rows = rowsOf([...first.keys()].filter((site) => site !== "decoder"));
  const head = el("tr", {}, el("td"), COLUMNS.map(({ head, title }) => el("th", { scope: "col", title }, head)));
  const body = rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.name), row.cells.map(cell)));
  const table = el("table", { class: "grid compared" }, el("thead", {}, head), el("tbody", {}, body));
  return el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Cells of both runs" }, table);
}
