"""What Whisper is made of: checkpoints, tokenizer, audio. The only room that imports transformers or librosa."""
