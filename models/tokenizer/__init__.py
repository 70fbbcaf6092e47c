"""Whisper tokenizers: text to tokens and back, special tokens, languages."""
