"""The checkpoint cache: bit-equal to the readers' results, never stale, and never a reason to fail."""

import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

from tilewhisper.models.checkpoint import cache, loader
from tilewhisper.models.checkpoint import cache_folder as cache_folder_module
from tilewhisper.models.checkpoint.cache_folder import CACHE
from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.checkpoint.locate import locate
from tilewhisper.models.checkpoint.modules import Whisper
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.tokenizer import vocabulary

SIZES = ModelConfig(
    vocab_size=1766, num_mel_bins=80, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=20, max_target_positions=12,
)  # fmt: skip


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(CACHE, "path", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A transformers folder of a small model with random weights; its text tokens are the 256 single bytes."""
    return write(tmp_path / "model", seed=0)


def write(folder: Path, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    random = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(t.shape, generator=random) for name, t in Whisper(SIZES).state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper", **vars(SIZES)}))
    single_bytes = [bytes([byte]) for byte in range(256)]
    (folder / "tokenizer.json").write_text(vocabulary.build(single_bytes, SIZES.vocab_size).to_json())
    return folder


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the checkpoints that were read from their own files, not from the cache."""
    read, original = [], loader.read

    def recorded(source):
        read.append(source.name)
        return original(source)

    monkeypatch.setattr(loader, "read", recorded)
    return read


def cached_folders(cache_folder: Path) -> list[Path]:
    return [path for path in cache_folder.iterdir() if path.is_dir()] if cache_folder.exists() else []


def cached_file(folder: Path) -> Path:
    """The cached configuration and vectors of a checkpoint."""
    content = json.loads((CACHE.path / cache.state_file(locate(folder))).read_text())["content"]
    return CACHE.path / content / "checkpoint.safetensors"


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    expected, found = one.model.state_dict(), other.model.state_dict()
    assert list(expected) == list(found)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert [name for name in expected if expected[name].stride() != found[name].stride()] == []
    assert (one.name, one.source, one.generation_config, one.model.config) == (
        other.name, other.source, other.generation_config, other.model.config,
    )  # fmt: skip
    text = " It's the same text: ♪ 日本 therefore <|en|>"
    assert one.tokenizer.encode(text) == other.tokenizer.encode(text)
    assert other.tokenizer.decode(one.tokenizer.encode(text)) == text
    assert one.tokenizer.languages == other.tokenizer.languages
    assert one.tokenizer.prompt("en", "transcribe", True) == other.tokenizer.prompt("en", "transcribe", True)


def test_the_second_load_is_bit_equal_and_reads_only_the_cache(cache_folder, folder, readers):
    first, second = cache.load(folder), cache.load(folder)
    assert len(readers) == 1
    assert_same(first, second)
    assert not second.model.training
    assert {p.dtype for p in second.model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in second.model.parameters())


@pytest.mark.slow
def test_real_weights_and_their_tokenizer_are_cached(cache_folder, readers):
    name = require_weights("tiny.en")
    assert_same(cache.load(name), cache.load(name))
    assert readers == ["tiny.en"]


def test_weights_in_their_file_cannot_be_written_to(cache_folder, folder):
    cache.load(folder)
    fc1 = cache.load(folder).model.model.encoder.layers[0].fc1
    with pytest.raises(RuntimeError, match="would write to a weight in its file"):
        fc1.weight.data.zero_()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mapped files")
def test_the_files_of_a_model_are_mapped_no_longer_than_it_lives(cache_folder, folder):
    cache.load(folder)
    checkpoint = cache.load(folder)
    assert whole(checkpoint.model.model.decoder.embed_tokens.weight).shape == (SIZES.vocab_size, SIZES.d_model)
    assert str(folder / "model.safetensors") in Path("/proc/self/maps").read_text()
    del checkpoint
    gc.collect()
    assert str(folder / "model.safetensors") not in Path("/proc/self/maps").read_text()


def test_a_copy_of_the_files_elsewhere_shares_what_is_cached(cache_folder, folder, tmp_path):
    """A checkpoint that was moved or downloaded again is the same content."""
    cache.load(folder)
    copy = shutil.copytree(folder, tmp_path / "copy" / folder.name)
    assert_same(loader.load(copy), cache.load(copy))
    assert len(cached_folders(cache_folder)) == 1
    assert len(list(cache_folder.glob("*.json"))) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_file_is_never_served_stale(name, cache_folder, folder, readers):
    """Even if its size and modification time have not changed."""
    cache.load(folder)
    before = (folder / name).stat()
    if name == "model.safetensors":
        write(folder, seed=1)
    else:
        (folder / name).write_bytes((folder / name).read_bytes())
    os.utime(folder / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / name).stat().st_size == before.st_size
    assert_same(loader.load(folder), cache.load(folder))
    assert len(readers) == 3
    assert len(list(cache_folder.glob("*.json"))) == 1  # what led to the stale content is deleted


def test_other_code_or_another_known_hash_gives_another_cache_file(cache_folder, folder, monkeypatch):
    source = locate(folder)
    names = {cache.state_file(source), cache.state_file(replace(source, sha256="0" * 64))}
    monkeypatch.setattr(cache, "_code", lambda: "another version")
    assert len({*names, cache.state_file(source)}) == 3


def test_the_name_of_any_checkpoint_fits_the_file_system(cache_folder, folder):
    name = cache.state_file(replace(locate(folder), name="𝄞" * 100))
    assert len(os.fsencode(name)) < 255 - len("-12345678.part")


@pytest.mark.parametrize("package", ["checkpoint/formats/hf.py", "tokenizer/vocabulary.py"])
def test_changed_code_of_readers_or_tokenizers_invalidates_the_cache(package, tmp_path, monkeypatch):
    copies = tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in cache._READERS)
    monkeypatch.setattr(cache, "_READERS", copies)
    digest = cache._code.__wrapped__  # without its cache
    before = digest()
    assert before == cache._code()
    (tmp_path / package).write_text((tmp_path / package).read_text("utf-8") + "\n# changed\n")
    assert digest() != before


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "another tensor"])
def test_a_damaged_cache_file_is_replaced_with_a_warning(damage, cache_folder, folder, readers, caplog):
    first = cache.load(folder)
    (file,) = cache_folder.glob("*/checkpoint.safetensors")
    content = file.read_bytes()
    if damage == "another tensor":
        safetensors.torch.save_file({"x": torch.zeros(3)}, file, metadata={"about": "{}"})
    else:
        file.write_bytes({"truncated": content[:-5], "empty": b"", "noise": os.urandom(1000)}[damage])
    with caplog.at_level(logging.WARNING):
        assert_same(first, cache.load(folder))
    (message,) = caplog.messages
    assert f"{file} is damaged and will be replaced" in message
    assert file.read_bytes() == content
    caplog.clear()
    assert_same(first, cache.load(folder))
    assert not caplog.messages
    assert len(readers) == 2


def test_a_cache_folder_that_cannot_be_written_is_silent(cache_folder, folder, readers, caplog):
    cache_folder.write_text("a file in place of the folder, which not even root can write into")
    with caplog.at_level(logging.WARNING):
        assert_same(cache.load(folder), cache.load(folder))
    assert len(readers) == 2
    assert not caplog.messages


def test_a_full_disk_leaves_no_partial_file(cache_folder, folder, monkeypatch, caplog):
    def half(file, _tensors, _metadata):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_folder_module, "_write_safetensors", half)
    with caplog.at_level(logging.INFO):
        assert_same(loader.load(folder), cache.load(folder))
    assert [file for file in cache_folder.rglob("*") if file.is_file()] == []
    assert "could not be written" in caplog.text


def test_a_vocabulary_with_the_separator_in_a_name_is_not_cached(cache_folder, folder, readers, monkeypatch):
    monkeypatch.setattr(cache, "_BETWEEN_NAMES", "a")  # which is a token of its own
    assert_same(cache.load(folder), cache.load(folder))
    assert len(readers) == 2 and cached_folders(cache_folder) == []


def test_weights_that_change_while_they_are_read_are_not_cached(cache_folder, folder, monkeypatch):
    original = loader.read

    def read_then_changed(source):
        loaded = original(source)
        write(folder, seed=1)
        return loaded

    monkeypatch.setattr(loader, "read", read_then_changed)
    cache.load(folder)
    assert not cache_folder.exists()


def test_the_oldest_files_are_deleted_beyond_the_budget(cache_folder, tmp_path, monkeypatch):
    names = [write(tmp_path / name, seed) for seed, name in enumerate(("one", "two", "three"))]
    monkeypatch.setattr(cache_folder_module, "MODELS_OF_THE_LATEST_SIZE", 2.5)
    monkeypatch.setattr(cache_folder_module, "LEAST_BUDGET", 0)
    for age, name in zip((300, 200, 100), names, strict=True):
        cache.load(name)
        path = cached_file(name)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert [cached_file(name).exists() for name in names] == [False, True, True]
    assert not cached_file(names[0]).parent.exists()


def test_a_use_makes_a_file_the_latest(cache_folder, tmp_path, monkeypatch):
    names = [write(tmp_path / name, seed) for seed, name in enumerate(("one", "two", "three"))]
    monkeypatch.setattr(cache_folder_module, "MODELS_OF_THE_LATEST_SIZE", 2.5)
    monkeypatch.setattr(cache_folder_module, "LEAST_BUDGET", 0)
    for age, name in zip((300, 200), names[:2], strict=True):
        cache.load(name)
        os.utime(cached_file(name), (cached_file(name).stat().st_mtime - age,) * 2)
    cache.load(names[0])
    cache.load(names[2])
    assert [cached_file(name).exists() for name in names] == [True, False, True]


def test_a_model_larger_than_half_of_the_free_disk_is_not_cached(cache_folder, folder, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with caplog.at_level(logging.INFO):
        assert_same(cache.load(folder), cache.load(folder))
    assert cached_folders(cache_folder) == []
    assert "more than half of the disk's free space" in caplog.text


def test_only_abandoned_partial_files_are_deleted(cache_folder, folder):
    cache_folder.mkdir()
    old, new = cache_folder / "old.part", cache_folder / "new.part"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    cache.load(folder)
    assert not old.exists()
    assert new.exists()


@pytest.mark.slow
def test_processes_that_write_the_cache_at_once_agree(cache_folder, folder):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tilewhisper.models.checkpoint import cache
        from tilewhisper.models.checkpoint.cache_folder import CACHE
        from tilewhisper.models.checkpoint.stored_tensor import whole
        CACHE.path = Path(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        weight = cache.load(Path(sys.argv[2])).model.model.decoder.embed_tokens.weight
        print(hash(whole(weight).numpy().tobytes()))
    """)
    command = [sys.executable, "-c", script, str(cache_folder), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["env"] = {**os.environ, "PYTHONHASHSEED": "0"}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert len({out for out, _ in results}) == 1
    assert not any(err for _, err in results)
    assert [path.name for path in cache_folder.glob("*.json")] == [cache.state_file(locate(folder))]
    assert [path.name for path in cache_folder.rglob("*.safetensors")] == ["checkpoint.safetensors"]


@pytest.mark.slow
def test_transcribing_imports_no_unneeded_library(tmp_path):
    """Importing transformers alone takes longer than transcribing a minute of speech."""
    require_weights("tiny.en")
    script = textwrap.dedent("""
        import sys
        from tilewhisper.engine.commands.main import main
        assert main(["transcribe", sys.argv[1], "--model", "tiny.en", "--policy", "torch"]) == 0
        heavy = ("transformers", "torch._dynamo", "librosa", "scipy", "huggingface_hub", "onnxruntime",
                 "sympy")
        print([name for name in heavy if name in sys.modules], "tokenizers" in sys.modules)
    """)
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script, str(SAMPLE)],
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.splitlines())
    first, later = outputs
    assert first[-1] == "[] True"
    assert later[-1] == "[] False"
    assert SAMPLE_WORDS in " ".join(later)
    assert first[:-1] == later[:-1]
