"""Transcribe many recordings: resumable, with several workers on this machine or a Ray cluster."""
