"""The parent's side of `worker`: a contender that runs during its turns and is stopped between them."""

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
    """A transcript and the time it took, from samples in memory to text."""

    transcript: Transcript
    seconds: float


class Contender:
    """A loaded peer in its own process, which is stopped outside its turns. Raises PeerError.

    Thread pools keep spinning after their work (OpenMP's for up to 0.2 s): in the same process, or in a process that is
    not stopped, they would take the cores from the next contender.
    """

    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
        self.setup = setup
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        path = os.pathsep.join(filter(None, (str(_SCRIPTS), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "peers.worker", json.dumps(asdict(setup))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
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
        """Transcribe a .npy file of float32 samples (n,) at 16 kHz, or a folder of such files."""
        assert self._process.stdin
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(json.dumps(str(samples)) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self._stop()
        seconds = answer.pop("seconds")
        return Answer(Transcript(**answer), seconds)

    def close(self) -> None:
        self._process.kill()  # works on a stopped process, too
        self._process.communicate()
        self._stderr.close()

    def _stop(self) -> None:
        """Return once the process is stopped, so that it takes no time of the next turn; leave its exit to `Popen`."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._stderr.seek(0)
            last = next((text for text in reversed(self._stderr.read().splitlines()) if text.strip()), "no message")
            raise PeerError(f"{self.name}: exit status {self._process.wait()}: {last}")
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
