"""The cost model against the published times that it was fitted to and those that were held out."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tilewhisper.kernels.xdna.calibration import MEDIAN_TARGET, WORST_TARGET, all_errors, compare, predicted
from tilewhisper.kernels.xdna.cost import ArrayProfile
from tilewhisper.kernels.xdna.not_comparable import NOT_COMPARABLE
from tilewhisper.kernels.xdna.profiles import ARRAY_PROFILES, XDNA1_PROFILE, XDNA2_BFP16_PROFILE
from tilewhisper.kernels.xdna.published import PUBLISHED, Published

MEASURED = Path(__file__).parents[3] / "shared/data/npu/measured.json"


def row(shape, use="fitted", dtype="bf16 -> f32", columns=8) -> Published:
    """The row of a product."""
    wanted = (shape, use, dtype, columns)
    found = [each for each in PUBLISHED if (each.shape, each.use, each.dtype, each.columns) == wanted]
    return found[0]


@pytest.mark.parametrize("errors", all_errors(), ids=lambda errors: errors.name)
def test_the_errors_are_within_the_targets(errors):
    assert errors.median <= MEDIAN_TARGET
    assert errors.worst <= WORST_TARGET


def test_the_errors_count_rows_and_fitted_figures():
    found = {errors.name: (errors.rows, errors.fitted_figures) for errors in all_errors()}
    assert found["xdna1, fitted"] == (5, 2)
    assert found["xdna2-bfp16, fitted"] == (24, 5)
    assert found["xdna2-bfp16, held out"] == (28, 0)
    assert found["xdna2-native, all"] == (17, 5)
    assert found["all"] == (5 + 1 + 24 + 28, 7), "a row of both profiles of XDNA2 counts once"


FITTED = [
    (profile, name)
    for profile in (XDNA1_PROFILE, XDNA2_BFP16_PROFILE)
    for name in ("launch", "bandwidth", "column_bandwidth", "switch", "row_elements")
    if getattr(profile, name).basis == "fitted"
]


@pytest.mark.parametrize(("profile", "name"), FITTED, ids=[f"{profile.name}, {name}" for profile, name in FITTED])
def test_a_fitted_figure_is_the_best_for_the_fitted_rows(profile, name):
    """In the sum of squared logarithms of the ratios; no figure is tuned to rows that were held out."""

    names = [name]
    if name == "bandwidth" and profile.column_bandwidth.basis == "derived":
        names.append("column_bandwidth")  # a share of the array's, without measurements of its own

    def misfit(factor: float) -> float:
        figures = {each: getattr(profile, each) for each in names}
        scaled = {each: replace(figure, value=factor * figure.value) for each, figure in figures.items()}
        changed: ArrayProfile = replace(profile, **scaled)
        return sum(math.log(each.ratio) ** 2 for each in compare(changed) if each.row.use == "fitted")

    assert misfit(1) < min(misfit(0.95), misfit(1.05))


def test_a_product_is_cut_as_its_source_cut_it():
    """By hand: mlir-air's array tile is 512 x 512, Npu-Embeddings' on eight columns 256 x 256."""
    n = 2048
    (load,) = row((n, n, n)).loads
    assert load.bytes_moved == 2 * n * n * (n // 512) + 2 * n * n * (n // 512) + 4 * n * n
    assert (load.columns, load.cores, load.multiply_adds) == (8, 32, n**3)
    (load,) = row((n, 512, 512)).loads
    assert load.bytes_moved == 2 * n * 512 * (512 // 256) + 2 * 512 * 512 * (n // 256) + 4 * n * 512
    (load,) = row((512, 512, 512), dtype="bf16 -> bf16").loads
    assert load.bytes_moved == 2 * 512 * 512 * (1 + 2) + 2 * 512 * 512, "the result takes two bytes"


def test_rates_and_times_become_seconds():
    assert row((2048, 2048, 2048)).seconds == pytest.approx(2 * 2048**3 / 8508e9)
    assert row((4096, 512, 512)).seconds == pytest.approx(2 * 4096 * 512 * 512 / 2.61e12)
    assert row((512, 512, 512), columns=1).seconds == pytest.approx(785.9e-6)
    alternating = next(each for each in PUBLISHED if each.value == (221, 2569))
    assert alternating.seconds == pytest.approx((2569 - 221) * 1e-6)


def test_attention_in_three_designs_is_predicted_from_its_parts():
    attention = next(each for each in PUBLISHED if each.what == "attention of large-v3")
    scores, softmax, values = attention.loads
    assert scores.launches == values.launches == 32 * 20
    assert softmax.bytes_moved == 32 * 20 * 1536 * 1536 * 4, "read and written in bf16"
    assert predicted(attention, XDNA1_PROFILE) == pytest.approx(1.016, rel=0.1)


def test_every_row_is_predicted_by_a_profile_of_its_generation():
    devices = {profile.name: profile.device.name for profile in ARRAY_PROFILES}
    for each in PUBLISHED:
        assert each.profiles
        assert {devices[name] for name in each.profiles} == {each.generation}
        assert re.fullmatch(r"\S+/\S+ .*@[0-9a-f]{7,8}", each.source)
    for other in NOT_COMPARABLE:
        assert other.why
        assert other.source


def key(generation, shape, value, unit):
    """What identifies a figure: its numbers, without the words of a source."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    first_word = "%" if unit.startswith("%") else unit.split()[0]
    return generation, tuple(shape or ()), numbers, first_word


def test_every_collected_measurement_is_predicted_or_listed_with_a_reason():
    if not MEASURED.is_file():
        pytest.skip(f"{MEASURED} is not here")
    collected = json.loads(MEASURED.read_text("utf-8"))["rows"]
    comparable = {key(each.generation, each.shape, each.value, each.unit): each for each in PUBLISHED}
    others = {key(each.generation, each.shape, each.value, each.unit) for each in NOT_COMPARABLE}
    for entry in collected:
        ours = key(entry["generation"], entry.get("shape_MxKxN"), entry["value"], entry["unit"])
        assert (ours in comparable) != (ours in others), entry
        if ours in comparable:
            found = comparable[ours]
            assert found.columns == entry.get("columns", found.columns)
            assert found.dtype == entry.get("dtype", found.dtype) or entry["dtype"] == "bf16"
            assert found.source.split()[0] == entry["source"].split()[0]
            assert entry["source"].partition("@")[2][:7] in found.source
