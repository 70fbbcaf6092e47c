"""The NPU as a backend: tiled bf16 products with float32 sums on AMD's XDNA array.

`tiling.plan` cuts a product; the host fills the tiles of A, starts the calls, and sums the tiles of C. Weights are
transposed, padded, rounded and uploaded once, in `prepare`. Buffers and bound runs belong to a plan and are reused by
every call, so that a call allocates nothing on the device. Each launch of a design is verified with a canary product
before its first use (`loaded_design`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilewhisper.kernels.base import Backend, ProductShape, Settings, Usage
from tilewhisper.kernels.xdna import xrt
from tilewhisper.kernels.xdna.array import Device, Geometry
from tilewhisper.kernels.xdna.artifacts import Artifact
from tilewhisper.kernels.xdna.buffers import (
    Bits,
    Place,
    Tiles,
    bits,
    fill,
    gather,
    join,
    places_of_a,
    places_of_b,
    places_of_c,
)
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.host_calls import host_calls
from tilewhisper.kernels.xdna.loaded_design import LoadedDesign, canary_operand, check_canary
from tilewhisper.kernels.xdna.opening import open_npu
from tilewhisper.kernels.xdna.probe import probe
from tilewhisper.kernels.xdna.sequence import AnyDesign, Plan
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan, why_not

GEOMETRY = "whole-array"

TIMEOUT_MS = 10_000
"""Far above any product (the largest of large-v3 is predicted at 30 ms) and above the driver's own recovery (2 s)."""

_serial = itertools.count()


@dataclass(frozen=True)
class Prepared:
    """A weight on the device as tiles of B, for any number of rows."""

    k: int
    n: int
    tiles: Tiles
    bias: Tensor | None
    """(n,) float32; the host adds it."""
    key: int = field(default_factory=lambda: next(_serial))
    """Identifies the weight among the bound runs."""


class XdnaBackend(Backend):
    """Products on one NPU. `find` returns the built design of a plan, or raises BackendUnavailable."""

    name = "npu"
    summary = "bf16 tiles with float32 sums on AMD's XDNA array, through pyxrt"
    on_device = True

    @classmethod
    def why_unavailable(cls, settings: Settings) -> str | None:
        return None if settings.npu == "emulated" else probe().why_unusable

    @classmethod
    def create(cls, settings: Settings) -> XdnaBackend:
        npu = open_npu(settings)
        geometry = find_geometry(GEOMETRY, npu.device)
        return cls(npu.opened, npu.device, geometry, npu.find, emulated=npu.emulated)

    def __init__(
        self,
        opened: xrt.Device,
        device: Device,
        geometry: Geometry,
        find: Callable[[Plan], Artifact],
        *,
        emulated: bool,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        self._xrt = opened
        self._device, self._geometry, self._find = device, geometry, find
        self._timeout_ms = timeout_ms
        self._designs: dict[AnyDesign, LoadedDesign] = {}
        self._artifacts: dict[tuple[AnyDesign, str], Artifact] = {}
        self._scratch: dict[Hashable, dict[Place, xrt.Buffer]] = {}
        self._usage = Usage()
        self._emulated = emulated

    @property
    def label(self) -> str:
        return f"{self.name} (emulated)" if self._emulated else self.name

    @property
    def usage(self) -> Usage:
        return self._usage

    def supports(self, shape: ProductShape) -> str | None:
        return why_not(shape, self._geometry, self._device)

    def prepare(self, weight: Tensor, bias: Tensor | None) -> Prepared:
        n, k = weight.shape
        # The tiles of B depend on k and n only, so a plan for one row serves any number of rows.
        cut = self._plan(1, 1, k, n)
        return Prepared(k, n, self._upload_b(cut, bits(weight.T)[None], fresh=True), bias)

    def linear(self, x: Tensor, prepared: Prepared) -> Tensor:
        rows = x.reshape(-1, *x.shape[-2:]) if x.dim() > 1 else x[None, None]
        cut = self._plan(1, rows.shape[1], prepared.k, prepared.n)
        y = torch.stack([self._product(cut, bits(each)[None], prepared.tiles, prepared.key)[0] for each in rows])
        if prepared.bias is not None:
            y += prepared.bias
        return y.reshape(*x.shape[:-1], prepared.n)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        batch = a.shape[:-2]
        a, b = a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])
        cut = self._plan(len(a), a.shape[1], a.shape[2], b.shape[2])
        y = self._product(cut, bits(a), self._upload_b(cut, bits(b), fresh=False), "matmul")
        return y.reshape(*batch, *y.shape[-2:])

    def close(self) -> None:
        for design in self._designs.values():
            design.close()
        self._designs.clear()
        self._artifacts.clear()
        self._scratch.clear()

    def _product(self, cut: TilePlan, a: Bits, b_tiles: Tiles, key: Hashable) -> Tensor:
        """a (batch, m, k) times tiles of B: (batch, m, n). `key` identifies the tiles of B among the bound runs."""
        design = self._design(cut)
        if (launch := (cut.launch.m, cut.launch.n)) not in design.verified:
            canary = canary_operand(cut.shape)
            found, _ = self._run(cut, canary, b_tiles, key)
            check_canary(cut.shape, found, canary, join(b_tiles, cut))
            design.verified.add(launch)
        before = design.started
        y, seconds = self._run(cut, a, b_tiles, key)
        self._usage += Usage(design.started - before, cut.calls, 1, seconds)
        return torch.from_numpy(y)

    def _run(self, cut: TilePlan, a: Bits, b_tiles: Tiles, key: Hashable) -> tuple[npt.NDArray[np.float32], float]:
        """The product and the seconds it took on the device."""
        design, calls = self._design(cut), list(host_calls(cut))
        a_tiles, c_tiles = self._a_tiles(cut), self._c_tiles(cut)
        fill(a_tiles, a, (cut.launch.m, cut.launch.k))

        def bind() -> list[Any]:
            artifact = self._artifact(cut)
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
        return gather(c_tiles, cut), seconds

    def _plan(self, batch: int, m: int, k: int, n: int) -> TilePlan:
        return plan(ProductShape(batch, m, k, n), self._geometry, self._device)

    def _design(self, plan: Plan) -> LoadedDesign:
        if plan.design not in self._designs:
            self._designs[plan.design] = LoadedDesign(self._xrt, self._artifact(plan))
        return self._designs[plan.design]

    def _artifact(self, plan: Plan) -> Artifact:
        """The built design of a launch; its files are checked once."""
        key = (plan.design, plan.title)
        if key not in self._artifacts:
            self._artifacts[key] = self._find(plan)
        return self._artifacts[key]

    def _a_tiles(self, cut: TilePlan) -> dict[Place, xrt.Buffer]:
        return self._buffers("a", cut, places_of_a(cut), np.uint16, (cut.launch.m, cut.launch.k))

    def _c_tiles(self, cut: TilePlan) -> dict[Place, xrt.Buffer]:
        return self._buffers("c", cut, places_of_c(cut), np.float32, (cut.launch.m, cut.launch.n))

    def _upload_b(self, cut: TilePlan, b: Bits, *, fresh: bool) -> dict[Place, xrt.Buffer]:
        """b (batch, k, n) as tiles on the device: in new buffers if `fresh`, else in the plan's shared buffers."""
        shape = (cut.launch.k, cut.launch.n)
        make = self._make_buffers if fresh else self._buffers
        tiles = make("b", cut, places_of_b(cut), np.uint16, shape)
        fill(tiles, b, shape)
        return tiles

    def _buffers(
        self, kind: str, cut: TilePlan, places: Iterable[Place], dtype: npt.DTypeLike, shape: tuple[int, int]
    ) -> dict[Place, xrt.Buffer]:
        """The buffers that all products of a plan share, made once."""
        if (kind, cut) not in self._scratch:
            self._scratch[kind, cut] = self._make_buffers(kind, cut, places, dtype, shape)
        return self._scratch[kind, cut]

    def _make_buffers(
        self, kind: str, cut: TilePlan, places: Iterable[Place], dtype: npt.DTypeLike, shape: tuple[int, int]
    ) -> dict[Place, xrt.Buffer]:
        group = self._design(cut).context.group("abc".index(kind))
        return {place: xrt.Buffer(self._xrt, group, dtype, shape) for place in places}
