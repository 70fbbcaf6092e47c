"""What somebody writes to have a file transcribed by faster-whisper: the peer of `tilewhisper transcribe`'s cold start.

python scripts/faster_whisper_once.py MODEL_FOLDER FILE LANGUAGE THREADS
"""

import sys

from faster_whisper import WhisperModel

folder, file, language, threads = sys.argv[1:]
model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=int(threads))
segments, _ = model.transcribe(file, language=language)  # its defaults are ours: beams of 5, temperatures up to 1
for segment in segments:
    print(segment.text.strip(), flush=True)
