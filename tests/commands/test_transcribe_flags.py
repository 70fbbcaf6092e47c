"""The flags of `tilewhisper transcribe`: the options they pass to the model, and the values they refuse."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE, require_weights

from tilewhisper.engine.commands import flags
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.checkpoint.locate import locate
from tilewhisper.models.option_fields import option_fields

# Each flag of openai-whisper 20250625's parser, and a value it accepts.
OPENAI = {
    "model": "tiny.en", "device": "cpu", "output_format": "txt", "verbose": "True", "task": "transcribe",
    "language": "English", "temperature": "0", "best_of": "5", "beam_size": "5", "patience": "1.0",
    "length_penalty": "1.0", "suppress_tokens": "-1", "initial_prompt": "Hello.", "carry_initial_prompt": "False",
    "condition_on_previous_text": "True", "fp16": "True", "temperature_increment_on_fallback": "0.2",
    "compression_ratio_threshold": "2.4", "logprob_threshold": "-1.0", "no_speech_threshold": "0.6",
    "word_timestamps": "True", "prepend_punctuations": "([{-", "append_punctuations": ".,!?", "highlight_words": "True",
    "max_line_width": "40", "max_line_count": "2", "max_words_per_line": "None", "threads": "0",
    "clip_timestamps": "0", "hallucination_silence_threshold": "2",
}  # fmt: skip
CTRANSLATE2 = {
    "vad_filter": "True", "vad_threshold": "0.5", "vad_onset": "0.5", "vad_min_speech_duration_ms": "250",
    "vad_max_speech_duration_s": "30", "vad_min_silence_duration_ms": "2000", "batched": "True", "batch_size": "4",
    "hotwords": "Tilewhisper", "local_files_only": "False", "compute_type": "int8", "prefix": "So",
    "repetition_penalty": "1.0", "no_repeat_ngram_size": "0", "prompt_reset_on_temperature": "0.5",
    "suppress_blank": "True",
}  # fmt: skip
FOLDERS = ("output_dir", "model_dir")


@pytest.fixture
def options(tilewhisper, model):
    """The options that reach the model when the command has these flags."""

    def of(*flags):
        finished = tilewhisper("transcribe", SAMPLE, *flags)
        assert finished.status == 0, finished.err
        return model.requests.pop().options

    return of


# --- the flags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [OPENAI, CTRANSLATE2], ids=["openai-whisper", "whisper-ctranslate2"])
@pytest.mark.parametrize("dash", ["_", "-"])
def test_every_flag_of_other_engines_is_accepted_in_both_spellings(tilewhisper, model, tmp_path, flags, dash):
    given = flags | {name: str(tmp_path) for name in FOLDERS}
    for form in ("--{} {}", "--{}={}"):
        words = [
            part
            for name, value in given.items()
            for part in form.format(name.replace("_", dash), value).split(" ", maxsplit=1)
        ]
        finished = tilewhisper("transcribe", SAMPLE, *words)
        assert finished.status == 0, finished.err
    assert len(model.requests) == 2


def test_every_option_is_a_flag_with_its_default_in_the_help():
    without_flag = {"log_progress", "vad_parameters", "temperature", "batch_size"}
    expected = {name: field for name, field in option_fields(TranscriptionOptions).items() if name not in without_flag}
    expected |= {f"vad_{name}": field for name, field in option_fields(VadOptions).items()}
    expected |= option_fields(SubtitleOptions) | option_fields(flags.TemperatureFlags)
    assert {name: flag.field for name, flag in flags.FLAGS.items()} == expected
    assert sorted(flag.name for group in flags.GROUPS.values() for flag in group) == sorted(expected)
    for field in expected.values():
        text = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
        assert field.parse(text) == field.default
        assert field.default is None or f"default: {text})" in field.summary


@pytest.mark.parametrize("first", [0.0, 0.1, 0.4, 0.7, 1.0, 1.2])
@pytest.mark.parametrize("step", [0.01, 0.1, 0.2, 0.25, 0.3, 2.0])
def test_the_temperatures_are_bit_equal_to_those_of_openai_whisper(first, step):
    expected = tuple(np.arange(first, 1 + 1e-6, step).tolist()) or (first,)
    assert flags.TemperatureFlags(first, step).temperatures() == expected


def test_the_default_temperatures_are_those_of_python():
    assert flags.TemperatureFlags().temperatures() == pytest.approx(TranscriptionOptions().temperatures)


def test_a_dash_in_a_value_stays(options, tilewhisper, model, tmp_path):
    assert options("--initial-prompt=so-called", "--hotwords", "a-b")["initial_prompt"] == "so-called"
    strange = tmp_path / "--my-talk.flac"
    shutil.copy(SAMPLE, strange)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert tilewhisper("transcribe", "--seed", "1", "--", strange.name).status == 0
    assert model.requests[-1].file == strange.name


# --- the options of the model ---------------------------------------------------------------------------------------


def test_flags_that_are_not_given_are_not_passed_on(options):
    assert options() == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--beam_size 2 --best-of None --patience None", {"beam_size": 2, "best_of": 1, "patience": 1.0}),
        ("--beam_size None --length_penalty 0.5", {"beam_size": 1, "length_penalty": 0.5}),
        (
            "--logprob_threshold None --no_speech_threshold 0.3",
            {"log_prob_threshold": None, "no_speech_threshold": 0.3},
        ),
        ("--log_prob_threshold -0.5", {"log_prob_threshold": -0.5}),
        ("--suppress_tokens -1", {"suppress_tokens": (-1,)}),
        ("--suppress_tokens=-1,11,13", {"suppress_tokens": (-1, 11, 13)}),
        ("--condition_on_previous_text False", {"condition_on_previous_text": False}),
        ("--word_timestamps", {"word_timestamps": True}),
        ("--word_timestamps true", {"word_timestamps": True}),
        ("--vad_filter True --vad_onset 0.4", {"vad_filter": True, "vad_parameters": {"threshold": 0.4}}),
        ("--batched True", {"batch_size": 8}),
        ("--batch_size 3", {"batch_size": 3}),
        ("--batch_size 3 --batched False", {}),
        ("--temperature 0.4", {"temperature": tuple(np.arange(0.4, 1.0 + 1e-6, 0.2))}),
        ("--temperature_increment_on_fallback 0.3", {"temperature": tuple(np.arange(0, 1.0 + 1e-6, 0.3))}),
        ("--temperature_increment_on_fallback None", {"temperature": (0.0,)}),
        ("--temperature 0.5 --temperature_increment_on_fallback None", {"temperature": (0.5,)}),
        ("--temperature 1.2", {"temperature": (1.2,)}),
        ("--clip_timestamps 1,2.5 --seed 7", {"clip_timestamps": "1,2.5", "seed": 7}),
    ],
)
def test_flags_become_options(options, words, expected):
    assert options(*words.split()) == expected


@pytest.mark.parametrize(
    ("words", "policy", "backends"),
    [
        ("", "cpu", ()),
        ("--compute_type default", "cpu", ()),
        ("--compute_type float32", "torch", ()),
        ("--compute_type int8 --backend layers.0.*=torch", "int8", ("layers.0.*=torch",)),
        ("--policy bf16", "bf16", ()),
    ],
)
def test_a_compute_type_selects_a_policy(tilewhisper, model, words, policy, backends):
    assert tilewhisper("transcribe", SAMPLE, *words.split()).status == 0
    assert (model.requests[-1].policy, model.requests[-1].backends) == (policy, backends)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", "tiny.en"),
        ("--language English", "tiny.en"),
        ("--language Japanese", "base"),
        ("--task translate", "base"),
        ("--language ja --model tiny.en", "tiny.en"),
    ],
)
def test_the_default_model_knows_the_language(tilewhisper, model, words, name):
    require_weights("base")
    assert tilewhisper("transcribe", SAMPLE, *words.split()).status == 0
    assert model.requests[-1].model == name


def test_weights_are_searched_in_the_model_folder_first(tilewhisper, model, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (tmp_path / "large-v3-turbo.pt").write_bytes(b"PK\x03\x04")
    assert tilewhisper("transcribe", SAMPLE, "--model", "turbo", "--model_dir", tmp_path).status == 0
    assert model.requests[-1].model == str(tmp_path / "large-v3-turbo.pt")
    finished = tilewhisper("transcribe", SAMPLE, "--model", "small", "--model_dir", tmp_path, "--local_files_only")
    assert finished.status == 2
    assert "downloads are switched off by HF_HUB_OFFLINE or local_files_only" in finished.errors[0]
    assert str(tmp_path) == constants.HF_HUB_CACHE


@pytest.mark.parametrize(
    "command",
    [
        "audio.flac audio.mp3 audio.wav --model turbo",
        "japanese.wav --language Japanese",
        "japanese.wav --model medium --language Japanese --task translate",
        "--help",
    ],
)
def test_the_command_lines_of_openai_whispers_readme_run_unchanged(tilewhisper, model, tmp_path, monkeypatch, command):
    """Small weights replace the large ones, which no pip package has."""
    require_weights("base")
    monkeypatch.chdir(tmp_path)
    for large in ("turbo", "medium"):
        Path(large).symlink_to(locate(require_weights("tiny.en")).folder)
    files = [word for word in command.split() if word.startswith(("audio.", "japanese."))]
    for name in files:
        shutil.copy(SAMPLE, name)
    finished = tilewhisper("transcribe", *command.split())
    assert finished.status == 0, finished.err
    assert [one.file for one in model.requests] == files
    assert finished.out.startswith("usage: " if command == "--help" else "Hello there.\nAnd more.\n" * len(files))


def test_weights_without_a_pip_package_are_sought_on_the_hub(tilewhisper, model):
    finished = tilewhisper("transcribe", SAMPLE, "--model", "turbo", "--local_files_only", "True")
    assert finished.status == 2
    (error,) = finished.errors
    assert "openai/whisper-large-v3-turbo" in error and "tiny.en" in error


# --- refused values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--beam_size two", "--beam_size: must be an integer, got 'two'"),
        ("--beam_size 0", "beam_size must be >= 1 and <= 64, got 0"),
        ("--patience x", "--patience: must be a number, got 'x'"),
        ("--word_timestamps yes", "--word_timestamps: must be True or False, got 'yes'"),
        ("--suppress_tokens a", "--suppress_tokens: must be token ids such as -1 or 11,13, got 'a'"),
        ("--output_format pdf", "unknown format 'pdf'; choose from txt, vtt, srt, tsv, json, jsonl and all"),
        ("--task sing", "invalid choice: 'sing'"),
        ("--device cuda", "--device must be cpu or auto, got cuda: this engine computes on the CPU"),
        ("--compute_type float16", "invalid choice: 'float16'"),
        ("--compute_type int8 --policy torch", "not allowed with"),
        (
            "--temperature_increment_on_fallback 0",
            "temperature_increment_on_fallback must be >= 0.01 and <= 10, or None, got 0.0",
        ),
        ("--temperature -1", "temperature must be >= 0 and <= 10, got -1.0"),
        ("--clip_timestamps 2,1", "clip_timestamps must be ascending seconds >= 0"),
        ("--highlight_words True", "highlight_words needs word times"),
        ("--word_timestamps True --max_line_width 0", "max_line_width must be >= 1, or None, got 0"),
        ("--batch_size 0", "batch_size must be >= 1 and <= 256, or None, got 0"),
        ("--batch_size two", "--batch_size: must be an integer, got 'two'"),
        ("--vad_threshold 2", "vad_parameters: threshold must be >= 0 and <= 1, got 2.0"),
        ("--seed -1", "seed must be >= 0 and <= 9223372036854775807, got -1"),
    ],
)
def test_a_refused_value_is_reported_in_one_line(tilewhisper, model, words, error):
    finished = tilewhisper("transcribe", SAMPLE, *words.split())
    assert finished.status == 2
    assert finished.out == ""
    assert error in finished.err.splitlines()[-1]
    assert len(finished.err.splitlines()) <= 2  # argparse prints the usage first
    assert not model.requests


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("--vad_threshold 0.4", "the vad_ flags have no effect without --vad_filter True"),
        ("--batched False --batch_size 4", "batch_size has no effect with --batched False"),
        ("--word_timestamps True --max_line_count 2", "max_line_count has no effect without max_line_width"),
    ],
)
def test_flags_without_effect_are_noted(tilewhisper, model, words, note):
    finished = tilewhisper("transcribe", SAMPLE, *words.split())
    assert finished.status == 0
    assert f"tilewhisper: warning: {note}" in finished.err.splitlines()


def test_the_help_shows_every_flag(tilewhisper):
    finished = tilewhisper("transcribe", "--help")
    assert finished.status == 0
    assert not [name for name in (*OPENAI, *CTRANSLATE2, *FOLDERS) if f"--{name} " not in finished.out]
