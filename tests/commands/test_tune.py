"""`tilewhisper tune`: a loadable policy with its measurements and its machine, and the warning on another machine."""

from dataclasses import replace

import pytest
from conftest import SAMPLE, SAMPLE_WORDS, require_weights
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tilewhisper.engine.routing import policy
from tilewhisper.engine.routing.sites import sites_of
from tilewhisper.engine.tuning.evaluation import Trials
from tilewhisper.engine.tuning.fingerprint import fingerprint
from tilewhisper.engine.tuning.sensitivity import TextProbe
from tilewhisper.models.audio.log_mel import log_mel, window
from tilewhisper.models.audio.reader import decode_audio
from tilewhisper.models.checkpoint import loader
from tilewhisper.models.checkpoint.catalog import PACKAGES
from tilewhisper.models.checkpoint.locate import installed, locate


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small model with random weights and the full audio context."""
    require_weights("tiny.en")
    folder = tmp_path_factory.mktemp("small")
    config = WhisperConfig(
        d_model=64, encoder_layers=2, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
        encoder_ffn_dim=96, decoder_ffn_dim=96, vocab_size=51864, max_source_positions=1500,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((installed(PACKAGES["tiny.en"]).folder / "tokenizer.json").read_bytes())
    return folder


def tune(tilewhisper, model, file, *arguments):
    return tilewhisper("tune", "--model", model, "-o", file, "--rounds", "1", "--candidate", "bf16", *arguments)


def test_it_writes_a_policy_with_its_measurements_and_its_machine(tilewhisper, small, tmp_path):
    file = tmp_path / "mine.toml"
    finished = tune(tilewhisper, small, file, "--audio", SAMPLE)
    assert finished.status == 0, finished.err
    assert finished.out == ""
    assert finished.err.splitlines()[-1].endswith(f"written to {file}")
    written = policy.load_policy(file)
    assert written.machine == fingerprint()
    assert "within 0.005 of float32" in written.description
    backends = {route.backend for route in written.resolve(sites_of(WhisperConfig.from_pretrained(small)))}
    assert backends <= {"torch", "bf16"}
    comments = file.read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in comments)
    for part in (
        "layers.*.self_attn.{q_proj,k_proj,v_proj}",
        "bf16 ms",
        "whole encoder",
        str(SAMPLE),
        "1 round in turn",
    ):
        assert any(part in line for line in comments), part
        assert part in finished.err


def test_it_writes_a_map_of_what_each_product_does_to_states_and_text(tilewhisper, small, tmp_path):
    file = tmp_path / "map.html"
    finished = tilewhisper(
        "tune", "--model", small, "--map", file, "--rounds", "1", "--candidate", "bf16", "--audio", SAMPLE
    )
    assert finished.status == 0, finished.err
    assert "largest error: " in finished.err
    page = file.read_text()
    for part in ("bf16: relative error of the encoder states", "log-probabilities, nats", "milliseconds saved"):
        assert part in page
    assert page.count("layers.1.fc2 on bf16") == 3


def test_text_probabilities_change_with_the_states_and_not_without():
    source = locate(require_weights("tiny.en"))
    mel = window(log_mel(decode_audio(SAMPLE), 80), 0)
    checkpoint = loader.load(source)
    with Trials(checkpoint.model, [mel]) as trials:
        probe = TextProbe(replace(checkpoint, model=trials.twin()), trials.expected)
        assert SAMPLE_WORDS in probe.texts[0].lower()
        assert probe.change(trials.expected) == (0.0, 0)
        near, far = (probe.change([states + off * states.flip(-1)]) for states in trials.expected for off in (1e-3, 1))
    assert 0 < near[0] < 0.01 < far[0]
    assert near[1] == 0 < far[1] <= probe.token_count


def test_without_a_recording_it_uses_synthetic_speech_and_says_so(tilewhisper, small, tmp_path):
    finished = tune(tilewhisper, small, tmp_path / "mine.toml", "--bound", "1e-9")
    assert finished.status == 0, finished.err
    assert "synthetic speech, no recording" in finished.err
    assert "synthetic speech, no recording" in (tmp_path / "mine.toml").read_text()
    written = policy.load_policy(tmp_path / "mine.toml")
    assert (written.default, written.rules) == ("torch", ())  # no other backend is that exact


@pytest.mark.parametrize("machine", ["AMD Am386, no FPU", None])
def test_a_policy_from_another_machine_is_used_with_a_warning(tilewhisper, tmp_path, machine):
    file = tmp_path / "mine.toml"
    file.write_text(f'machine = "{machine or fingerprint()}"\ndefault = "torch"\n')
    finished = tilewhisper("transcribe", SAMPLE, "--model", require_weights("tiny.en"), "--policy", file)
    assert finished.status == 0
    assert SAMPLE_WORDS in finished.out
    warnings = [line for line in finished.err.splitlines() if "another machine" in line]
    expected = f"policy {file} was measured on another machine (AMD Am386, no FPU); run `tilewhisper tune` here"
    assert warnings == ([expected] if machine else [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bound", "0"], ["--bound must be > 0 and finite"]),
        (["--bound", "nan"], ["--bound must be > 0 and finite"]),
        (["--rounds", "0"], ["--rounds must be >= 1, got 0"]),
        (["--threads", "-1"], ["--threads must be >= 0, got -1"]),
        (["--candidate", "int17"], ["'int17'", "did you mean 'int16'"]),
        (["--candidate", "npu", "--npu_fault", "hang:1"], ["npu"]),
        (["--audio", "none.wav"], ["none.wav", "no such file"]),
        (["--model", "tinny.en"], ["'tinny.en'"]),
        (["-o", "none/mine.toml"], ["none/mine.toml", "there is no folder"]),
    ],
)
def test_a_bad_argument_is_one_line_of_error_and_nothing_is_written(
    tilewhisper, tmp_path, monkeypatch, arguments, words
):
    require_weights("tiny.en")
    monkeypatch.chdir(tmp_path)
    finished = tilewhisper("tune", "-o", "mine.toml", *arguments)
    assert (finished.status, finished.out) == (2, "")
    (line,) = finished.err.splitlines()
    assert not [word for word in words if word not in line], line
    assert not list(tmp_path.iterdir())


def test_without_a_file_to_write_nothing_is_measured(tilewhisper):
    finished = tilewhisper("tune", "--model", require_weights("tiny.en"))
    assert finished.errors == [
        "tilewhisper: error: nothing to write: give --output FILE for a policy, --map FILE for a page, or both"
    ]
