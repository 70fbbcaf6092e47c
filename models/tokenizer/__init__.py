"""Whisper's tokenizer, its special tokens and languages."""
