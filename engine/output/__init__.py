"""Output formats of transcripts."""
