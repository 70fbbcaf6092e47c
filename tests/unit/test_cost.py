"""Predicted times against the measurements of the figures' sources and against sums made by hand."""

from dataclasses import replace

import pytest

from tilewhisper.kernels.base import ProductShape, UnknownTarget, UnsupportedShape
from tilewhisper.kernels.xdna.cost import NO_COST, Cost, Load, design_switches, predict
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.profiles import (
    PROFILES,
    XDNA1_PROFILE,
    XDNA2_BFP16_PROFILE,
    XDNA2_NATIVE_PROFILE,
    find_profile,
)
from tilewhisper.kernels.xdna.seed import (
    SEED,
    SEED_CALLS,
    SEED_CLAIMS,
    SEED_GEOMETRIES,
    SEED_PROFILES,
    SEED_PROJECTIONS,
    SEED_SCALED,
    SEED_SHAPE,
)
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan

BASE_PROJECTION = ProductShape(1, 1500, 512, 512)


def cut(m: int, k: int, n: int, profile=XDNA1_PROFILE, name: str = "whole-array", batch: int = 1) -> TilePlan:
    return plan(ProductShape(batch, m, k, n), find_geometry(name, profile.device), profile.device)


def seed(name: str) -> TilePlan:
    return plan(SEED_SHAPE, find_geometry(name, SEED.device), SEED.device)


def test_the_seeds_figures_are_reproduced():
    p = seed("seed-64x64")
    cost = predict(p, SEED)
    assert round(cost.seconds, 1) == 163.7
    assert round(SEED_PROJECTIONS * cost.seconds, 1) == 3928.8
    assert round(cost.seconds / p.calls * 1e3, 1) == 54.4
    parts = (cost.overhead, cost.transfer, cost.compute, cost.host)
    assert [round(part / p.calls * 1e3, 1) for part in parts] == [0.5, 1.0, 52.0, 0.9]
    assert sum(parts) == pytest.approx(cost.seconds), "nothing overlaps"
    assert cost.bound_by == "compute"


def test_the_seeds_geometries_and_profiles_are_found_by_name():
    assert [g.name for g in SEED_GEOMETRIES] == list(SEED_CLAIMS)
    for geometry in SEED_GEOMETRIES:
        for device in DEVICES.values():
            assert find_geometry(geometry.name, device) is geometry
    assert [profile.name for profile in SEED_PROFILES] == ["seed", "seed-scaled"]
    for profile in SEED_PROFILES:
        assert find_profile(profile.name) is profile
    assert seed("seed-64x64").calls == SEED_CALLS


def test_the_seeds_claims_follow_from_a_fixed_time_per_call():
    for name, claim in SEED_CLAIMS.items():
        assert claim.seconds == pytest.approx(claim.calls * 54.4e-3, abs=0.07)
        assert predict(seed(name), SEED).seconds / seed(name).calls == pytest.approx(54.4e-3, rel=1e-3)


@pytest.mark.parametrize(("name", "seconds"), [("seed-64x64", 163.7), ("seed-64x512", 157.4), ("seed-128x512", 160.3)])
def test_larger_calls_save_little_if_compute_grows_with_the_work(name, seconds):
    assert predict(seed(name), SEED_SCALED).seconds == pytest.approx(seconds, abs=0.05)


@pytest.mark.parametrize("profile", [SEED, SEED_SCALED], ids=lambda profile: profile.name)
def test_the_seeds_profiles_do_not_cover_the_whole_array(profile):
    with pytest.raises(
        UnsupportedShape, match="does not cover whole-array; use --device xdna1, xdna2-native or xdna2-bfp16"
    ):
        predict(cut(1500, 512, 512), profile)


def test_24_projections_of_base_take_about_17_ms_of_device():
    plans = [cut(1500, 512, 512)] * 24
    assert sum(design_switches(plans)) == 0
    assert sum(predict(p, XDNA1_PROFILE).device for p in plans) * 1e3 == pytest.approx(17, abs=1)


def test_transfer_and_compute_overlap():
    cost = predict(cut(1500, 512, 512), XDNA1_PROFILE)
    assert cost.transfer == pytest.approx((2 * 1536 * 512 * 4 + 2 * 512 * 512 * 6 + 4 * 1536 * 512) / 19.7e9)
    assert cost.compute == pytest.approx(1536 * 512 * 512 / (16 * 64 * 1.024e9))
    assert cost.device == pytest.approx(0.053e-3 + max(cost.transfer, cost.compute))
    assert cost.compute < cost.transfer < cost.host
    assert cost.bound_by == "host"
    slow = replace(XDNA1_PROFILE, clock=replace(XDNA1_PROFILE.clock, value=0.05e9))
    slowed = predict(cut(1500, 512, 512), slow)
    assert slowed.bound_by == "compute"
    assert slowed.device == pytest.approx(0.053e-3 + slowed.compute)


def test_native_bf16_on_xdna2_is_bound_by_compute_and_bfp16_by_transfers():
    p = cut(2048, 2048, 2048, XDNA2_BFP16_PROFILE)
    moved = 2 * 2048 * 2048 * (2048 / 256) + 2 * 2048 * 2048 * (2048 / 256) + 4 * 2048 * 2048
    assert predict(p, XDNA2_BFP16_PROFILE).device == pytest.approx(0.127e-3 + moved / 42.1e9)
    assert predict(p, XDNA2_NATIVE_PROFILE).device == pytest.approx(0.127e-3 + 2048**3 / (32 * 25.0 * 1.8e9))


def test_the_profiles_of_xdna2_differ_in_nothing_but_the_multiplication():
    native, bfp16 = XDNA2_NATIVE_PROFILE, XDNA2_BFP16_PROFILE
    same = replace(native, name=bfp16.name, summary=bfp16.summary, multiply_adds=bfp16.multiply_adds)
    assert same == bfp16


def test_some_columns_have_their_own_limit_below_the_arrays():
    loads = [Load(0, 2**20, 0, columns, 4 * columns) for columns in (1, 2, 4, 8)]
    seconds = [XDNA2_BFP16_PROFILE.device_cost(load).device for load in loads]
    assert seconds == pytest.approx([2**20 / rate for rate in (16e9, 32e9, 42.1e9, 42.1e9)])


def test_one_core_has_its_share_of_the_array():
    p = cut(64, 64, 64, name="seed-64x64")
    cost = predict(p, XDNA1_PROFILE)
    assert cost.compute == pytest.approx(64**3 / (64 * 1.024e9))
    assert cost.transfer == pytest.approx(p.bytes_moved / (19.7e9 / 4))


def test_launches_in_a_run_list_cost_less_and_change_nothing_else():
    alone = Load(20, 2**20, 2**20, 4, 16)
    listed = replace(alone, in_list=True)
    saved = XDNA1_PROFILE.device_cost(alone).device - XDNA1_PROFILE.device_cost(listed).device
    assert saved == pytest.approx(0.24 * 20 * 0.053e-3)


def test_the_host_fills_a_and_reads_c_and_fills_b_only_if_it_is_not_a_weight():
    p = cut(1500, 512, 512)
    assert predict(p, XDNA1_PROFILE).host == pytest.approx((1536 * 512 * 2 + 1536 * 512 * 4) / 6e9)
    with_b = predict(p, XDNA1_PROFILE, resident=False).host
    assert with_b - predict(p, XDNA1_PROFILE).host == pytest.approx(512 * 512 * 2 / 6e9)
    tiles = cut(64, 64, 64, name="seed-64x64")
    assert predict(tiles, XDNA1_PROFILE).host == pytest.approx((8192 + 8192 + 16384) / 6e9), "every call sends B"


def test_the_design_changes_where_k_or_the_core_tile_changes():
    q, qk, fc1, fc2 = cut(1500, 512, 512), cut(1500, 64, 1500, batch=8), cut(1500, 512, 2048), cut(1500, 2048, 512)
    assert design_switches([q, qk, q, fc1, fc2]) == (1, 1, 1, 0, 1)
    assert design_switches([q, fc1, q]) == (0, 0, 0)
    assert design_switches([]) == ()
    wide, narrow = (cut(1500, 384, n, XDNA2_NATIVE_PROFILE) for n in (384, 1536))
    assert design_switches([wide, narrow]) == (1, 1)
    added = predict(q, XDNA1_PROFILE, switches=2).device - predict(q, XDNA1_PROFILE).device
    assert added == pytest.approx(2 * 4 * 0.351e-3), "for every column"


def test_every_product_of_a_batch_is_a_launch():
    one, eight = (predict(cut(1500, 64, 1500, batch=batch), XDNA1_PROFILE) for batch in (1, 8))
    assert eight.overhead == pytest.approx(8 * one.overhead)
    assert eight.seconds == pytest.approx(8 * one.seconds)


def test_costs_add_up_by_part():
    one = Cost(device=5, host=1, overhead=2, transfer=3, compute=1)
    assert NO_COST + one + one == Cost(10, 2, 4, 6, 2)
    assert one.seconds == 6


def test_every_figure_names_its_source():
    for name, profile in PROFILES.items():
        assert profile.name == name
        for figure in profile.figures:
            assert figure.basis in ("measured", "fitted", "derived")
            assert figure.source
            assert figure.value > 0


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(
        UnknownTarget, match=r"'xdna3'.*the devices are seed, seed-scaled, xdna1, xdna2-native, xdna2-bfp16"
    ):
        find_profile("xdna3")


def test_a_device_with_two_profiles_names_them():
    with pytest.raises(UnknownTarget, match=r"device xdna2 has several cost profiles.*xdna2-native: .*xdna2-bfp16: "):
        find_profile("xdna2")


def test_row_functions_take_their_transfers_or_their_elements():
    rows = Load(1, 2**20, 0, columns=8, cores=8, row_elements=2**20)
    compute = 2**20 / (8 * 0.25 * 1.8e9)
    assert XDNA2_NATIVE_PROFILE.device_cost(rows).device == pytest.approx(0.127e-3 + compute)
    wide = replace(rows, cores=32, bytes_moved=2**24)
    assert XDNA2_NATIVE_PROFILE.device_cost(wide).device == pytest.approx(0.127e-3 + 2**24 / 42.1e9)
