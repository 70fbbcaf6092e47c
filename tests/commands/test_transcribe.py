"""`tilewhisper transcribe`: streams, files, exit status, and the report compared with the calls that ran."""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

from tilewhisper.engine.encoding.encoder import Encoder
from tilewhisper.engine.routing.sites import encoder_sites, stem_sites
from tilewhisper.models.checkpoint.catalog import SIZES

TRANSCRIBE = ("transcribe", "--model", "tiny.en")
SITES = [site.name for site in (*stem_sites(80, 384), *encoder_sites(4, 384, 6, 1536))]
STAGES = ["decode audio", "log-mel", "encode", "cross-attention K/V", "prompt", "decode"]


@pytest.fixture(scope="module", autouse=True)
def _weights():
    require_weights("tiny.en")


@pytest.fixture
def encoded(monkeypatch):
    """Count the windows that the encoder runs, independently of the report."""
    windows = Counter()
    original = Encoder.encode

    def counted(self, mel, *how):
        windows["all"] += len(mel)
        return original(self, mel, *how)

    monkeypatch.setattr(Encoder, "encode", counted)
    return windows


@pytest.fixture(scope="module")
def ran(tilewhisper, tmp_path_factory):
    """The sample with layer 0 in bf16: the finished command and its report."""
    report = tmp_path_factory.mktemp("report") / "r.json"
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, "--policy", "torch", "--backend", "layers.0.*=bf16", "--report", report)
    return finished, json.loads(report.read_text())


def the_run(path):
    content = json.loads(path.read_text())
    assert content["failures"] == []
    (run,) = content["runs"]
    return run


def test_stdout_has_nothing_but_the_text(ran):
    finished, _ = ran
    assert finished.status == 0
    assert SAMPLE_WORDS in finished.out
    assert finished.out.startswith("Thank you for coming to the meeting.")
    assert finished.out.count("\n") == len(finished.out.strip().splitlines())
    assert not [word for word in ("RTF", "torch", "encode", "\x1b") if word in finished.out]


def test_stderr_has_the_real_time_factor_and_the_backends(ran):
    finished, content = ran
    run = content["runs"][0]
    assert f"RTF {run['rtf']:.3f}, speed {run['speed']:.1f}x real time: 7.3 s of audio" in finished.err
    assert (
        f"model tiny.en (requested; {run['weights']}), policy torch + layers.0.*=bf16 on torch, bf16, language en, "
        in finished.err
    )
    assert finished.errors == []
    rows = [line.split()[:4] for line in finished.err.splitlines()]
    assert ["bf16", "bf16", "8", "8"] in rows
    assert ["torch", "torch", "26", "26"] in rows
    assert SAMPLE_WORDS not in finished.err


def test_the_report_has_the_requested_and_the_used_backend_of_each_site(ran):
    run = ran[1]["runs"][0]
    assert [site["site"] for site in run["sites"]] == SITES
    for site in run["sites"]:
        first = site["site"].startswith("layers.0.")
        name = "bf16" if first else "torch"
        assert (site["requested"], site["used"], site["calls"]) == (name, {name: 1}, 1), site["site"]
        assert site["rule"] == ("layers.0.* = bf16" if first else "default")
        assert site["fallback_reasons"] == []
        assert site["seconds"] > 0
    assert run["backend_overrides"] == ["layers.0.*=bf16"]
    assert ran[1]["failures"] == []


def test_sites_that_ran_as_one_call_share_a_launch(ran):
    launches = {site["site"]: site["launch"] for site in ran[1]["runs"][0]["sites"]}
    joint = {
        f"layers.{i}.self_attn.{leaf}": f"layers.{i}.self_attn.{{q_proj,k_proj,v_proj}}"
        for i in range(4)
        for leaf in ("q_proj", "k_proj", "v_proj")
    }
    # torch has fused attention; bf16 runs the two products separately.
    joint |= {
        f"layers.{i}.self_attn.{leaf}": f"layers.{i}.self_attn.{{qk,av}}" for i in (1, 2, 3) for leaf in ("qk", "av")
    }
    assert launches == {name: joint.get(name, name) for name in SITES}


def test_the_shapes_are_those_of_one_window(ran):
    shapes = {site["site"]: site["shape"] for site in ran[1]["runs"][0]["sites"]}
    assert shapes["layers.2.fc1"] == "(1500, 384) x (384, 1536)"
    assert shapes["layers.2.self_attn.qk"] == "6 x (1500, 64) x (64, 1500)"


def test_the_times_of_the_report_add_up(ran):
    run = ran[1]["runs"][0]
    assert [stage["name"] for stage in run["stages"]] == STAGES
    total, parts = run["total"]["wall_seconds"], sum(stage["wall_seconds"] for stage in run["stages"])
    assert parts <= total <= 1.1 * parts + 0.05
    assert run["audio_seconds"] == pytest.approx(7.283, abs=1e-3)
    assert run["rtf"] == pytest.approx(total / run["audio_seconds"])
    assert run["rtf"] * run["speed"] == pytest.approx(1)
    encode = next(stage for stage in run["stages"] if stage["name"] == "encode")
    assert encode["calls"] == 1
    assert 0 < sum(site["seconds"] for site in run["sites"]) <= encode["wall_seconds"]
    assert all(0 <= stage["first_call_seconds"] <= stage["wall_seconds"] for stage in run["stages"])
    decode = next(stage for stage in run["stages"] if stage["name"] == "decode")
    assert run["tokens_per_second"] == pytest.approx(run["tokens"] / decode["wall_seconds"])
    assert run["tokens"] > 20


def test_files_decoded_together_give_the_same_texts_as_alone(tilewhisper, ran, tmp_path):
    whole, rate = soundfile.read(SAMPLE, dtype="float32")
    soundfile.write(tmp_path / "part.wav", whole[: 3 * rate], rate)
    flags = ("--policy", "torch", "--backend", "layers.0.*=bf16")
    alone = tilewhisper(*TRANSCRIBE, tmp_path / "part.wav", *flags)
    both = tilewhisper(*TRANSCRIBE, SAMPLE, tmp_path / "part.wav", *flags)
    assert both.status == 0
    assert both.out == ran[0].out + alone.out != ran[0].out
    assert both.err.count("language en, batches of 2, ") == 2
    assert "batches" not in alone.err


def test_loading_is_reported_and_not_part_of_the_total(tilewhisper, tmp_path, monkeypatch):
    """A load that takes one second longer shows in `load` and nowhere else."""
    from tilewhisper.models.checkpoint import cache

    original = cache.load

    def slow(name, hub_use):
        time.sleep(1)
        return original(name, hub_use)

    monkeypatch.setattr(cache, "load", slow)
    assert tilewhisper(*TRANSCRIBE, SAMPLE, "--report", tmp_path / "r.json").status == 0
    run = the_run(tmp_path / "r.json")
    assert run["load"]["wall_seconds"] > 1
    parts = sum(stage["wall_seconds"] for stage in run["stages"])
    assert run["total"]["wall_seconds"] < parts + 0.5


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs sh")
def test_the_start_excludes_the_lifetime_of_the_shell_that_became_python(tmp_path):
    """A shell that calls exec keeps its process, and with it the start time that the system reports."""
    program = "from tilewhisper.engine.commands.main import program; program()"
    command = [sys.executable, "-c", program, *TRANSCRIBE, str(SAMPLE), "--report", str(tmp_path / "r.json")]
    began = time.monotonic()
    subprocess.run(["sh", "-c", 'sleep 2; exec "$@"', "sh", *command], check=True, capture_output=True, timeout=100)
    elapsed = time.monotonic() - began - 2
    run = the_run(tmp_path / "r.json")
    parts = ("import_seconds", "weights_seconds", "prepare_seconds")
    assert all(run["startup"][part] > 0 for part in parts)
    seconds = sum(value for name, value in run["startup"].items() if name.endswith("_seconds"))
    assert seconds + run["total"]["wall_seconds"] < elapsed


def test_the_report_has_the_conditions_of_its_figures(ran):
    run = ran[1]["runs"][0]
    assert (run["model"], run["policy"], run["language"], run["file"]) == ("tiny.en", "torch", "en", str(SAMPLE))
    assert run["options"]["task"] == "transcribe"
    machine = run["machine"]
    assert machine["packages"]["torch"] == torch.__version__
    assert {"tilewhisper", "transformers", "numpy"} <= set(machine["packages"])
    assert machine["threads"] == torch.get_num_threads()
    assert machine["logical_cpus"] >= 1
    assert machine["cpu"]
    assert machine["python"]
    assert run["peak_memory_bytes"] > 100e6


def test_every_site_is_called_once_for_every_encoded_window(tilewhisper, encoded, shared, tmp_path):
    recording = shared / "long" / "61-52s.wav"
    without_checks = ("--no_speech_threshold", "None")  # they encode silence to compare with, which is not counted
    finished = tilewhisper(*TRANSCRIBE, recording, *without_checks, "--report", tmp_path / "r.json")
    run = the_run(tmp_path / "r.json")
    assert finished.status == 0
    assert encoded["all"] >= 2
    assert run["windows"] == encoded["all"]
    assert {site["calls"] for site in run["sites"]} == {encoded["all"]}
    assert next(stage["calls"] for stage in run["stages"] if stage["name"] == "encode") == encoded["all"]


def test_detecting_the_language_encodes_the_first_window_once(tilewhisper, encoded, tmp_path):
    require_weights("base")
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, "--model", "base", "--report", tmp_path / "r.json")
    run = the_run(tmp_path / "r.json")
    assert SAMPLE_WORDS in finished.out
    assert run["language"] == "en"
    assert encoded["all"] == 1
    assert [site["calls"] for site in run["sites"]] == [1] * (2 + 8 * SIZES["base"].encoder_layers)


@pytest.mark.parametrize("language", ["en", "English"])
def test_a_language_is_given_by_code_or_by_name(tilewhisper, tmp_path, language):
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, "--language", language, "--report", tmp_path / "r.json")
    assert finished.status == 0
    assert SAMPLE_WORDS in finished.out
    assert the_run(tmp_path / "r.json")["language"] == "en"


def test_the_requested_number_of_threads_is_used(tilewhisper, tmp_path):
    before = torch.get_num_threads()
    try:
        finished = tilewhisper(*TRANSCRIBE, SAMPLE, "--threads", "1", "--report", tmp_path / "r.json")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert SAMPLE_WORDS in finished.out
    assert the_run(tmp_path / "r.json")["machine"]["threads"] == 1
    assert "1 thread of" in finished.err


def test_no_file_is_written_without_an_output_flag(tilewhisper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tilewhisper(*TRANSCRIBE, SAMPLE).status == 0
    assert list(tmp_path.iterdir()) == []


def test_txt_is_written_to_a_folder_that_is_created(tilewhisper, tmp_path):
    folder = tmp_path / "not" / "yet"
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, "-f", "txt", "-o", folder)
    assert finished.status == 0
    assert [path.name for path in folder.iterdir()] == ["sample.txt"]
    assert (folder / "sample.txt").read_text() == finished.out


def test_json_is_written_to_the_current_folder_in_openais_format(tilewhisper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, "-f", "json")
    assert [path.name for path in tmp_path.iterdir()] == ["sample.json"]
    text = (tmp_path / "sample.json").read_text()
    content = json.loads(text)
    assert "\n" not in text
    assert list(content) == ["text", "segments", "language"]
    assert content["language"] == "en"
    assert [segment["text"].strip() for segment in content["segments"]] == finished.out.splitlines()
    assert content["text"] == "".join(segment["text"] for segment in content["segments"])
    assert [segment["id"] for segment in content["segments"]] == list(range(len(content["segments"])))
    keys = "id seek start end text tokens temperature avg_logprob compression_ratio no_speech_prob"
    assert list(content["segments"][0]) == keys.split()


def test_two_inputs_for_one_output_are_refused_before_any_work(tilewhisper, encoded, tmp_path):
    other = tmp_path / "sample.wav"
    soundfile.write(other, np.zeros(16000), 16000)
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, other, "-o", tmp_path / "out")
    assert finished.status == 2
    (error,) = finished.errors
    assert str(SAMPLE) in error
    assert str(other) in error
    assert not encoded
    assert not (tmp_path / "out").exists()


def test_each_of_several_files_has_its_own_output(tilewhisper, tmp_path):
    other = tmp_path / "other.wav"
    samples, rate = soundfile.read(SAMPLE)
    soundfile.write(other, samples[: int(2.3 * rate)], rate)
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, other, "-o", tmp_path, "--report", tmp_path / "r.json")
    assert finished.status == 0
    assert SAMPLE_WORDS in (tmp_path / "sample.txt").read_text()
    assert "coming to the meeting" in (tmp_path / "other.txt").read_text()
    assert SAMPLE_WORDS not in (tmp_path / "other.txt").read_text()
    assert finished.out == (tmp_path / "sample.txt").read_text() + (tmp_path / "other.txt").read_text()
    runs = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert [run["file"] for run in runs] == [str(SAMPLE), str(other)]
    assert all(site["calls"] == 1 for run in runs for site in run["sites"])


def test_bad_files_are_named_and_the_others_are_transcribed(tilewhisper, tmp_path):
    missing, malformed = tmp_path / "missing.wav", tmp_path / "malformed.wav"
    malformed.write_bytes(b"this is not an audio file" * 40)
    finished = tilewhisper(*TRANSCRIBE, missing, malformed, SAMPLE, "-o", tmp_path, "--report", tmp_path / "r.json")
    assert finished.status == 3
    assert SAMPLE_WORDS in finished.out
    assert SAMPLE_WORDS in (tmp_path / "sample.txt").read_text()
    assert not (tmp_path / "malformed.txt").exists()
    content = json.loads((tmp_path / "r.json").read_text())
    assert [run["file"] for run in content["runs"]] == [str(SAMPLE)]
    assert [failure["file"] for failure in content["failures"]] == [str(missing), str(malformed)]
    assert [f"tilewhisper: error: {failure['error']}" for failure in content["failures"]] == finished.errors
    assert "no such file" in content["failures"][0]["error"]


def test_only_bad_files_are_status_2_and_in_the_report(tilewhisper, tmp_path):
    finished = tilewhisper(*TRANSCRIBE, tmp_path / "a.wav", tmp_path / "b.wav", "--report", tmp_path / "r.json")
    assert finished.status == 2
    assert len(finished.errors) == 2
    assert finished.out == ""
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["runs"] == []
    assert len(content["failures"]) == 2


def test_a_policy_file_routes_the_sites(tilewhisper, tmp_path):
    policy = tmp_path / "mine.toml"
    policy.write_text('default = "torch"\n[[rule]]\nsites = "layers.*.fc2"\nbackend = "bf16"\n')
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, "--policy", policy, "--report", tmp_path / "r.json")
    assert SAMPLE_WORDS in finished.out
    run = the_run(tmp_path / "r.json")
    assert {site["site"] for site in run["sites"] if "bf16" in site["used"]} == {f"layers.{i}.fc2" for i in range(4)}
    assert run["policy"] == str(policy)


def test_a_seed_gives_the_same_files(tilewhisper, tmp_path):
    """With thresholds that every temperature fails, so that the last one is used."""
    samples, rate = soundfile.read(SAMPLE)
    soundfile.write(tmp_path / "a.wav", samples[: 3 * rate], rate)
    fallback = ("--logprob_threshold", "0", "--temperature_increment_on_fallback", "0.5", "--best_of", "2")
    short = ("--max_new_tokens", "24")  # noise would go on for hundreds

    def files(name, seed):
        torch.manual_seed(len(name))  # must not matter
        finished = tilewhisper(
            *TRANSCRIBE, tmp_path / "a.wav", *fallback, *short, "--seed", seed, "-o", tmp_path / name
        )
        assert finished.status == 0
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = files("first", seed=7)
    assert files("again", seed=7) == first != files("another", seed=8)
    assert json.loads(first["a.json"])["segments"][0]["temperature"] == 1.0


def test_the_installed_command_transcribes(installed, tmp_path):
    """Run from an empty folder: text on stdout, and no file is left there."""
    finished = installed(*TRANSCRIBE, SAMPLE, cwd=tmp_path)
    assert finished.status == 0
    assert SAMPLE_WORDS in finished.out
    assert finished.out.count("\n") == 1
    assert "RTF" in finished.err
    assert "Traceback" not in finished.err
    assert "Warning" not in finished.err
    assert list(tmp_path.iterdir()) == []


def test_output_dir_without_a_format_writes_every_format(tilewhisper, tmp_path):
    finished = tilewhisper(*TRANSCRIBE, SAMPLE, "-o", tmp_path)
    assert finished.status == 0
    written = {path.suffix: path.read_text() for path in tmp_path.iterdir()}
    assert set(written) == {".txt", ".vtt", ".srt", ".tsv", ".json", ".jsonl"}
    assert all(SAMPLE_WORDS in text for text in written.values())
    segments = json.loads(written[".json"])["segments"]
    assert [json.loads(line)["text"] for line in written[".jsonl"].splitlines()] == [
        segment["text"] for segment in segments
    ]
