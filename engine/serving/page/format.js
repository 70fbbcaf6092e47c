// Numbers and times as people read them.

/** Seconds of a file as m:ss, or h:mm:ss from an hour on. */
export function clockTime(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/** A duration of work with three digits: µs below 1 ms, ms below 1 s. */
export function duration(seconds) {
  if (seconds === 0) return "0 ms";
  if (Math.abs(seconds) < 0.000_999_5) return `${digits(seconds * 1e6)} µs`;
  if (Math.abs(seconds) < 0.999_5) return `${digits(seconds * 1e3)} ms`;
  return `${digits(seconds)} s`;
}

/** A number with three significant digits and no exponent. */
export function digits(number) {
  if (number === 0) return "0";
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(number))));
  return number.toFixed(Math.min(decimals, 8));
}

/** A difference in percent of `before`, with its sign. */
export function change(before, after) {
  if (!before) return "";
  const percent = Math.round((100 * (after - before)) / before);
  return percent === 0 ? "±0 %" : `${percent > 0 ? "+" : "−"}${Math.abs(percent)} %`;
}

/** A number of things. */
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** A size in bytes. */
export function bytes(size) {
  return size < 1e6 ? `${digits(size / 1e3)} kB` : `${digits(size / 1e6)} MB`;
}
