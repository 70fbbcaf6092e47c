"""From encoder states to tokens: one cached decoder step, the batch, searches and logits processors."""
