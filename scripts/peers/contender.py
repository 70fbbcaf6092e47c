"""The other end of `worker`: a contender that has its turn, and holds still when it has not."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from peers.base import PeerError, Setup, Transcript

_SCRIPTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Answer:
    """A transcript and the seconds it took, from samples in memory to text."""

    transcript: Transcript
    seconds: float


class Contender:
    """A loaded peer in its own process, which is stopped but for its turns.

    Thread pools spin for a while when their work is done (OpenMP's by up to 0.2 s): in one process, or in one that runs
    on, they would take the cores from whoever comes next. Raises PeerError.
    """

    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
        self.setup = setup
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        path = os.pathsep.join(filter(None, (str(_SCRIPTS), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "peers.worker", json.dumps(asdict(setup))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(setup.threads), "HF_HUB_OFFLINE": "1"},
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise
        self._stop()

    def transcribe(self, samples: Path) -> Answer:
        """One turn over a .npy file of float32 samples (n,) at 16 kHz."""
        assert self._process.stdin
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(json.dumps(str(samples)) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self._stop()
        seconds = answer.pop("seconds")
        return Answer(Transcript(**answer), seconds)

    def close(self) -> None:
        self._process.kill()  # a stopped process, too
        self._process.communicate()
        self._said.close()

    def _stop(self) -> None:
        """Back when it stands, so that nothing of it runs in the next one's turn; an end is left for `Popen` to see."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            last = next((text for text in reversed(self._said.read().splitlines()) if text.strip()), "no word of it")
            raise PeerError(f"{self.name}: its process ended with status {self._process.wait()}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if error := answer.get("error"):
            raise PeerError(f"{self.name}: {' '.join(error.split())}")
        return answer

    def __enter__(self) -> "Contender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
