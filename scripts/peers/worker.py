"""One contender in a process of its own: requests and answers are lines of JSON on standard input and output.

    python -P -m peers.worker SETUP

First it answers {}, when the model is loaded; then for every path of a float32 .npy file (samples,) at 16 kHz a
Transcript and the `seconds` it took, reading the file apart; in place of either, {"error": text}. `-P` keeps the
current folder off the import path: one named as a library is would be imported in its stead.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from importlib import import_module
from typing import IO, Any

import numpy as np
from peers.base import Peer, Setup


def main() -> int:
    answers = _take_standard_output()
    try:
        peer: Peer = import_module((setup := Setup(**json.loads(sys.argv[1]))).module).Peer(setup)
        _answer(answers, {})
        for line in sys.stdin:
            samples = np.load(json.loads(line))
            started = time.perf_counter()
            transcript = peer.transcribe(samples)
            seconds = time.perf_counter() - started
            _answer(answers, asdict(transcript) | {"seconds": seconds})
    except Exception as error:  # any library's, for the other side to tell
        _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


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
