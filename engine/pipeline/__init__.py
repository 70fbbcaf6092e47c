"""From audio files to segments: front end, segmenter, temperature fallback and the scheduler."""
