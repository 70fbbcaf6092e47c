// Bars of the times of one or two runs, each with a table of the same figures.

import { el, svg } from "./dom.js";
import { duration } from "./format.js";

const [LABEL, THICK, GAP] = [20, 14, 10]; // heights in pixels
const LONGEST = 82; // percent of the width; the rest is for the value beside the bar

/** The time of each stage of the runs, as bars and as a table. */
export function stagesChart(runs) {
  const names = [...new Set(runs.flatMap((run) => run.report.stages.map(({ name }) => name)))];
  const secondsOf = (run, name) => run.report.stages.find((stage) => stage.name === name)?.wall_seconds ?? 0;
  const lines = names.map((name) => ({
    name,
    bars: runs.map((run, index) => ({ seconds: secondsOf(run, name), kind: `run-${index}` })),
  }));
  return figure("Time by stage", runs, lines);
}

/** The length of the audio beside the time of the work on it. */
export function realTimeChart({ report }) {
  const line = (name, seconds, kind) => ({ name, bars: [{ seconds, kind }] });
  return figure("Audio and work", [], [
    line("audio", report.audio_seconds, "audio"),
    line("work", report.total.wall_seconds, "run-0"),
  ]);
}

/** `runs` are the columns of the table, and keys of the colours where there are two. */
function figure(title, runs, lines) {
  const longest = Math.max(...lines.flatMap(({ bars }) => bars.map(({ seconds }) => seconds))) || 1;
  const shapes = [];
  let y = 0;
  for (const { name, bars } of lines) {
    shapes.push(svg("text", { class: "label", x: 0, y: y + LABEL / 2 }, name));
    y += LABEL;
    for (const { seconds, kind } of bars) {
      const width = `${((LONGEST * seconds) / longest).toFixed(2)}%`;
      shapes.push(svg("rect", { class: `bar ${kind}`, x: 0, y, width, height: THICK, rx: 2 }));
      shapes.push(svg("text", { class: "value", x: width, dx: 8, y: y + THICK / 2 }, duration(seconds)));
      y += THICK + 2;
    }
    y += GAP;
  }
  const keys = runs.length > 1 && runs.map(({ name }, index) => el("span", { class: `key run-${index}` }, name));
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, title, keys),
    svg("svg", { width: "100%", height: y, "aria-hidden": "true" }, shapes),
    table(title, runs, lines),
  );
}

function table(title, runs, lines) {
  const heads = runs.length > 1 ? runs.map(({ name }) => name) : ["time"];
  const row = ({ name, bars }) =>
    el("tr", {}, el("th", { scope: "row" }, name), bars.map(({ seconds }) => el("td", {}, duration(seconds))));
  const columns = el("tr", {}, el("td"), heads.map((head) => el("th", { scope: "col" }, head)));
  return el(
    "details",
    {},
    el("summary", {}, "As a table"),
    el("table", { class: "figures", "aria-label": title }, el("thead", {}, columns), el("tbody", {}, lines.map(row))),
  );
}
