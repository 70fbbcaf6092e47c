"""Run one contender in its own process: requests and answers are lines of JSON on standard input and output.

    python -P -m peers.worker SETUP

The first answer is {}, once the model is loaded. Then, for every path of a float32 .npy file (samples,) at 16 kHz, the
answer is a Transcript and the `seconds` it took, not including reading the file. An error is answered as
{"error": text}. A folder of such files gives one joined Transcript; a peer with `transcribe_many` receives them
together, any other peer one after the other. `-P` keeps the current folder off the import path, where a folder named
like a library would be imported instead of it.
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
    except Exception as error:  # from any library; the parent reports it
        _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _transcribe(peer: Peer, recordings: Sequence[npt.NDArray[np.float32]]) -> Transcript:
    if len(recordings) == 1:
        return peer.transcribe(recordings[0])
    transcribe_many = getattr(peer, "transcribe_many", None)
    if transcribe_many is None:
        return joined([peer.transcribe(samples) for samples in recordings])
    return joined(transcribe_many(recordings))


def _take_standard_output() -> IO[str]:
    """Reserve standard output for answers; libraries' output goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
