"""One contender in a process of its own: requests and answers are lines of JSON on standard input and output.

    python -P -m peers.worker SETUP

First it answers {}, when the model is loaded; then for every path of a float32 .npy file (samples,) at 16 kHz a
Transcript and the `seconds` it took, reading the file apart; in place of either, {"error": text}. For a folder of such
files it answers with one Transcript of them all: a peer that can is given them together, any other one by one. `-P`
keeps the current folder off the import path: one named as a library is would be imported in its stead.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from peers.base import Peer, Setup, Transcript, joined


def main() -> int:
    answers = _take_standard_output()
    try:
        peer: Peer = import_module((setup := Setup(**json.loads(sys.argv[1]))).module).Peer(setup)
        _answer(answers, {})
        for line in sys.stdin:
            path = Path(json.loads(line))
            recordings = [np.load(file) for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
            started = time.perf_counter()
            transcript = _transcribe(peer, recordings)
            seconds = time.perf_counter() - started
            _answer(answers, asdict(transcript) | {"seconds": seconds})
    except Exception as error:  # any library's, for the other side to tell
        _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _transcribe(peer: Peer, recordings: Sequence[npt.NDArray[np.float32]]) -> Transcript:
    if len(recordings) == 1:
        return peer.transcribe(recordings[0])
    together = getattr(peer, "transcribe_many", None)
    return joined(together(recordings) if together else [peer.transcribe(samples) for samples in recordings])


def _take_standard_output() -> IO[str]:
    """Standard output for answers alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(answers: IO[str], what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
