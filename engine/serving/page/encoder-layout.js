// The encoder as rows of products: the stem, the layers, and below them the decoder as a whole.

export const COLUMNS = [
  { product: "self_attn.q_proj", head: "q", title: "query projection" },
  { product: "self_attn.k_proj", head: "k", title: "key projection" },
  { product: "self_attn.v_proj", head: "v", title: "value projection" },
  { product: "self_attn.qk", head: "q·kᵀ", title: "attention scores" },
  { product: "self_attn.av", head: "a·v", title: "attended values" },
  { product: "self_attn.out_proj", head: "out", title: "output projection" },
  { product: "fc1", head: "fc1", title: "first feed-forward product" },
  { product: "fc2", head: "fc2", title: "second feed-forward product" },
];
const WIDTH = COLUMNS.length;

/** [{name, cells: [{site, title, column, span}]}] of the sites' names, in the order in which they run. */
export function rowsOf(sites) {
  const stem = sites.filter((site) => !site.startsWith("layers."));
  const layers = 1 + Math.max(...sites.map((site) => Number(site.match(/^layers\.(\d+)\./)?.[1] ?? -1)));
  const wide = (names, span) =>
    names.map((site, index) => ({ site, title: site, column: index * span, span, isWide: true }));
  return [
    { name: "Stem", cells: wide(stem, WIDTH / stem.length) },
    ...Array.from({ length: layers }, (_, layer) => ({
      name: `Layer ${layer}`,
      cells: COLUMNS.map(({ product, title }, column) => ({
        site: `layers.${layer}.${product}`,
        title: `layer ${layer}, ${title}`,
        column,
        span: 1,
      })),
    })),
    { name: "Decoder", cells: wide(["decoder"], WIDTH) },
  ];
}
