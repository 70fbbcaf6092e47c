"""From audio files to transcripts: load, route, encode, decode, write, report."""
