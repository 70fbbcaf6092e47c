// Backends as colours and words.

const EMULATED = " (emulated)";

/** The colour class of a backend's name or label: an emulated device has its device's colour. */
export const colour = (label) => label.replace(EMULATED, "");

/** The label of the backend that ran a product; of several, the one that ran it most often, and how many others. */
export function usedLabel(used) {
  const labels = Object.keys(used).sort((a, b) => used[b] - used[a]);
  return labels.length > 1 ? `${labels[0]} + ${labels.length - 1}` : labels[0];
}
