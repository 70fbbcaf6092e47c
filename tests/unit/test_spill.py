"""The spill buffer returns its rows unchanged, from memory or from a temporary file."""

import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tilewhisper.models.audio import spill
from tilewhisper.models.audio.spill import SpillBuffer
from tilewhisper.models.errors import AudioError


@pytest.mark.parametrize("memory", [100, 10**6])
def test_rows_read_back_unchanged(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", memory)
    rows = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    buffer = SpillBuffer(3)
    buffer.append(rows[:70])
    np.testing.assert_array_equal(buffer.read(10, 40), rows[10:40])
    buffer.append(rows.T.copy().T[70:])  # not contiguous
    np.testing.assert_array_equal(buffer.read(60, 80), rows[60:80])
    assert len(buffer) == 100 and buffer.read(90, 120).shape == (10, 3) and buffer.read(200, 210).shape == (0, 3)


def test_rows_may_be_single_numbers() -> None:
    buffer = SpillBuffer()
    buffer.append(np.arange(5, dtype=np.float32))
    np.testing.assert_array_equal(buffer.read(1, 3), [1, 2])


def test_the_temporary_file_has_no_name_and_closes_with_the_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = open_files()
    buffer = SpillBuffer()
    buffer.append(np.zeros(1_000, np.float32))
    assert open_files() > before
    assert not list(tmp_path.iterdir())
    del buffer
    gc.collect()
    assert open_files() == before


def open_files() -> set[Path]:
    return {Path(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists() or entry.is_symlink()}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    words = r"gone failed \(No such file or directory\); free some space there"
    with pytest.raises(AudioError, match=words) as error:
        SpillBuffer().append(np.zeros(1_000, np.float32))
    assert "\n" not in str(error.value)
