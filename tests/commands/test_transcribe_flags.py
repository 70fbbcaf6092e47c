"""What the flags of `tilewhisper transcribe` come to: what the model is asked, what is shown, which files are written.

The model is a stand-in that says what it was asked and gives a transcript back, so that each case costs milliseconds.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SAMPLE, require_weights

from tilewhisper.engine import writers
from tilewhisper.engine.commands import speech_flags
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.report import DecoderReport, RunReport, Stage, machine
from tilewhisper.engine.results import Segment, Word
from tilewhisper.engine.startup import Startup
from tilewhisper.engine.transcriber import Transcript
from tilewhisper.kernels.base import KernelError
from tilewhisper.models.errors import AudioError
from tilewhisper.models.locate import locate
from tilewhisper.models.vad_options import VadOptions

# openai-whisper 20250625's own parser: each flag, and a word it takes.
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


def segment(**values) -> Segment:
    plain = {
        "id": 0, "seek": 0, "start": 0.0, "end": 5.0, "text": " Hello there.", "tokens": [1, 2], "avg_logprob": -0.2,
        "compression_ratio": 0.6, "no_speech_prob": 0.01, "words": None, "temperature": 0.0,
    }  # fmt: skip
    return Segment(**(plain | values))


class StandIn:
    """In the place of `WhisperModel`; its instances, and what they were asked, are kept for the test."""

    asked: list[SimpleNamespace]
    together: list[SimpleNamespace]
    transcript: list[Segment]
    language: str
    stop: BaseException | None
    """Raised in the middle of the second file."""

    def __init__(self, model, *, policy, backends, cpu_threads, settings):
        self.setup = {"model": model, "policy": policy, "backends": tuple(backends), "threads": cpu_threads}
        self.policy = SimpleNamespace(machine=None)

    def check(self, options):
        pass

    def transcribe(self, file, batch_size=None, progress=None, **options):
        options |= {} if batch_size is None else {"batch_size": batch_size}
        self.asked.append(SimpleNamespace(file=file, options=options, **self.setup))
        fields = TranscriptionOptions.__dataclass_fields__
        TranscriptionOptions(**{name: value for name, value in options.items() if name in fields})
        return Decoded(self, len(self.asked)), SimpleNamespace(language=self.language)

    def transcribe_many(self, files, batch_size=None, **options):
        self.together.append(SimpleNamespace(files=list(files), batch_size=batch_size, options=options))
        for file in files:
            try:
                segments, info = self.transcribe(file)
                yield Transcript(file, list(segments), info, segments.report())
            except AudioError as error:
                yield Transcript(file, [], None, None, error)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


class Decoded:
    def __init__(self, model, number):
        self._model, self._number = model, number
        self._segments = self._decode()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._segments)

    def _decode(self):
        for i, one in enumerate(self._model.transcript):
            if i and self._number == 2 and self._model.stop:
                raise self._model.stop
            yield one

    def report(self):
        stage = Stage("decode", 1, 0.1, 0.1, 0.1)
        return RunReport(
            file="f", model="m", weights="w", policy="p", backends=["b"], backend_overrides=[], language="en",
            options=TranscriptionOptions(), audio_seconds=1.0, rtf=0.1, speed=10.0, load=stage, stages=[stage],
            startup=Startup(0.1, 1.0, 0.1, True, 0.1),
            total=stage, audio_context="full", batch_size=1, windows=1, windows_again_in_full=0, tokens=1,
            tokens_per_second=1.0,
            peak_memory_bytes=None, sites=[], decoder=DecoderReport("torch", "torch", None), machine=machine(),
        )  # fmt: skip


@pytest.fixture
def model(monkeypatch):
    require_weights("tiny.en")
    monkeypatch.setattr("tilewhisper.engine.model.WhisperModel", StandIn)
    monkeypatch.setattr(StandIn, "asked", [], raising=False)
    monkeypatch.setattr(StandIn, "together", [], raising=False)
    monkeypatch.setattr(StandIn, "transcript", [segment(), segment(id=1, text=" And more.")], raising=False)
    monkeypatch.setattr(StandIn, "language", "en", raising=False)
    monkeypatch.setattr(StandIn, "stop", None, raising=False)
    return StandIn


@pytest.fixture
def options(tilewhisper, model):
    """What the model is asked, beside the file, where the command has these flags."""

    def of(*flags):
        finished = tilewhisper("transcribe", SAMPLE, *flags)
        assert finished.status == 0, finished.err
        return model.asked.pop().options

    return of


# --- which flags there are ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [OPENAI, CTRANSLATE2], ids=["openai-whisper", "whisper-ctranslate2"])
@pytest.mark.parametrize("dash", ["_", "-"])
def test_every_flag_of_the_peers_is_known_in_both_spellings(tilewhisper, model, tmp_path, flags, dash):
    given = flags | {name: str(tmp_path) for name in FOLDERS}
    for form in ("--{} {}", "--{}={}"):
        words = [
            part
            for name, value in given.items()
            for part in form.format(name.replace("_", dash), value).split(" ", maxsplit=1)
        ]
        finished = tilewhisper("transcribe", SAMPLE, *words)
        assert finished.status == 0, finished.err
    assert len(model.asked) == 2


def test_every_option_of_python_is_a_flag_and_its_help_says_pythons_default():
    fields = {field.name: field.default for field in dataclasses.fields(TranscriptionOptions)}
    flags = {flag.name: flag.kind(flag.default) for group in speech_flags.GROUPS.values() for flag in group}
    elsewhere = {"log_progress", "vad_parameters", "temperature", "batch_size"}
    assert {name: flags[name] for name in fields if name not in elsewhere} == {
        name: default for name, default in fields.items() if name not in elsewhere
    }
    vad = {f"vad_{field.name}": field.default for field in dataclasses.fields(VadOptions)}
    assert {name: flags[name] for name in vad} == vad
    assert speech_flags.temperatures(flags["temperature"], flags["temperature_increment_on_fallback"]) == pytest.approx(
        fields["temperature"]
    )


def test_a_dash_in_a_value_stays(options, tilewhisper, model, tmp_path):
    assert options("--initial-prompt=so-called", "--hotwords", "a-b")["initial_prompt"] == "so-called"
    strange = tmp_path / "--my-talk.flac"
    shutil.copy(SAMPLE, strange)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert tilewhisper("transcribe", "--seed", "1", "--", strange.name).status == 0
    assert model.asked[-1].file == strange.name


# --- what they ask of the model -----------------------------------------------------------------------------------


def test_what_is_not_asked_is_left_to_python(options):
    assert options() == {}


@pytest.mark.parametrize(
    ("words", "asked"),
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
def test_what_the_model_is_asked(options, words, asked):
    assert options(*words.split()) == asked


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
def test_a_compute_type_is_a_policy(tilewhisper, model, words, policy, backends):
    assert tilewhisper("transcribe", SAMPLE, *words.split()).status == 0
    assert (model.asked[-1].policy, model.asked[-1].backends) == (policy, backends)


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
    assert model.asked[-1].model == name


def test_weights_are_looked_for_in_the_models_folder_first(tilewhisper, model, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (tmp_path / "large-v3-turbo.pt").write_bytes(b"PK\x03\x04")
    assert tilewhisper("transcribe", SAMPLE, "--model", "turbo", "--model_dir", tmp_path).status == 0
    assert model.asked[-1].model == str(tmp_path / "large-v3-turbo.pt")
    finished = tilewhisper("transcribe", SAMPLE, "--model", "small", "--model_dir", tmp_path, "--local_files_only")
    assert finished.status == 2
    assert "--local_files_only forbids" in finished.errors[0]
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
def test_openais_own_command_lines_run_unchanged(tilewhisper, model, tmp_path, monkeypatch, command):
    """Those of its README; small weights stand in for the large ones, which no package brings."""
    require_weights("base")
    monkeypatch.chdir(tmp_path)
    for large in ("turbo", "medium"):
        Path(large).symlink_to(locate(require_weights("tiny.en")).folder)
    files = [word for word in command.split() if word.startswith(("audio.", "japanese."))]
    for name in files:
        shutil.copy(SAMPLE, name)
    finished = tilewhisper("transcribe", *command.split())
    assert finished.status == 0, finished.err
    assert [one.file for one in model.asked] == files
    assert finished.out.startswith("usage: " if command == "--help" else "Hello there.\nAnd more.\n" * len(files))


def test_weights_that_no_package_brings_are_asked_of_the_hub(tilewhisper, model):
    finished = tilewhisper("transcribe", SAMPLE, "--model", "turbo", "--local_files_only", "True")
    assert finished.status == 2
    (error,) = finished.errors
    assert "openai/whisper-large-v3-turbo" in error and "tiny.en" in error


# --- what is shown, and what is written ---------------------------------------------------------------------------


def test_times_are_shown_as_openai_shows_them(tilewhisper, model):
    model.transcript[1] = segment(id=1, start=3600.0, end=3601.25, text=" And more.")
    finished = tilewhisper("transcribe", SAMPLE, "--verbose", "True")
    assert finished.out == "[00:00.000 --> 00:05.000]  Hello there.\n[01:00:00.000 --> 01:00:01.250]  And more.\n"
    assert "RTF" in finished.err


def test_quiet_means_files_and_nothing_on_the_screen(tilewhisper, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = tilewhisper("transcribe", SAMPLE, "--verbose", "False")
    assert (finished.status, finished.out, finished.err) == (0, "", "")
    assert {path.name for path in tmp_path.iterdir()} == {f"sample.{kind}" for kind in writers.WRITERS}


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("medium-translate", ""),
        ("small-transcribe", ""),
        ("small-transcribe-word-stamps", "--word_timestamps True"),
        ("small-transcribe-line-max-words", "--word_timestamps True --max_words_per_line 5 --max_line_count 1"),
    ],
)
def test_golden_files(tilewhisper, model, shared, tmp_path, monkeypatch, name, flags):
    """Another engine's transcript through the command: the files are byte for byte that engine's."""
    golden = shared / "writers" / name
    content = json.loads((golden / "gossos.json").read_text("utf-8"))
    for one in content["segments"]:
        if one["words"] is None:
            del one["words"]  # openai-whisper has no key where there are no words
    monkeypatch.setattr(model, "language", content["language"])
    model.transcript[:] = [
        segment(**one | ({"words": [Word(**word) for word in one["words"]]} if "words" in one else {}))
        for one in content["segments"]
    ]
    shutil.copy(SAMPLE, tmp_path / "gossos.flac")
    finished = tilewhisper("transcribe", tmp_path / "gossos.flac", "-o", tmp_path / "out", *flags.split())
    assert finished.status == 0
    for kind in ("srt", "vtt", "tsv", "txt"):
        assert (tmp_path / "out" / f"gossos.{kind}").read_bytes() == (golden / f"gossos.{kind}").read_bytes()
    assert json.loads((tmp_path / "out" / "gossos.json").read_text()) == content
    assert ("max_line_count has no effect" in finished.err) == ("max_line_count" in flags)


def test_words_are_laid_out_as_asked(tilewhisper, model, tmp_path):
    model.transcript[:] = [segment(words=[Word(0.0, 1.0, " Hello", 0.9), Word(1.0, 2.0, " there.", 0.9)])]
    asked = ["--word_timestamps", "True", "--highlight-words", "True", "-f", "srt", "-o", tmp_path]
    assert tilewhisper("transcribe", SAMPLE, *asked).status == 0
    assert "<u>Hello</u> there." in (tmp_path / "sample.srt").read_text()
    assert "Hello <u>there.</u>" in (tmp_path / "sample.srt").read_text()


def test_a_folder_is_its_recordings_in_order(tilewhisper, model, tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.flac", "a.WAV", "c.mp4", ".hidden.wav", "deep/d.wav"):
        shutil.copy(SAMPLE, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no audio")
    assert tilewhisper("transcribe", tmp_path, tmp_path / "b.flac").status == 0
    assert [one.file for one in model.asked] == [str(tmp_path / name) for name in ("a.WAV", "b.flac", "c.mp4")]


def test_what_failed_is_said_again_at_the_end(tilewhisper, model, tmp_path):
    (tmp_path / "empty").mkdir()
    finished = tilewhisper("transcribe", tmp_path / "empty", tmp_path / "none.wav", SAMPLE)
    assert finished.status == 3
    assert [one.file for one in model.asked] == [str(SAMPLE)]
    assert finished.err.splitlines()[-1] == f"tilewhisper: failed: {tmp_path / 'empty'}, {tmp_path / 'none.wav'}"


def three_files(folder):
    for name in ("first.flac", "second.flac", "third.flac"):
        shutil.copy(SAMPLE, folder / name)
    return folder / "first.flac", folder / "second.flac", folder / "third.flac"


@pytest.mark.parametrize(
    ("words", "size"),
    [("", None), ("--batch_size 5", 5), ("--batched False --batch_size 5", 5), ("--batched False", None)],
)
def test_several_files_are_decoded_together(tilewhisper, model, tmp_path, words, size):
    files = [str(file) for file in three_files(tmp_path)]
    finished = tilewhisper("transcribe", *files, "--seed", 7, "-o", tmp_path / "out", *words.split())
    assert finished.status == 0
    assert "warning" not in finished.err
    (asked,) = model.together
    assert (asked.files, asked.batch_size, asked.options) == (files, size, {"seed": 7})
    assert finished.out == "Hello there.\nAnd more.\n" * 3
    assert finished.err.count("RTF") == 3
    assert [line.split()[0] for line in finished.err.splitlines() if "───" in line] == files
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}.{kind}" for name in ("first", "second", "third") for kind in writers.WRITERS
    }
    assert (tmp_path / "out" / "third.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("words", "asked"), [("--batch_size 1", {}), ("--batched True --batch_size 5", {"batch_size": 5})]
)
def test_several_files_one_after_the_other(tilewhisper, model, tmp_path, words, asked):
    assert tilewhisper("transcribe", *three_files(tmp_path), *words.split()).status == 0
    assert model.together == []
    assert [one.options for one in model.asked] == [asked] * 3


@pytest.mark.parametrize("one_by_one", [True, False])
def test_an_interrupt_leaves_finished_files_whole(tilewhisper, model, tmp_path, monkeypatch, one_by_one):
    monkeypatch.setattr(model, "stop", KeyboardInterrupt())
    how = ("--batch_size", "1") if one_by_one else ()
    finished = tilewhisper("transcribe", *three_files(tmp_path), "-o", tmp_path / "out", *how)
    assert finished.status == 130
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    begun = {"second.jsonl"} if one_by_one else set()
    assert set(written) == {f"first.{kind}" for kind in writers.WRITERS} | begun
    assert written["first.txt"] == "Hello there.\nAnd more.\n"
    if one_by_one:
        assert written["second.jsonl"] == written["first.jsonl"].splitlines(keepends=True)[0]


@pytest.mark.parametrize("how", [(), ("--batch_size", "1")])
def test_a_file_that_fails_midway_is_not_written_and_the_next_is(tilewhisper, model, tmp_path, monkeypatch, how):
    monkeypatch.setattr(model, "stop", AudioError("second.flac: is cut off"))
    first, second, third = three_files(tmp_path)
    finished = tilewhisper(
        "transcribe", first, second, third, "-o", tmp_path / "out", "-f", "srt", "--report", tmp_path / "r.json", *how
    )
    assert finished.status == 3
    assert finished.errors == ["tilewhisper: error: second.flac: is cut off"]
    assert finished.err.splitlines()[-1] == f"tilewhisper: failed: {second}"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"first.srt", "third.srt"}
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["failures"] == [{"file": str(second), "error": "second.flac: is cut off"}]
    assert len(report["runs"]) == 2


def test_what_stops_files_that_are_decoded_together_fails_all_that_are_left(tilewhisper, model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "stop", KernelError("the device is lost"))
    first, second, third = three_files(tmp_path)
    finished = tilewhisper("transcribe", first, second, third, "-o", tmp_path / "out", "-f", "srt")
    assert finished.status == 3
    assert finished.errors == ["tilewhisper: error: the device is lost"]
    assert finished.err.splitlines()[-1] == f"tilewhisper: failed: {second}, {third}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first.srt"]


def test_a_full_disk_under_a_growing_file_is_one_line(tilewhisper, model, tmp_path, monkeypatch):
    def full(self, segment):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writers.JsonLines, "write", full)
    finished = tilewhisper("transcribe", SAMPLE, "-o", tmp_path, "-f", "jsonl")
    assert finished.status == 2
    assert finished.errors == [f"tilewhisper: error: cannot write {tmp_path / 'sample.jsonl'}: No space left on device"]


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--beam_size two", "--beam_size: expected a whole number, not 'two'"),
        ("--beam_size 0", "beam_size must be at least 1, not 0"),
        ("--patience x", "--patience: expected a number, not 'x'"),
        ("--word_timestamps yes", "--word_timestamps: expected True or False, not 'yes'"),
        ("--suppress_tokens a", "--suppress_tokens: expected token ids"),
        ("--output_format pdf", "invalid choice: 'pdf'"),
        ("--task sing", "invalid choice: 'sing'"),
        ("--device cuda", "--device cuda: this engine computes on the CPU"),
        ("--compute_type float16", "invalid choice: 'float16'"),
        ("--compute_type int8 --policy torch", "not allowed with"),
        ("--temperature_increment_on_fallback 0", "temperature_increment_on_fallback must be above 0"),
        ("--temperature -1", "temperature must be"),
        ("--clip_timestamps 2,1", "clip_timestamps must ascend"),
        ("--highlight_words True", "highlight_words needs the words' times"),
        ("--word_timestamps True --max_line_width 0", "max_line_width must be at least 1"),
        ("--batch_size 0", "batch_size must be at least 1"),
        ("--seed -1", "seed must be 0 to 9223372036854775807, not -1"),
    ],
)
def test_what_is_refused_is_said_in_one_line(tilewhisper, model, words, said):
    finished = tilewhisper("transcribe", SAMPLE, *words.split())
    assert finished.status == 2
    assert finished.out == ""
    assert said in finished.err.splitlines()[-1]
    assert len(finished.err.splitlines()) <= 2  # argparse puts how it is used before it
    assert not model.asked


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("--vad_threshold 0.4", "the vad_ flags have no effect without --vad_filter True"),
        ("--batched False --batch_size 4", "batch_size has no effect with --batched False"),
        ("--word_timestamps True --max_line_count 2", "max_line_count has no effect without max_line_width"),
    ],
)
def test_what_has_no_effect_is_said(tilewhisper, model, words, note):
    finished = tilewhisper("transcribe", SAMPLE, *words.split())
    assert finished.status == 0
    assert f"tilewhisper: warning: {note}" in finished.err.splitlines()


def test_the_help_shows_every_flag(tilewhisper):
    finished = tilewhisper("transcribe", "--help")
    assert finished.status == 0
    assert not [name for name in (*OPENAI, *CTRANSLATE2, *FOLDERS) if f"--{name} " not in finished.out]
