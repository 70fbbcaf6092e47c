// The headline figures of a run, for the tiles and for the comparison.

import { digits, duration } from "./format.js";

/** [{name, value, unit, note}]: `value` is null where there is none, and `note` says why. */
export function figuresOf(report) {
  const { energy } = report;
  return [
    { name: "Real-time factor", value: report.rtf, note: "seconds of work per second of audio" },
    { name: "Speed", value: report.speed, unit: "×", note: "real time" },
    { name: "CPU seconds per audio second", value: report.cpu_seconds_per_audio_second, note: "cores used at real-time speed" },
    {
      name: "Joules per audio minute",
      value: energy.joules_per_audio_minute,
      unit: " J",
      note: energy.reason ?? "energy of the processor's package",
    },
    { name: "Work", value: report.total.wall_seconds, show: duration, note: `${digits(report.audio_seconds)} s of audio` },
    { name: "Tokens per second", value: report.tokens_per_second, note: "of decoding" },
  ];
}

/** A figure as text. */
export const shown = ({ value, unit = "", show = digits }) => (value == null ? "–" : `${show(value)}${unit}`);
