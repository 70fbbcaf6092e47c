// The difference of two texts, word by word (Myers' algorithm).

// Texts that differ in more words than this are shown as replaced: the time grows with the square of the difference.
const MOST_CHANGES = 1000;

/** [{kind: "same" | "removed" | "added", words: […]}]: how the words of `before` become those of `after`. */
export function wordDiff(before, after) {
  const [a, b] = [words(before), words(after)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const middle = shortestEdit(a.slice(start, a.length - end), b.slice(start, b.length - end));
  return grouped([
    ...a.slice(0, start).map((word) => ["same", word]),
    ...middle,
    ...a.slice(a.length - end).map((word) => ["same", word]),
  ]);
}

const words = (text) => text.split(/\s+/).filter(Boolean);

function shortestEdit(a, b) {
  const furthest = new Map([[1, 0]]); // by diagonal (index in a - index in b): the furthest index in a
  const history = [];
  for (let edits = 0; edits <= Math.min(a.length + b.length, MOST_CHANGES); edits++) {
    history.push(new Map(furthest));
    for (let diagonal = -edits; diagonal <= edits; diagonal += 2) {
      let x = comesFromAbove(furthest, diagonal, edits) ? furthest.get(diagonal + 1) : furthest.get(diagonal - 1) + 1;
      while (x < a.length && x - diagonal < b.length && a[x] === b[x - diagonal]) x++;
      furthest.set(diagonal, x);
      if (x >= a.length && x - diagonal >= b.length) return tracedBack(history, a, b);
    }
  }
  return [...a.map((word) => ["removed", word]), ...b.map((word) => ["added", word])];
}

const comesFromAbove = (furthest, diagonal, edits) =>
  diagonal === -edits || (diagonal !== edits && furthest.get(diagonal - 1) < furthest.get(diagonal + 1));

function tracedBack(history, a, b) {
  const steps = [];
  let [x, y] = [a.length, b.length];
  for (let edits = history.length - 1; edits >= 0; edits--) {
    const furthest = history[edits];
    const diagonal = x - y;
    const above = comesFromAbove(furthest, diagonal, edits);
    const previous = above ? diagonal + 1 : diagonal - 1;
    const [fromX, fromY] = [furthest.get(previous), furthest.get(previous) - previous];
    while (x > Math.max(fromX, 0) && y > Math.max(fromY, 0)) [x, y] = [x - 1, y - 1], steps.push(["same", a[x]]);
    if (edits === 0) break;
    steps.push(above ? ["added", b[fromY]] : ["removed", a[fromX]]);
    [x, y] = [fromX, fromY];
  }
  return steps.reverse();
}

function grouped(steps) {
  const groups = [];
  for (const [kind, word] of steps) {
    if (groups.at(-1)?.kind === kind) groups.at(-1).words.push(word);
    else groups.push({ kind, words: [word] });
  }
  return groups;
}
