"""The times of an encode on an NPU beside a CPU: sums, busy cores, and the words of the comparison."""

import pytest

from tilewhisper.engine.tuning.encode_times import EncodeTimes, Way, _whole_layers, _why_no_layers, layer_shape
from tilewhisper.engine.tuning.planning import sites_of_model
from tilewhisper.kernels.base import LayerShape
from tilewhisper.kernels.xdna.profiles import XDNA1_PROFILE


def way(seconds: float, host: float = 0.0, rest: float = 0.0, name: str = "whole layers") -> Way:
    return Way(name, "npu-layer", seconds - host - rest, host, rest, launches=1, switches=0, round_trips=1)


def times(*ways: Way, cpu: float = 1.0, int8: float = 0.5) -> EncodeTimes:
    return EncodeTimes("base", 6, "xdna1", ways, (("cpu", cpu), ("int8", int8)), 4, "a processor", ())


def test_the_host_copies_with_one_core_and_computes_with_all():
    assert way(1.0).busy_cores(4) == 0
    assert way(1.0, host=0.5).busy_cores(4) == 0.5
    assert way(1.0, host=0.25, rest=0.5).busy_cores(4) == 0.25 + 2
    assert way(1.0, host=0.25, rest=0.5).device == 0.25


CPU_WORDS = "1.000 s by policy cpu and 0.500 s by policy int8"


@pytest.mark.parametrize(
    ("seconds", "who", "frees"),
    [
        (0.2, "the NPU is faster", "frees"),
        (0.5, "the NPU is as fast as the CPU", "frees"),
        (0.8, "the CPU is faster with policy int8 only", "frees"),
        (1.0, "the CPU is faster with policy int8 only", "frees"),
        (2.0, "the CPU is faster", "only frees"),
    ],
)
def test_the_words_say_who_is_faster(seconds, who, frees):
    found = times(way(seconds)).verdict
    assert found == f"{who}: {seconds:.3f} s on the NPU (whole layers), {CPU_WORDS}; the NPU {frees} 4.0 of 4 cores"


def test_the_fastest_way_is_compared():
    found = times(way(0.9, name="every product"), way(0.3, host=0.15), way(0.4, rest=0.4, name="projections"))
    assert found.best.name == "whole layers"
    assert found.verdict.endswith("0.500 s by policy int8; the NPU frees 3.5 of 4 cores")
    assert found.to_json()["ways"][1]["busy_cores"] == pytest.approx(0.5)


def test_the_sizes_of_a_models_layers():
    assert layer_shape(sites_of_model("base")) == (LayerShape(1500, 512, 8, 2048), 6)
    assert layer_shape(sites_of_model("turbo")) == layer_shape(sites_of_model("large-v3"))


def test_whole_layers_are_predicted_from_their_plan():
    """By hand for one layer of base on XDNA1: the two slowest steps and the changes of design."""
    found = _whole_layers(LayerShape(1500, 512, 8, 2048), 1, XDNA1_PROFILE)
    changes = 9 * 4 * 0.351e-3
    softmax = max(8 * 1536 * 1536 * 6 / 19.7e9, 8 * 1536 * 1536 / (16 * 0.25 * 1.024e9))
    scores = 8 * (2 * 1536 * 64 * 12 + 2 * 64 * 1536 * 6 + 4 * 1536 * 1536) / 19.7e9
    assert changes + softmax + scores < found.device < 1.6 * (changes + softmax + scores)
    assert found.host == pytest.approx(2 * 1536 * 512 * (4 + 2) / 6e9), "the activation comes once and goes once"
    twice = _whole_layers(LayerShape(1500, 512, 8, 2048), 2, XDNA1_PROFILE)
    assert twice.device == pytest.approx(2 * found.device)
    assert (twice.host, twice.round_trips) == (found.host, 1)


def test_layers_that_no_design_is_made_for_are_left_out_with_the_reason():
    assert _why_no_layers(LayerShape(1500, 512, 8, 2048), XDNA1_PROFILE) == ""
    assert "at most 1536 positions" in _why_no_layers(LayerShape(3000, 512, 8, 2048), XDNA1_PROFILE)
