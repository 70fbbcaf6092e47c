"""Word timestamps from cross-attention, and the filter for hallucinated segments."""
