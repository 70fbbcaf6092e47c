"""One model and one server for all tests of the server."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE, require_weights

pytest.importorskip("fastapi", reason="serving needs pip install 'tilewhisper[serve]'")
openai = pytest.importorskip("openai", reason="the client under test")

from running_server import Lent, Running, running  # noqa: E402

from tilewhisper import WhisperModel  # noqa: E402


@pytest.fixture(scope="session")
def lent() -> Iterator[Callable[..., Any]]:
    """Loads tiny.en once, for all servers."""
    model = WhisperModel(require_weights("tiny.en"), policy="torch")
    model.start_loop()
    yield lambda *args, **options: Lent(model)
    model.close()


@pytest.fixture(scope="session")
def served(lent) -> Iterator[Running]:
    """A server with the default limits."""
    with running(lent, policy="torch") as server:
        yield server


@pytest.fixture(scope="session")
def client(served):
    """The official client."""
    return served.openai()


@pytest.fixture
def sample() -> tuple[str, bytes]:
    return "sample.flac", SAMPLE.read_bytes()


@pytest.fixture(scope="session")
def long_wav() -> tuple[str, bytes]:
    """Two windows, each with the sample and silence: more text would repeat itself, and be decoded again."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, np.tile(np.pad(samples, (0, 30 * rate - len(samples))), 2), rate, format="WAV")
    return "long.wav", file.getvalue()
