"""Whisper's inputs: audio files, checkpoints, tokenizers. Only here are audio libraries imported."""
