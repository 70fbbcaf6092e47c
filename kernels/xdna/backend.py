"""The NPU as a backend: tiled bf16 products with float32 sums on AMD's XDNA array.

A product is cut by `tiling.plan`; the host fills the tiles of A, starts the calls, and adds up the tiles of C. Weights
are transposed, padded, rounded and uploaded once, in `prepare`. Buffers and bound runs belong to a plan and are used
again by every call, so that a call allocates nothing on the device.

A design is proved on its first use by a product of known result, because an xclbin that was built for another K ends
well and returns garbage. After a failed call the context is rebuilt once and the call made again; if that fails too,
the design is given up for the rest of this backend's life, and every later call says so at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilewhisper.kernels.base import Backend, BackendUnavailable, ProductFailed, ProductShape, Settings, Usage
from tilewhisper.kernels.xdna import artifacts, xrt
from tilewhisper.kernels.xdna.artifacts import Artifact
from tilewhisper.kernels.xdna.geometries import XDNA1, device_called, find_geometry
from tilewhisper.kernels.xdna.probe import probe
from tilewhisper.kernels.xdna.tiling import Design, Device, Geometry, TilePlan, host_calls, plan, why_not

GEOMETRY = "whole-array"
KERNELS_FOLDER = Path("~/.cache/tilewhisper/kernels").expanduser()

TIMEOUT_MS = 10_000
"""Far above any product (the largest of large-v3 is predicted at 30 ms) and above the driver's own recovery (2 s)."""

CANARY_ROWS = 4
CANARY_BOUND = 2.0**-12
"""Of the sum of |a| |b|: float32 sums of K = 5120 steps stay below K 2^-24 = 2^-11.7 even when every rounding errs the
same way, and random signed data far below it; a wrong design is wrong by about 1."""

Bits = npt.NDArray[np.uint16]
Place = tuple[int, int, int]
"""Of a tile of A: batch, row, depth. Of B: batch, depth, column. Of C: batch, row, column (a buffer a depth)."""

_serial = itertools.count()


@dataclass(frozen=True)
class Prepared:
    """A weight on the device as tiles of B, for any number of rows."""

    k: int
    n: int
    tiles: Mapping[Place, xrt.Buffer]
    bias: Tensor | None
    """(n,) float32; the host adds it."""
    key: int = field(default_factory=lambda: next(_serial))


class LoadedDesign:
    """One design on the device, with the runs bound to it, from the first load to giving it up."""

    def __init__(self, device: xrt.Device, artifact: Artifact) -> None:
        self._device = device
        self._xclbin, self._kernel = artifact.xclbin, artifact.manifest.kernel
        self._runs: dict[Hashable, list[Any]] = {}
        self._given_up: str | None = None
        self.proved: set[Hashable] = set()
        """Launches whose canary came out right."""
        self.context = xrt.Context(device, self._xclbin, self._kernel)

    def execute(self, key: Hashable, bind: Callable[[], list[Any]], timeout_ms: int) -> float:
        """Run what `bind` makes (once for `key`): seconds on the device. Raises ProductFailed."""
        if self._given_up:
            raise ProductFailed(self._given_up)
        try:
            return self._execute(key, bind, timeout_ms)
        except ProductFailed as first:
            try:
                self._rebuild()
                return self._execute(key, bind, timeout_ms)
            except (ProductFailed, BackendUnavailable) as second:
                self._given_up = f"{second} (given up after a rebuild; first: {first})"
                raise ProductFailed(self._given_up) from second

    def _execute(self, key: Hashable, bind: Callable[[], list[Any]], timeout_ms: int) -> float:
        if key not in self._runs:
            self._runs[key] = bind()
        return self.context.execute(self._runs[key], timeout_ms)

    def _rebuild(self) -> None:
        self._runs.clear()
        self.context.close()
        self.context = xrt.Context(self._device, self._xclbin, self._kernel)

    def close(self) -> None:
        self._runs.clear()
        self.context.close()


class XdnaBackend(Backend):
    """Products on one NPU. `find` gives the built design and instructions of a plan, or raises BackendUnavailable."""

    name = "npu"
    summary = "bf16 tiles with float32 sums on AMD's XDNA array, through pyxrt"
    on_device = True

    @classmethod
    def why_unavailable(cls, settings: Settings) -> str | None:
        return None if settings.npu == "emulated" else probe().why_unusable

    @classmethod
    def create(cls, settings: Settings) -> XdnaBackend:
        if settings.npu == "emulated":
            return _emulated(cls, settings)
        if settings.npu_fault:
            raise BackendUnavailable("faults can be injected into the emulated NPU only: add --npu emulated")
        opened = xrt.open_device(xrt.import_module())
        device = device_called(opened.name)
        folder = Path(settings.npu_kernels).expanduser() if settings.npu_kernels else KERNELS_FOLDER
        find = partial(artifacts.find, folder, target="hardware")
        return cls(opened, device, find_geometry(GEOMETRY, device), find, emulated=False)

    def __init__(
        self,
        opened: xrt.Device,
        device: Device,
        geometry: Geometry,
        find: Callable[[TilePlan], Artifact],
        *,
        emulated: bool,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        self._xrt = opened
        self._device, self._geometry, self._find = device, geometry, find
        self._timeout_ms = timeout_ms
        self._designs: dict[Design, LoadedDesign] = {}
        self._scratch: dict[Hashable, dict[Place, xrt.Buffer]] = {}
        self._usage = Usage()
        self._emulated = emulated

    @property
    def label(self) -> str:
        return "npu (emulated)" if self._emulated else "npu"

    @property
    def usage(self) -> Usage:
        return self._usage

    def supports(self, shape: ProductShape) -> str | None:
        return why_not(shape, self._geometry, self._device)

    def prepare(self, weight: Tensor, bias: Tensor | None) -> Prepared:
        n, k = weight.shape
        # How B is cut depends on k and n alone, so one row stands for any number.
        cut = self._plan(1, 1, k, n)
        return Prepared(k, n, self._upload_b(cut, _bits(weight.T)[None], fresh=True), bias)

    def linear(self, x: Tensor, prepared: Prepared) -> Tensor:
        rows = x.reshape(-1, *x.shape[-2:]) if x.dim() > 1 else x[None, None]
        cut = self._plan(1, rows.shape[1], prepared.k, prepared.n)
        y = torch.stack([self._product(cut, _bits(one)[None], prepared.tiles, prepared.key)[0] for one in rows])
        if prepared.bias is not None:
            y += prepared.bias
        return y.reshape(*x.shape[:-1], prepared.n)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        batch = a.shape[:-2]
        a, b = a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])
        cut = self._plan(len(a), a.shape[1], a.shape[2], b.shape[2])
        y = self._product(cut, _bits(a), self._upload_b(cut, _bits(b), fresh=False), "matmul")
        return y.reshape(*batch, *y.shape[-2:])

    def close(self) -> None:
        for design in self._designs.values():
            design.close()
        self._designs.clear()
        self._scratch.clear()

    def _product(self, cut: TilePlan, a: Bits, b_tiles: Mapping[Place, xrt.Buffer], key: Hashable) -> Tensor:
        """a (batch, m, k) times tiles of B: (batch, m, n). `key` says whose tiles they are."""
        design = self._design(cut)
        if (launch := (cut.launch.m, cut.launch.n)) not in design.proved:
            self._prove(cut, b_tiles, key)
            design.proved.add(launch)
        y, seconds = self._run(cut, a, b_tiles, key)
        self._usage = Usage(self._usage.calls + cut.calls, self._usage.device_seconds + seconds)
        return torch.from_numpy(y)

    def _run(
        self, cut: TilePlan, a: Bits, b_tiles: Mapping[Place, xrt.Buffer], key: Hashable
    ) -> tuple[npt.NDArray[np.float32], float]:
        """The product and the seconds it took on the device."""
        design, calls = self._design(cut), list(host_calls(cut))
        a_tiles, c_tiles = self._a_tiles(cut), self._c_tiles(cut)
        _fill(a_tiles, a, (cut.launch.m, cut.launch.k))

        def bind() -> list[Any]:
            artifact = self._find(cut)
            return [
                design.context.bind(
                    artifact,
                    a_tiles[call.batch, call.row, call.depth],
                    b_tiles[call.batch, call.depth, call.column],
                    c_tiles[call.batch * cut.grid.depth + call.depth, call.row, call.column],
                )
                for call in calls
            ]

        seconds = design.execute((key, cut), bind, self._timeout_ms)
        return _gather(c_tiles, cut), seconds

    def _prove(self, cut: TilePlan, b_tiles: Mapping[Place, xrt.Buffer], key: Hashable) -> None:
        """A product of random signed numbers, a few of whose rows are known. Raises ProductFailed."""
        shape = cut.shape
        numbers = np.random.default_rng(0).standard_normal((shape.batch, shape.m, shape.k), dtype=np.float32)
        a = _bits(torch.from_numpy(numbers))
        rows = np.linspace(0, shape.m - 1, min(CANARY_ROWS, shape.m), dtype=int)
        found = self._run(cut, a, b_tiles, key)[0][:, rows].astype(np.float64)
        b = _join(b_tiles, cut)
        chosen = _values(a[:, rows])
        expected, magnitude = chosen @ b, np.abs(chosen) @ np.abs(b)
        error = np.abs(found - expected) - CANARY_BOUND * magnitude
        if not (error <= 0).all():
            raise ProductFailed(
                f"the canary product {shape} came out wrong: the design was built for another size or is broken; "
                "build it anew with scripts/build_kernels.py"
            )

    def _plan(self, batch: int, m: int, k: int, n: int) -> TilePlan:
        return plan(ProductShape(batch, m, k, n), self._geometry, self._device)

    def _design(self, cut: TilePlan) -> LoadedDesign:
        if cut.design not in self._designs:
            self._designs[cut.design] = LoadedDesign(self._xrt, self._find(cut))
        return self._designs[cut.design]

    def _a_tiles(self, cut: TilePlan) -> dict[Place, xrt.Buffer]:
        places = itertools.product(range(cut.shape.batch), range(cut.grid.rows), range(cut.grid.depth))
        return self._buffers("a", cut, places, np.uint16, (cut.launch.m, cut.launch.k))

    def _c_tiles(self, cut: TilePlan) -> dict[Place, xrt.Buffer]:
        places = itertools.product(
            range(cut.shape.batch * cut.grid.depth), range(cut.grid.rows), range(cut.grid.columns)
        )
        return self._buffers("c", cut, places, np.float32, (cut.launch.m, cut.launch.n))

    def _upload_b(self, cut: TilePlan, b: Bits, *, fresh: bool) -> dict[Place, xrt.Buffer]:
        """b (batch, k, n) as tiles on the device: in buffers of its own, or in those of the plan."""
        places = itertools.product(range(cut.shape.batch), range(cut.grid.depth), range(cut.grid.columns))
        shape = (cut.launch.k, cut.launch.n)
        make = self._make_buffers if fresh else self._buffers
        tiles = make("b", cut, places, np.uint16, shape)
        _fill(tiles, b, shape)
        return tiles

    def _buffers(
        self, kind: str, cut: TilePlan, places: Iterator[Place], dtype: npt.DTypeLike, shape: tuple[int, int]
    ) -> dict[Place, xrt.Buffer]:
        """The buffers that all products of a plan share: made once."""
        if (kind, cut) not in self._scratch:
            self._scratch[kind, cut] = self._make_buffers(kind, cut, places, dtype, shape)
        return self._scratch[kind, cut]

    def _make_buffers(
        self, kind: str, cut: TilePlan, places: Iterator[Place], dtype: npt.DTypeLike, shape: tuple[int, int]
    ) -> dict[Place, xrt.Buffer]:
        group = self._design(cut).context.group("abc".index(kind))
        return {place: xrt.Buffer(self._xrt, group, dtype, shape) for place in places}


def _emulated(cls: type[XdnaBackend], settings: Settings) -> XdnaBackend:
    """The same backend before an emulated XDNA1, with designs for it built as they are asked for."""
    from tilewhisper.kernels.xdna.emulated import pyxrt
    from tilewhisper.kernels.xdna.emulated.on_demand import DesignsOnDemand, parse_fault

    opened = xrt.open_device(pyxrt.make(XDNA1, faults=parse_fault(settings.npu_fault)))
    return cls(opened, XDNA1, find_geometry(GEOMETRY, XDNA1), DesignsOnDemand(), emulated=True)


def _fill(tiles: Mapping[Place, xrt.Buffer], data: Bits, shape: tuple[int, int]) -> None:
    """data (batch, rows, columns) into its tiles and on to the device; what sticks out of it stays zero."""
    height, width = shape
    for (batch, i, j), buffer in tiles.items():
        block = data[batch, i * height : (i + 1) * height, j * width : (j + 1) * width]
        buffer.array[: block.shape[0], : block.shape[1]] = block
        buffer.to_device()


def _gather(tiles: Mapping[Place, xrt.Buffer], cut: TilePlan) -> npt.NDArray[np.float32]:
    """Tiles of C, summed over depth: (batch, m, n), a copy."""
    height, width = cut.launch.m, cut.launch.n
    whole = np.zeros((cut.shape.batch, cut.padded.m, cut.padded.n), dtype=np.float32)
    for (layer, i, j), buffer in tiles.items():
        buffer.from_device()
        whole[layer // cut.grid.depth, i * height : (i + 1) * height, j * width : (j + 1) * width] += buffer.array
    return np.ascontiguousarray(whole[:, : cut.shape.m, : cut.shape.n])


def _join(tiles: Mapping[Place, xrt.Buffer], cut: TilePlan) -> npt.NDArray[np.float64]:
    """Tiles of B as they lie in the host's memory: (batch, k, n)."""
    height, width = cut.launch.k, cut.launch.n
    whole = np.zeros((cut.shape.batch, cut.padded.k, cut.padded.n))
    for (batch, i, j), buffer in tiles.items():
        whole[batch, i * height : (i + 1) * height, j * width : (j + 1) * width] = _values(buffer.array)
    return whole[:, : cut.shape.k, : cut.shape.n]


def _bits(x: Tensor) -> Bits:
    """The bf16 nearest to each element, as bits: bf16 has no format in the buffer protocol."""
    rounded: npt.NDArray[Any] = x.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
    return rounded.view(np.uint16)


def _values(bits: Bits) -> npt.NDArray[np.float64]:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
