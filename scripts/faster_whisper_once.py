"""Transcribe one file with faster-whisper in a minimal script, to compare its cold start with `tilewhisper transcribe`.

python scripts/faster_whisper_once.py MODEL_FOLDER FILE LANGUAGE THREADS
"""

import sys

from faster_whisper import WhisperModel

folder, file, language, threads = sys.argv[1:]
model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=int(threads))
segments, _ = model.transcribe(file, language=language)  # the same defaults as ours: 5 beams, temperatures up to 1
for segment in segments:
    print(segment.text.strip(), flush=True)
