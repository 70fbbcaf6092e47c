"""Real-time runs of live transcription: ours, and faster-whisper through the package whisper-streaming."""
