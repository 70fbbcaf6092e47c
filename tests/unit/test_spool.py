"""`models.spool`: rows come back as they went in, from memory or from a file."""

import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tilewhisper.models.audio import spill
from tilewhisper.models.audio.spill import Spool
from tilewhisper.models.errors import AudioError


@pytest.mark.parametrize("memory", [100, 10**6])
def test_rows_come_back(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", memory)
    rows = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    kept = Spool(3)
    kept.append(rows[:70])
    np.testing.assert_array_equal(kept.read(10, 40), rows[10:40])
    kept.append(rows.T.copy().T[70:])  # whatever the order in memory
    np.testing.assert_array_equal(kept.read(60, 80), rows[60:80])
    assert len(kept) == 100 and kept.read(90, 120).shape == (10, 3) and kept.read(200, 210).shape == (0, 3)


def test_single_numbers_are_rows_too() -> None:
    kept = Spool()
    kept.append(np.arange(5, dtype=np.float32))
    np.testing.assert_array_equal(kept.read(1, 3), [1, 2])


def test_nothing_stays_in_the_folder_or_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = open_files()
    kept = Spool()
    kept.append(np.zeros(1_000, np.float32))
    assert open_files() > before
    assert not list(tmp_path.iterdir())
    del kept
    gc.collect()
    assert open_files() == before


def open_files() -> set[Path]:
    return {Path(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists() or entry.is_symlink()}


def test_a_folder_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(AudioError, match=r"gone, which failed \(No such file or directory\); make room there") as error:
        Spool().append(np.zeros(1_000, np.float32))
    assert "\n" not in str(error.value)
