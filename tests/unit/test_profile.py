"""A recording's parts add up to its total, and recording leaves the engine as it was."""

from collections import Counter
from types import SimpleNamespace

import pytest

from tilewhisper.engine.decoding.decoder import Decoder
from tilewhisper.engine.decoding.logits import LogitsProcessor
from tilewhisper.engine.routing.router import Router
from tilewhisper.engine.tuning.breakdown import breakdown
from tilewhisper.engine.tuning.chrome_trace import chrome_trace
from tilewhisper.engine.tuning.recording import Recording, TraceSpan, median_recording, record
from tilewhisper.engine.tuning.watched import Category
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend
from tilewhisper.models.audio import reader
from tilewhisper.models.audio.log_mel import LogMel

MS = 1_000_000
MAIN, OTHER = 1, 2


def span(name, category, start, end, function="", inputs=(), output=None, thread=MAIN):
    return TraceSpan(name, Category(category), function, start * MS, end * MS, thread, inputs, output)


def site(launch, *used):
    return SimpleNamespace(launch=launch, used=dict.fromkeys(used, 1))


SPANS = [
    span("decode audio", "stage", 100, 103, "load"),
    span("conv1", "encoder", 112, 114, "conv_gelu", ((1, 3000, 80), (384, 80, 3), (384,)), (1, 3000, 384)),
    span("layers.0.fc1", "encoder", 114, 117, "linear_gelu", ((1, 1500, 384), (1536, 384)), (1, 1500, 1536)),
    span("layers.1.fc1", "encoder", 117, 121, "linear_gelu", ((1, 1500, 384), (1536, 384)), (1, 1500, 1536)),
    span("elsewhere", "stage", 111, 122, thread=OTHER),
    span("encode", "stage", 110, 130, "encode"),
    span("linear layer", "decoder", 132, 133, "linear"),
    span("pack cross-attention K/V", "decoder", 131, 134, "pack_cross_kv"),
    span("linear layer", "decoder", 135, 136, "linear"),
    span("self-attention", "decoder", 136, 138, "self_attention"),
    span("step", "decoder", 134, 139, "step"),
    span("LM head", "decoder", 139, 143, "logits"),
    span("linear layer", "decoder", 144, 146, "linear_add"),
    span("step", "decoder", 143, 147, "step"),
    span("decode", "stage", 130, 150, "decode"),
    span("transcribe", "run", 100, 160, "transcribe"),
]
"""One pass of 60 ms with every kind of gap; spans that touch are siblings, not parent and child."""

RECORDING = Recording(
    SPANS,
    SimpleNamespace(
        file="a.wav",
        model="tiny",
        policy="mixed",
        sites=[site("conv1", "torch"), site("layers.0.fc1", "torch"), site("layers.1.fc1", "npu", "torch")],
        decoder=SimpleNamespace(used="int8"),
        machine=SimpleNamespace(cpu="a CPU"),
    ),
)


@pytest.fixture(scope="module")
def found():
    return breakdown(RECORDING)


def milliseconds(parts):
    return {part.name: (part.calls, round(part.seconds * 1e3, 6)) for part in parts}


def test_stages_and_the_time_that_no_stage_covers(found):
    assert found.seconds == pytest.approx(0.060)
    stages = {"decode audio": (1, 3.0), "encode": (1, 20.0), "decode": (1, 20.0), "other": (0, 17.0)}
    assert milliseconds(found.stages) == stages


def test_the_encoder_by_role_and_by_launch(found):
    assert milliseconds(found.encoder) == {"conv1": (1, 2.0), "fc1": (2, 7.0), "norms and other": (0, 11.0)}
    assert [part.name for part in found.launches] == ["conv1", "layers.0.fc1", "layers.1.fc1", "norms and other"]
    assert sum(part.seconds for part in found.launches) == pytest.approx(0.020)


def test_a_role_lists_every_backend_that_ran_it(found):
    assert [part.backend for part in found.encoder] == ["torch", "torch, npu", ""]
    assert [part.backend for part in found.launches] == ["torch", "torch", "npu, torch", ""]


def test_the_decoder_by_kind_of_work_with_the_remainder_of_steps_and_of_stages(found):
    assert found.steps == 2
    assert milliseconds(found.decoder) == {
        "linear layer": (2, 3.0),  # the call inside `pack_cross_kv` counts there
        "self-attention": (1, 2.0),
        "norms and other in a step": (0, 4.0),
        "pack cross-attention K/V": (1, 3.0),
        "LM head": (1, 4.0),
        "token selection and other": (0, 4.0),
    }


@pytest.mark.parametrize(
    ("function", "inputs", "output", "multiply_adds"),
    [
        ("linear", ((2, 5, 3), (7, 3), (7,)), (2, 5, 7), 2 * 5 * 3 * 7),
        ("linear_add", ((2, 5, 3), (7, 3), (7,), (2, 5, 7)), (2, 5, 7), 2 * 5 * 3 * 7),
        ("conv_gelu", ((1, 10, 4), (6, 4, 3), (6,)), (1, 5, 6), 5 * (3 * 4) * 6),
        ("matmul", ((2, 3, 5, 4), (2, 3, 4, 7)), (2, 3, 5, 7), 2 * 3 * 5 * 4 * 7),
        ("attention", ((1, 5, 36),), (1, 5, 12), 2 * (3 * 5 * 4 * 5)),
        ("attention", ((1, 5, 36), (9,), (1, 3, 4, 4), (1, 3, 4, 4)), (1, 5, 12), 2 * (3 * 5 * 4 * 9)),
        ("feed_forward", ((1, 5, 12), (24, 12), (12, 24)), (1, 5, 12), 2 * (5 * 12 * 24)),
        (
            "encoder_layer",
            ((1, 5, 12), (5,), (36, 12), (12, 12), (24, 12), (12, 24)),
            (1, 5, 12),
            5 * 12 * (36 + 12 + 24 + 24) + 2 * (3 * 5 * 4 * 5),
        ),
    ],
)
def test_multiply_adds_follow_from_the_shapes(function, inputs, output, multiply_adds):
    assert span("", "encoder", 0, 1, function, inputs, output).multiply_adds == multiply_adds


def test_the_median_of_an_even_number_is_the_faster_of_the_middle_two():
    runs = [Recording([span("transcribe", "run", 0, end)], RECORDING.report) for end in (5, 1, 9, 3)]
    assert median_recording(runs).seconds == 3e-3
    assert median_recording(runs[:3]).seconds == 5e-3


def test_the_trace_holds_every_span_in_microseconds_from_the_start():
    events = [event for event in chrome_trace(RECORDING)["traceEvents"] if event["ph"] == "X"]
    assert Counter(event["name"] for event in events) == Counter(span.name for span in SPANS)
    (fc1,) = (event for event in events if event["name"] == "layers.1.fc1")
    assert (fc1["ts"], fc1["dur"], fc1["tid"], fc1["cat"]) == (17_000, 4_000, MAIN, "encoder")
    assert fc1["args"] == {
        "function": "linear_gelu",
        "in": ((1, 1500, 384), (1536, 384)),
        "out": (1, 1500, 1536),
        "backend": "npu, torch",
    }
    assert {event["tid"] for event in events if event["name"] == "elsewhere"} == {OTHER}
    assert {event["args"].get("backend") for event in events if event["name"] == "self-attention"} == {"int8"}


class Runtime:
    def __init__(self):
        self.decoder_plan = SimpleNamespace(backend=TorchBackend())

    def encode_window(self): ...
    def project_cross_kv(self): ...
    def detect_language(self): ...
    def evidence(self): ...
    def align(self): ...


class Segments(list):
    def report(self):
        return RECORDING.report


class Model:
    """A model that runs one stage and fails in pass number `fails_at`."""

    def __init__(self, fails_at):
        self.runtime = Runtime()
        self.passes, self._fails_at = 0, fails_at

    def transcribe(self, file, language, task, **options):
        self.passes += 1
        self.runtime.encode_window()
        if self.passes == self._fails_at:
            raise reader.AudioError("no more")
        return Segments(), None


def test_recorded_runs_follow_a_warm_up_run():
    model = Model(fails_at=None)
    runs = record(model, "a.wav", None, "transcribe", runs=2)
    assert model.passes == 3
    for run in runs:
        assert [span.name for span in run.spans] == ["encode", "transcribe"]


WATCHED = [(Router, "linear"), (Decoder, "step"), (LogitsProcessor, "mask"), (LogMel, "append")]


def test_a_failed_pass_leaves_the_engine_as_it_was():
    before = [vars(owner)[name] for owner, name in WATCHED]
    model = Model(fails_at=3)
    with pytest.raises(reader.AudioError):
        record(model, "a.wav", None, "transcribe", runs=5)
    assert model.passes == 3
    assert [vars(owner)[name] for owner, name in WATCHED] == before
    assert not {"encode_window", "align"} & vars(model.runtime).keys()
    assert "linear" not in vars(model.runtime.decoder_plan.backend)
