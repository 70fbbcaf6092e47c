"""The emulated device: products against float64 and the bit-exact datapath, and every wrong number against both."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.array import Geometry, Tile
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values, fast_error_bound, matmul_exact
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.emulated.device import EmulatedDevice
from tilewhisper.kernels.xdna.emulated.program import DeviceFault, DeviceHang, Layout, Program, program_of
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.sequence import Descriptor, Instruction, Wait, encode, runtime_sequence
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan


def cut(m: int, k: int, n: int, name: str = "whole-array", device=XDNA1) -> TilePlan:
    return plan(ProductShape(1, m, k, n), find_geometry(name, device), device)


def narrow(columns: int, m: int) -> TilePlan:
    geometry = Geometry(f"{columns} columns", "", (XDNA1.name,), 4, columns, (Tile(64, 64, 32),))
    return plan(ProductShape(1, m, 128, 128), geometry, XDNA1)


def name_of(p: TilePlan) -> str:
    return f"{p.device.name} {p.geometry.name} {p.shape}"


@dataclass
class Launch:
    """Padded operands in bf16 bits, random and signed, and the buffers they lie in."""

    plan: TilePlan
    a: np.ndarray
    b: np.ndarray

    @classmethod
    def of(cls, p: TilePlan, seed: int = 0) -> "Launch":
        random = np.random.default_rng(seed)

        def bits(rows: int, columns: int, inside: tuple[int, int]) -> np.ndarray:
            values = np.zeros((rows, columns), np.float32)
            values[: inside[0], : inside[1]] = random.standard_normal((min(rows, inside[0]), min(columns, inside[1])))
            return bf16_bits(values, Rounding.NEAREST_EVEN)

        shape, launch = p.shape, p.launch
        return cls(p, bits(launch.m, launch.k, (shape.m, shape.k)), bits(launch.k, launch.n, (shape.k, shape.n)))

    def run(
        self, sequence: tuple[Instruction, ...] | None = None, program: Program | None = None, tier="fast", device=None
    ) -> np.ndarray:
        p = self.plan
        c = np.full((p.launch.m, p.launch.n), np.nan, np.float32)
        (device or EmulatedDevice(p.device, tier)).execute(
            program or program_of(p),
            encode(sequence or runtime_sequence(p)).tobytes(),
            *(matrix.reshape(-1).view(np.uint8) for matrix in (self.a, self.b, c)),
        )
        return c

    def float64(self) -> np.ndarray:
        return bf16_values(self.a).astype(np.float64) @ bf16_values(self.b).astype(np.float64)

    def wrong(self, *arguments) -> bool:
        """Whether the device stops, hangs, or gives another product."""
        try:
            c = self.run(*arguments)
        except (DeviceFault, DeviceHang):
            return True
        return not bool((abs(c - self.float64()) <= self.tolerance()).all())

    def tolerance(self) -> np.ndarray:
        """Of a float32 sum of K products against an exact one: (K + 1) 2^-24 of the terms' magnitudes."""
        magnitudes = abs(bf16_values(self.a)).astype(np.float64) @ abs(bf16_values(self.b)).astype(np.float64)
        return (self.plan.launch.k + 1) * 2.0**-24 * magnitudes


WHOLE = [
    cut(1500, 384, 384),
    cut(1500, 384, 1152),
    cut(1500, 64, 1500),
    cut(3001, 512, 512),
    cut(77, 1536, 384),
    cut(1500, 1280, 128),
    cut(1500, 384, 384, device=XDNA2),
    cut(1500, 384, 1152, device=XDNA2),
    cut(300, 512, 512, device=XDNA2),
    *(
        cut(1500, 512, 512, f"seed-{size}", device)
        for size in ("64x64", "64x512", "128x512")
        for device in (XDNA1, XDNA2)
    ),
    narrow(1, 200),
    narrow(2, 700),
]
SMALL = [
    cut(300, 128, 256),
    cut(200, 64, 384, device=XDNA2),
    *(cut(100, 512, 100, f"seed-{size}") for size in ("64x64", "64x512", "128x512")),
]


@pytest.mark.parametrize("p", WHOLE, ids=name_of)
def test_a_launch_is_the_product(p):
    launch = Launch.of(p)
    assert (abs(launch.run() - launch.float64()) <= launch.tolerance()).all()


def test_384_columns_take_tiles_of_48_on_8_columns():
    assert cut(1500, 384, 384, device=XDNA2).core == Tile(64, 64, 48)


@pytest.mark.parametrize("p", SMALL, ids=name_of)
def test_the_exact_tier_is_the_datapath_bit_for_bit_and_the_fast_one_within_its_bound(p):
    launch = Launch.of(p)
    exact, fast = launch.run(tier="exact"), launch.run(tier="fast")
    np.testing.assert_array_equal(exact.view(np.uint32), matmul_exact(launch.a, launch.b).view(np.uint32))
    assert (abs(exact.astype(np.float64) - fast) <= fast_error_bound(launch.a, launch.b)).all()
    assert (exact != fast).any(), "two tiers, or the test sees nothing"


def test_index_maps_are_kept_for_a_stream_and_not_for_another():
    p = cut(300, 128, 256)
    device = EmulatedDevice(XDNA1)
    first, second = Launch.of(p, 1), Launch.of(p, 2)
    for launch in (first, second, first):
        assert (abs(launch.run(device=device) - launch.float64()) <= launch.tolerance()).all()
    changed = tuple(
        replace(item, offset=item.offset + 32) if isinstance(item, Descriptor) and item.operand == "B" else item
        for item in runtime_sequence(p)[:-1]
    )
    with pytest.raises(DeviceFault):
        first.run(changed, device=device)
    assert not first.wrong(None, None)


# Every size of every descriptor but A's stride of 0 is above 1, so each number in it matters.
VICTIM = cut(1024, 128, 256)
ORIGINAL = runtime_sequence(VICTIM)
TURN = {"A": ORIGINAL[1], "B": ORIGINAL[2], "C": ORIGINAL[0]}


def mutants(d: Descriptor) -> Iterator[tuple[str, Descriptor]]:
    for step in (1, VICTIM.core.n, VICTIM.launch.n):
        yield f"offset + {step}", replace(d, offset=d.offset + step)
    for place in range(4):
        for step in (-1, 1):
            sizes = (*d.sizes[:place], d.sizes[place] + step, *d.sizes[place + 1 :])
            yield f"sizes[{place}] {step:+}", replace(d, sizes=sizes)
        for step in (-1, 1, d.strides[place]):
            if (stride := d.strides[place] + step) != d.strides[place] and stride >= 0:
                strides = (*d.strides[:place], stride, *d.strides[place + 1 :])
                yield f"strides[{place}] {step:+}", replace(d, strides=strides)
    for operand in "ABC":
        if operand != d.operand:
            yield f"operand {operand}", replace(d, operand=operand)
    yield "column", replace(d, column=d.column + 1)
    yield "no such column", replace(d, column=4)
    yield "direction", replace(d, direction="to array" if d.operand == "C" else "from array")
    yield "id taken", replace(d, id=3)
    yield "no such id", replace(d, id=16)


CASES = [(operand, what, mutant) for operand, d in TURN.items() for what, mutant in mutants(d)]


def test_every_field_of_a_descriptor_is_mutated():
    named = {what.split()[0].split("[")[0] for _, what, _ in CASES}
    assert named >= {field.name for field in fields(Descriptor)} - {"id"}
    assert not Launch.of(VICTIM).wrong(ORIGINAL)


@pytest.mark.parametrize(("operand", "mutant"), [(o, m) for o, _, m in CASES], ids=[f"{o} {w}" for o, w, _ in CASES])
def test_a_wrong_number_in_a_descriptor_is_a_wrong_product(operand, mutant):
    changed = tuple(mutant if item is TURN[operand] else item for item in ORIGINAL)
    assert changed != ORIGINAL
    assert Launch.of(VICTIM).wrong(changed)


def layout_mutants() -> Iterator[tuple[str, Program]]:
    program = program_of(VICTIM)
    for operand in "abc":
        layout = getattr(program, operand)
        for place in range(4):
            for what in ("sizes", "strides"):
                for step in (-1, 1):
                    numbers = getattr(layout, what)
                    if numbers[place] + step < 0:
                        continue
                    changed = (*numbers[:place], numbers[place] + step, *numbers[place + 1 :])
                    mutant = replace(program, **{operand: replace(layout, **{what: changed})})
                    yield f"{operand} {what}[{place}] {step:+}", mutant
        plain = Layout((1, 1, 1, int(np.prod(layout.sizes))), (0, 0, 0, 1))
        yield f"{operand} not cut at all", replace(program, **{operand: plain})


LAYOUTS = list(layout_mutants())


@pytest.mark.parametrize("program", [p for _, p in LAYOUTS], ids=[what for what, _ in LAYOUTS])
def test_a_wrong_number_in_a_layout_is_a_wrong_product(program):
    assert Launch.of(VICTIM).wrong(ORIGINAL, program)


def test_a_binary_of_smaller_k_completes_with_garbage():
    launch = Launch.of(VICTIM)
    c = launch.run(program=program_of(cut(1024, 64, 256)))
    assert np.isfinite(c).all()
    assert (abs(c - launch.float64()) > 100 * launch.tolerance()).mean() > 0.5


def test_a_binary_of_larger_k_waits_for_data_that_never_comes():
    with pytest.raises(DeviceHang, match="A and B arrived for fewer"):
        Launch.of(VICTIM).run(program=program_of(cut(1024, 256, 256)))


def test_a_missing_transfer_hangs():
    without_b = tuple(item for item in ORIGINAL if item is not TURN["B"])
    with pytest.raises(DeviceHang):
        Launch.of(VICTIM).run(without_b)


def test_results_nobody_waits_for_do_not_arrive():
    *early, last = ORIGINAL
    assert last == Wait(3, "C")
    c = Launch.of(VICTIM).run(tuple(early))
    late = np.isnan(c)
    assert late.any()
    assert set(np.nonzero(late)[1] // 32 % 4) == {3}


def test_a_wait_for_nothing_hangs():
    with pytest.raises(DeviceHang, match="without a transfer"):
        Launch.of(VICTIM).run((*ORIGINAL, Wait(0, "C")))


def test_waits_that_come_too_late_leave_descriptors_taken():
    waits = [item for item in ORIGINAL if isinstance(item, Wait)]
    late = (*(item for item in runtime_sequence(cut(1500, 64, 128)) if isinstance(item, Descriptor)), *waits)
    with pytest.raises(DeviceFault, match="is in use or does not exist"):
        Launch.of(cut(1500, 64, 128)).run(late)


@pytest.mark.parametrize("operand", ["A", "B", "C"])
def test_a_buffer_too_small_is_a_fault(operand):
    launch = Launch.of(VICTIM)
    c = np.zeros(VICTIM.launch.m * VICTIM.launch.n, np.float32)
    buffers = {"A": launch.a, "B": launch.b, "C": c}
    as_bytes = {name: buffer.reshape(-1).view(np.uint8) for name, buffer in buffers.items()}
    as_bytes[operand] = as_bytes[operand][:-4]
    with pytest.raises(DeviceFault, match=f"of {operand} is outside"):
        EmulatedDevice(XDNA1).execute(program_of(VICTIM), encode(ORIGINAL).tobytes(), *as_bytes.values())


def test_a_stream_cut_off_hangs():
    launch = Launch.of(VICTIM)
    c = np.zeros(VICTIM.launch.m * VICTIM.launch.n, np.float32)
    buffers = [buffer.reshape(-1).view(np.uint8) for buffer in (launch.a, launch.b, c)]
    with pytest.raises(DeviceHang):
        EmulatedDevice(XDNA1).execute(program_of(VICTIM), encode(ORIGINAL).tobytes()[:400], *buffers)
