"""Checkpoints, from a model name to loaded weights: locate, download, read, cache."""
