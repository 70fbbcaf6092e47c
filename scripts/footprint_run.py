"""Transcribe one file in this process with one engine, and print its times and its peak memory as a line of JSON.

python scripts/footprint_run.py ENGINE MODEL FILE THREADS
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

OPTIONS: dict[str, Any] = {"beam_size": 5, "language": "en", "temperature": 0.0, "max_new_tokens": 64}


def main(engine: str, model: str, file: str, threads: str) -> None:
    started = time.perf_counter()
    options: dict[str, Any] = {"device": "cpu", "cpu_threads": int(threads)}
    if engine == "faster-whisper":
        from faster_whisper import WhisperModel

        options["compute_type"] = "int8"
    else:
        from tilewhisper import WhisperModel

        options["policy"] = engine
    imported = time.perf_counter()
    loaded_model = WhisperModel(model, **options)
    loaded = time.perf_counter()
    segments, _ = loaded_model.transcribe(file, **OPTIONS)
    text = "".join(segment.text for segment in segments)
    figures = {
        "text": text,
        "load_seconds": loaded - imported,
        "seconds": time.perf_counter() - started,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(figures))


def peak_bytes() -> int:
    """Peak resident memory of this process; `ru_maxrss` would include its parent's at the fork."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
