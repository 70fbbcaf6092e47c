"""Faults that need a server of their own: a hanging NPU, and a shutdown under load."""

import threading
import time
import wave
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
from faults.clients import Answer, transcribe
from faults.process import ServerProcess, UnexpectedError, server

from tilewhisper.models.audio.reader import decode_audio
from tilewhisper.models.constants import SAMPLE_RATE

_CLIENTS = 8
_REPEATS = 60
# A run that hangs is repeated before it counts as failed.
_NPU = ("--npu", "emulated", "--npu_fault", "hang:2,3,4,5,6,7,8,9")
_WITH_FALLBACK = """
default = "bf16"

[[rule]]
sites = "layers.0.fc1"
backend = "npu"
fallback = "bf16"
"""


def hang_without_fallback(folder: Path, model: str, speech: Path) -> str:
    """The NPU hangs at its second run, and the policy names no other backend."""
    policy = folder / "no-fallback.toml"
    policy.write_text(_WITH_FALLBACK.replace('fallback = "bf16"\n', ""))
    with server(_temporary(folder), ["--model", model, "--policy", str(policy), *_NPU]) as running:
        answers = _until_hang(running, speech)
        status = running.health()
    if (failed := answers[-1]).status != 500:
        raise UnexpectedError(f"the answer is {failed.status} ({failed.text}), not 500")
    return f"{failed.status}: {failed.text} ({status} afterwards)"


def hang_with_fallback(folder: Path, model: str, speech: Path) -> str:
    """The NPU hangs at its second run, and the policy names a backend for that case."""
    policy = folder / "fallback.toml"
    policy.write_text(_WITH_FALLBACK)
    with server(_temporary(folder), ["--model", model, "--policy", str(policy), *_NPU]) as running:
        answers = _until_hang(running, speech)
    last = answers[-1]
    if last.status != 200 or last.headers["x-tilewhisper-fallbacks"] == "0":
        raise UnexpectedError(f"the answer is {last.status} ({last.text}) without a fallback")
    return f"200 with the text, x-tilewhisper-fallbacks: {last.headers['x-tilewhisper-fallbacks']}"


def shutdown_under_load(folder: Path, model: str, policy: str, speech: Path) -> str:
    """SIGTERM while short files run and wait, and one that is too long to finish."""
    ends: list[str] = []
    long = _repeated(speech, folder / "long.wav")

    def ask(running: ServerProcess, file: Path) -> None:
        try:
            ends.append(str(transcribe(running, file).status))
        except httpx.ConnectError:
            ends.append("refused")
        except httpx.TransportError as error:
            ends.append(type(error).__name__)

    with server(_temporary(folder), ["--model", model, "--policy", policy]) as running:
        before = {*running.left_files()}
        files = [long, *[speech] * _CLIENTS]
        clients = [threading.Thread(target=ask, args=[running, file]) for file in files]
        for client in clients:
            client.start()
        _wait_for_load(running, len(files))
        status = running.stop()
        for client in clients:
            client.join()
        left = {str(path) for path in running.temporary.rglob("*")} - before
    if status or left:
        raise UnexpectedError(f"exit status {status}, files left: {left}")
    counts = Counter(ends)
    if counts != {"200": _CLIENTS, "503": 1}:
        raise UnexpectedError(f"clients got {dict(counts)}")
    return f"exit status 0; {_CLIENTS} short requests finished, and the long one was ended with 503"


def _until_hang(running: ServerProcess, speech: Path) -> Sequence[Answer]:
    """Answers up to the first that fails or falls back, at most three."""
    (model,) = httpx.get(f"{running.url}/health", timeout=10).json()["models"]
    if not model["emulated"]:
        raise UnexpectedError("/health does not say that the NPU is emulated")
    answers: list[Answer] = []
    for _ in range(3):
        answers.append(transcribe(running, speech))
        if answers[-1].status != 200 or answers[-1].headers["x-tilewhisper-fallbacks"] != "0":
            break
    return answers


def _wait_for_load(running: ServerProcess, count: int) -> None:
    while True:
        health = httpx.get(f"{running.url}/health", timeout=10).json()
        if health["active"] + health["waiting"] >= count:
            return
        time.sleep(0.01)


def _repeated(speech: Path, target: Path) -> Path:
    """Minutes of the same speech, whose text repeats itself, so that each window is decoded again and again."""
    samples = decode_audio(speech)
    with wave.open(str(target), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((np.tile(samples, _REPEATS) * 32767).astype("<i2").tobytes())
    return target


def _temporary(folder: Path) -> Path:
    path = folder / "tmp-of-server"
    path.mkdir(exist_ok=True)
    return path
