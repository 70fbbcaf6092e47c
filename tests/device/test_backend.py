"""The NPU backend on the emulated device: products, reuse of buffers and runs, and recovery from failures."""

import gc
import json
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_backends import SEED_CASES, seed_case

from tilewhisper.kernels.base import BackendUnavailable, ProductFailed, ProductShape, Settings, UnknownTarget
from tilewhisper.kernels.xdna import xrt
from tilewhisper.kernels.xdna.backend import XdnaBackend
from tilewhisper.kernels.xdna.devices import DEVICES, XDNA1, XDNA2, device_called
from tilewhisper.kernels.xdna.emulated import pyxrt as emulated
from tilewhisper.kernels.xdna.emulated.on_demand import DesignsOnDemand, parse_fault
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.tiling import plan


def backend(device=XDNA1, geometry="whole-array", faults=None, find=None, module=None, **options) -> XdnaBackend:
    module = module or emulated.make(device, faults=faults or emulated.Faults())
    chosen = find_geometry(geometry, device)
    return XdnaBackend(xrt.open_device(module), device, chosen, find or DesignsOnDemand(), emulated=True, **options)


def signed(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bound(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """bf16 rounds each input by up to 2^-8; the K float32 sums add far less (see kernels/cpu/bf16.py)."""
    return (2 * 2.0**-8 + 2.0**-16 + a.shape[-1] * 2.0**-23) * (a.double().abs() @ b.double().abs())


def assert_product(found: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    assert found.dtype == torch.float32
    assert ((found.double() - a.double() @ b.double()).abs() <= bound(a, b)).all()


every_device = pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)


@every_device
@pytest.mark.parametrize(("m", "k", "n"), [(1500, 384, 384), (100, 512, 130), (1, 64, 1), (257, 1500, 64)])
def test_linear_equals_float64_within_bf16(device, m, k, n):
    x, weight, bias = signed(m, k), signed(n, k, seed=1), signed(n, seed=2)
    npu = backend(device)
    assert_product(npu.linear(x, npu.prepare(weight, bias)) - bias, x, weight.T)


WIDTHS = (384, 512, 768, 1024, 1280)
"""d_model of tiny, base, small, medium and large."""
ENCODER_PRODUCTS = sorted(
    {(64, 1500), (1500, 64)} | {kn for d in WIDTHS for kn in ((d, d), (d, 3 * d), (d, 4 * d), (4 * d, d))}
)
"""(K, N) of q, k and v as one product, the projections, fc1, fc2, qk and av, of every Whisper size."""


@pytest.mark.slow
@every_device
@pytest.mark.parametrize(("k", "n"), ENCODER_PRODUCTS)
def test_every_design_of_every_whisper_size_gives_the_product(device, k, n):
    npu, x, weight = backend(device), signed(70, k), signed(n, k, seed=1)
    assert_product(npu.linear(x, npu.prepare(weight, None)), x, weight.T)


def test_the_sign_and_order_of_bf16_bytes_are_right():
    npu = backend()
    x = torch.tensor([[1.0, -2.0, 0.5, -0.25] * 16])
    weight = torch.eye(64) * -3.0
    assert torch.equal(npu.linear(x, npu.prepare(weight, None)), x * -3.0)


def test_leading_dimensions_are_kept():
    npu, x, weight = backend(), signed(2, 3, 5, 64), signed(32, 64, seed=1)
    y = npu.linear(x, npu.prepare(weight, None))
    assert y.shape == (2, 3, 5, 32)
    assert_product(y, x, weight.T)


def test_matmul_takes_batches_and_transposed_views():
    npu, a, b = backend(), signed(2, 3, 70, 64), signed(2, 3, 50, 64, seed=1).mT
    y = npu.matmul(a, b)
    assert y.shape == (2, 3, 70, 50)
    assert_product(y, a, b)
    assert npu.usage.calls == 6


@pytest.mark.parametrize("name", SEED_CASES)
def test_products_are_as_accurate_as_the_seeds(name):
    a, b, exact, largest = seed_case(name)
    npu = backend()
    assert np.abs(npu.matmul(a, b).double().numpy() - exact).max() <= largest
    assert np.abs(npu.linear(a, npu.prepare(b.T.contiguous(), None)).double().numpy() - exact).max() <= largest


@pytest.mark.parametrize("geometry", ["seed-64x64", "seed-64x512", "seed-128x512"])
def test_the_number_of_host_calls_is_the_planned_number(geometry):
    npu, x, weight = backend(geometry=geometry), signed(100, 600), signed(70, 600, seed=1)
    assert_product(npu.linear(x, npu.prepare(weight, None)), x, weight.T)
    assert npu.usage.calls == plan(ProductShape(1, 100, 600, 70), find_geometry(geometry, XDNA1), XDNA1).calls


def test_a_second_call_makes_no_buffer_and_no_run():
    module = emulated.make(XDNA1)
    made = {"bo": 0, "run": 0}

    def counted(name):
        original = getattr(module, name)

        class Counted(original):
            def __init__(self, *args):
                made[name] += 1
                super().__init__(*args)

        setattr(module, name, Counted)

    for name in made:
        counted(name)
    npu, x, weight = backend(module=module), signed(100, 64), signed(32, 64, seed=1)
    prepared = npu.prepare(weight, None)
    first = npu.linear(x, prepared)
    before = dict(made)
    assert torch.equal(npu.linear(x, prepared), first)
    assert made == before
    assert made["bo"] == 4  # A, B, C and the instructions


def test_weights_of_the_same_size_do_not_mix():
    npu, x = backend(), signed(40, 64)
    weights = [signed(32, 64, seed=seed) for seed in (1, 2)]
    prepared = [npu.prepare(weight, None) for weight in weights]
    for _ in range(2):
        for weight, ready in zip(weights, prepared, strict=True):
            assert_product(npu.linear(x, ready), x, weight.T)


def test_products_of_the_same_k_share_a_context():
    npu = backend(faults=emulated.Faults(contexts_taken=5))
    for n in (32, 200, 384):
        npu.linear(signed(50, 64), npu.prepare(signed(n, 64, seed=1), None))
    with pytest.raises(BackendUnavailable, match="all hardware contexts are in use"):
        npu.prepare(signed(32, 128), None)


def test_a_seventh_design_exceeds_six_contexts():
    npu = backend()
    for k in range(1, 7):
        npu.prepare(signed(32, 64 * k), None)
    with pytest.raises(BackendUnavailable, match="err=-22"):
        npu.prepare(signed(32, 64 * 7), None)


def test_after_a_hang_the_context_is_rebuilt_once_and_the_product_is_right():
    npu, x, weight = backend(faults=parse_fault("hang:2")), signed(100, 64), signed(32, 64, seed=1)
    assert_product(npu.linear(x, npu.prepare(weight, None)), x, weight.T)


def test_after_a_second_hang_the_design_is_disabled():
    npu, x = backend(faults=parse_fault("hang:2,3")), signed(100, 64)
    prepared = npu.prepare(signed(32, 64, seed=1), None)
    with pytest.raises(ProductFailed, match=r"did not answer within 10000 ms \(TIMEOUT\)"):
        npu.linear(x, prepared)
    runs = npu._xrt.pyxrt.emulation.runs
    with pytest.raises(ProductFailed, match="disabled after a rebuild"):
        npu.linear(x, prepared)
    assert npu._xrt.pyxrt.emulation.runs == runs


def test_a_lost_device_is_reported():
    npu = backend(faults=parse_fault("lost:2"))
    with pytest.raises(ProductFailed, match="No such device"):
        npu.linear(signed(100, 64), npu.prepare(signed(32, 64, seed=1), None))


def test_the_canary_detects_a_design_for_another_k():
    """An xclbin built for K = 64 is returned for K = 128: it completes with garbage."""
    designs = DesignsOnDemand()
    geometry = find_geometry("whole-array", XDNA1)

    def wrong_design(cut):
        right = designs(cut)
        shape = ProductShape(1, cut.launch.m, 64, cut.launch.n)
        other = designs(plan(shape, geometry, XDNA1))
        return SimpleNamespace(
            manifest=right.manifest,
            xclbin=other.xclbin,
            instructions=right.instructions,
            instruction_count=right.instruction_count,
        )

    npu = backend(find=wrong_design)
    with pytest.raises(ProductFailed, match="canary product"):
        npu.linear(signed(100, 128), npu.prepare(signed(32, 128, seed=1), None))


def test_without_run_lists_the_products_are_the_same():
    a, b = signed(3, 70, 64), signed(3, 64, 50, seed=1)
    with_lists, without = backend(), backend(faults=emulated.Faults(no_runlist=True))
    assert with_lists._xrt.has_run_lists
    assert not without._xrt.has_run_lists
    assert torch.equal(with_lists.matmul(a, b), without.matmul(a, b))


def test_only_the_surface_of_the_real_bindings_is_used():
    """On a module with the names of the real bindings and no others, where any other attribute raises."""
    module = emulated.make(XDNA1)
    extra = set(vars(module)) - set(emulated.SURFACE) - {"emulation"}
    assert not {name for name in extra if not name.startswith("__")}
    del module.emulation
    npu = backend(module=module)
    assert_product(
        npu.matmul(signed(2, 70, 64), signed(2, 64, 50, seed=1)), signed(2, 70, 64), signed(2, 64, 50, seed=1)
    )


def test_the_device_is_opened_once_while_it_is_in_use():
    module = emulated.make(XDNA1)
    first = xrt.open_device(module)
    assert xrt.open_device(module) is first


def test_closing_frees_all_memory():
    module = emulated.make(XDNA1)
    npu = backend(module=module)
    prepared = npu.prepare(signed(32, 64), None)
    npu.linear(signed(10, 64), prepared)
    gone = weakref.ref(next(iter(prepared.tiles.values())))
    assert module.emulation.bytes_held > 0
    npu.close()
    del prepared
    gc.collect()
    assert gone() is None
    assert module.emulation.bytes_held == 0


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        (emulated.Faults(no_device=True), "XRT finds no NPU"),
        (emulated.Faults(no_permission=True), "may not open /dev/accel/accel0"),
    ],
)
def test_a_missing_device_and_a_missing_permission_name_the_remedy(faults, text):
    with pytest.raises(BackendUnavailable, match=text):
        backend(faults=faults)


def test_without_the_bindings_the_error_names_what_to_install():
    with pytest.raises(BackendUnavailable, match="install XRT"):
        xrt.import_module()


@pytest.mark.parametrize("text", ["hang", "hang:0", "hang:x", "lost:1,2", "fire:1", "contexts:1"])
def test_a_malformed_fault_raises(text):
    with pytest.raises(BackendUnavailable, match="expected hang:N"):
        parse_fault(text)


def test_only_the_emulated_device_accepts_faults():
    with pytest.raises(BackendUnavailable, match="--npu emulated"):
        XdnaBackend.create(Settings(npu="auto", npu_fault="hang:1"))


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("NPU Phoenix", XDNA1),
        ("RyzenAI-npu1", XDNA1),
        ("NPU Strix", XDNA2),
        ("RyzenAI-npu4", XDNA2),
        ("npu gorgon point 2", XDNA2),
    ],
)
def test_devices_are_found_by_their_xrt_names(name, device):
    assert device_called(name) is device


def test_every_published_xrt_name_is_a_device_or_refused(shared):
    facts = json.loads((shared / "npu" / "versions.json").read_text("utf-8"))
    devices = {"npu1": XDNA1, "npu2": XDNA2}
    for row in facts["devices"]:
        for name in row["xrt_names"]:
            if row["mlir_aie"]:
                assert device_called(name) is devices[row["mlir_aie"]]
            else:
                with pytest.raises(UnknownTarget, match=r"neither AIE2 nor AIE2P.*--npu emulated"):
                    device_called(name)


@pytest.mark.parametrize(
    ("name", "nearest", "device"),
    [("NPU Strix Halo 2", "NPU Strix Halo", "xdna2"), ("NPU Phoenix 2", "NPU Phoenix", "xdna1"), ("", "", "xdna")],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_the_way_to_continue(name, nearest, device):
    with pytest.raises(UnknownTarget, match=rf"nearest known name is '{nearest}.*--npu {device}"):
        device_called(name)


def test_a_device_with_an_unknown_name_is_used_as_chosen(monkeypatch):
    monkeypatch.setattr(xrt, "import_module", lambda: emulated.make(XDNA2))
    monkeypatch.setattr(xrt.Device, "name", "NPU of tomorrow", raising=False)
    with pytest.raises(UnknownTarget, match="NPU of tomorrow"):
        XdnaBackend.create(Settings(npu="auto"))
    backend = XdnaBackend.create(Settings(npu="xdna2"))
    assert backend.supports(ProductShape(1, 64, 64, 64)) is None
    assert not backend.label.endswith("(emulated)")
