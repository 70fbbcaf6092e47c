"""Word timestamps from cross-attention, and the rules against hallucinated words."""
