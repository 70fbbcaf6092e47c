"""The emulated device: products against float64 and the bit-exact datapath, and the effect of every wrong number."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from tilewhisper.kernels.base import BackendUnavailable, ProductShape
from tilewhisper.kernels.cpu.compiler import find_compiler
from tilewhisper.kernels.xdna.array import Geometry, Tile
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values, fast_error_bound, matmul_exact
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.emulated.device import EmulatedDevice
from tilewhisper.kernels.xdna.emulated.program import DeviceFault, DeviceHang, Layout, ProductProgram, program_of
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
    """Padded operands as bf16 bits, random and signed, and their buffers."""

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
        self,
        sequence: tuple[Instruction, ...] | None = None,
        program: ProductProgram | None = None,
        tier="fast",
        device=None,
    ) -> np.ndarray:
        p, buffers = self.plan, self.buffers()
        (device or EmulatedDevice(p.device, tier)).execute(
            program or program_of(p), encode(sequence or runtime_sequence(p)).tobytes(), *buffers.values()
        )
        return buffers["C"].view(np.float32).reshape(p.launch.m, p.launch.n)

    def buffers(self) -> dict[str, np.ndarray]:
        """The bytes of A, B and a C full of NaN."""
        c = np.full((self.plan.launch.m, self.plan.launch.n), np.nan, np.float32)
        return {name: x.reshape(-1).view(np.uint8) for name, x in zip("ABC", (self.a, self.b, c), strict=True)}

    def float64(self) -> np.ndarray:
        return bf16_values(self.a).astype(np.float64) @ bf16_values(self.b).astype(np.float64)

    def wrong(self, *arguments) -> bool:
        """Whether the device stops, hangs, or computes another product."""
        try:
            c = self.run(*arguments)
        except (DeviceFault, DeviceHang):
            return True
        return not bool((abs(c - self.float64()) <= self.tolerance()).all())

    def tolerance(self) -> np.ndarray:
        """The error of a float32 sum of K products: (K + 1) 2^-24 of the terms' magnitudes."""
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
def test_a_launch_computes_the_product(p):
    launch = Launch.of(p)
    assert (abs(launch.run() - launch.float64()) <= launch.tolerance()).all()


def compiler_or_skip():
    try:
        find_compiler()
    except BackendUnavailable as missing:
        pytest.skip(str(missing))


def cores_of(device):
    """AIE2P's unit is not known, so the model of it that the micro-kernels use differs from numpy's."""
    return ("numpy",) if device is XDNA2 else ("compiled", "numpy")


@pytest.mark.parametrize(
    ("p", "cores"),
    [(p, cores) for p in SMALL for cores in cores_of(p.device)],
    ids=lambda x: x if isinstance(x, str) else name_of(x),
)
def test_the_exact_tier_equals_the_datapath_and_the_fast_tier_stays_within_its_bound(p, cores):
    if cores == "compiled":
        compiler_or_skip()
    launch = Launch.of(p)
    exact, fast = (launch.run(device=EmulatedDevice(p.device, tier, cores)) for tier in ("exact", "fast"))
    np.testing.assert_array_equal(exact.view(np.uint32), matmul_exact(launch.a, launch.b).view(np.uint32))
    assert (abs(exact.astype(np.float64) - fast) <= fast_error_bound(launch.a, launch.b)).all()
    assert (exact != fast).any(), "the tiers must differ, or the test compares nothing"


def test_cached_index_maps_belong_to_their_stream():
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


# Every size of every descriptor is above 1 (except where A has stride 0), so each number has an effect.
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
    yield "unknown column", replace(d, column=4)
    yield "direction", replace(d, direction="to array" if d.operand == "C" else "from array")
    yield "id taken", replace(d, id=3)
    yield "unknown id", replace(d, id=16)


CASES = [(operand, change, mutant) for operand, d in TURN.items() for change, mutant in mutants(d)]


def test_every_field_of_a_descriptor_is_mutated():
    named = {change.split()[0].split("[")[0] for _, change, _ in CASES}
    assert named >= {field.name for field in fields(Descriptor)} - {"id"}
    assert not Launch.of(VICTIM).wrong(ORIGINAL)


@pytest.mark.parametrize(("operand", "mutant"), [(o, m) for o, _, m in CASES], ids=[f"{o} {w}" for o, w, _ in CASES])
def test_a_wrong_number_in_a_descriptor_is_a_wrong_product(operand, mutant):
    changed = tuple(mutant if item is TURN[operand] else item for item in ORIGINAL)
    assert changed != ORIGINAL
    assert Launch.of(VICTIM).wrong(changed)


def layout_mutants() -> Iterator[tuple[str, ProductProgram]]:
    program = program_of(VICTIM)
    for operand in "abc":
        layout = getattr(program, operand)
        for place in range(4):
            for field_name in ("sizes", "strides"):
                for step in (-1, 1):
                    numbers = getattr(layout, field_name)
                    if numbers[place] + step < 0:
                        continue
                    changed = (*numbers[:place], numbers[place] + step, *numbers[place + 1 :])
                    mutant = replace(program, **{operand: replace(layout, **{field_name: changed})})
                    yield f"{operand} {field_name}[{place}] {step:+}", mutant
        plain = Layout((1, 1, 1, int(np.prod(layout.sizes))), (0, 0, 0, 1))
        yield f"{operand} not cut at all", replace(program, **{operand: plain})


LAYOUTS = list(layout_mutants())


@pytest.mark.parametrize("program", [p for _, p in LAYOUTS], ids=[change for change, _ in LAYOUTS])
def test_a_wrong_number_in_a_layout_is_a_wrong_product(program):
    assert Launch.of(VICTIM).wrong(ORIGINAL, program)


def test_a_binary_of_smaller_k_completes_with_garbage():
    launch = Launch.of(VICTIM)
    c = launch.run(program=program_of(cut(1024, 64, 256)))
    assert np.isfinite(c).all()
    assert (abs(c - launch.float64()) > 100 * launch.tolerance()).mean() > 0.5


def test_a_binary_of_larger_k_waits_for_data_that_never_arrives():
    with pytest.raises(DeviceHang, match="A and B arrived for fewer"):
        Launch.of(VICTIM).run(program=program_of(cut(1024, 256, 256)))


def test_a_missing_transfer_hangs():
    without_b = tuple(item for item in ORIGINAL if item is not TURN["B"])
    with pytest.raises(DeviceHang):
        Launch.of(VICTIM).run(without_b)


def test_results_without_a_wait_do_not_arrive():
    *early, last = ORIGINAL
    assert last == Wait(3, "C")
    c = Launch.of(VICTIM).run(tuple(early))
    late = np.isnan(c)
    assert late.any()
    assert set(np.nonzero(late)[1] // 32 % 4) == {3}


def test_a_wait_without_a_transfer_hangs():
    with pytest.raises(DeviceHang, match="without a transfer"):
        Launch.of(VICTIM).run((*ORIGINAL, Wait(0, "C")))


def test_late_waits_leave_descriptors_in_use():
    waits = [item for item in ORIGINAL if isinstance(item, Wait)]
    late = (*(item for item in runtime_sequence(cut(1500, 64, 128)) if isinstance(item, Descriptor)), *waits)
    with pytest.raises(DeviceFault, match="is in use or does not exist"):
        Launch.of(cut(1500, 64, 128)).run(late)


def test_a_fifth_transfer_in_a_queue_is_lost():
    """A third turn in descriptors of its own, before the wait for the first."""
    p = cut(1500, 64, 128)
    sequence, columns = runtime_sequence(p), p.geometry.columns
    first = next(i for i, item in enumerate(sequence) if isinstance(item, Wait))
    unused = {0: 5, 1: 6, 2: 7, 3: 13, 4: 14}
    waits, rest = sequence[first : first + columns], sequence[first + columns :]
    third = [replace(item, id=unused[item.id]) if isinstance(item, Descriptor) else item for item in rest]
    with pytest.raises(DeviceHang, match=r"A in descriptor 6 of column 0 was lost.*already held 4"):
        Launch.of(p).run((*sequence[:first], *third, *waits))
    Launch.of(p).run((*sequence[:first], *waits, *third))


@pytest.mark.parametrize("operand", ["A", "B", "C"])
def test_a_buffer_too_small_is_a_fault(operand):
    buffers = Launch.of(VICTIM).buffers()
    buffers[operand] = buffers[operand][:-4]
    with pytest.raises(DeviceFault, match=f"of {operand} is outside"):
        EmulatedDevice(XDNA1).execute(program_of(VICTIM), encode(ORIGINAL).tobytes(), *buffers.values())


def test_a_truncated_stream_hangs():
    buffers = Launch.of(VICTIM).buffers()
    with pytest.raises(DeviceHang):
        EmulatedDevice(XDNA1).execute(program_of(VICTIM), encode(ORIGINAL).tobytes()[:400], *buffers.values())
