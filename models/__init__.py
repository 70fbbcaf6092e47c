"""What Whisper is made of: checkpoints, tokenizer, audio. Only here is transformers or an audio library imported."""
