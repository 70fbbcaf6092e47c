"""The micro-kernels, compiled for this machine against our model of aie_api (`include/aie_api`).

A library has the functions of one device and core tile, or row width, in one of two tiers:

- exact: the multiply-accumulate unit of AIE2 bit for bit; loads and stores outside the objects, or misaligned, are
  errors. AIE2P's unit is not known bit for bit: its sums are float32 in both tiers.
- fast: float32 sums in the host's order, and no checks

It is compiled on first use and kept for the user. Objects are numpy arrays in the order in which a memory tile sends
them (see ../microkernels/README.md), bf16 as uint16 bits. All functions release the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import compiler as cxx
from tilewhisper.kernels.library_cache import LibraryCache
from tilewhisper.kernels.user_cache import user_cache
from tilewhisper.kernels.xdna import microkernels
from tilewhisper.kernels.xdna.array import Tile

Array = npt.NDArray[Any]

CACHE = LibraryCache(user_cache("microkernels"), "microkernels", "the NPU's micro-kernels", limit=32)
_MODEL = Path(__file__).parent
_ARCHITECTURES = {"xdna1": 20, "xdna2": 21}
_FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC", "-Wno-psabi", f"-I{_MODEL / 'include'}")
_EXACT = ("-ffp-contract=off", "-DMODEL_EXACT", "-DMODEL_CHECKED")
_ALIGNMENT = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Build:
    """What a library is compiled from."""

    device: str
    functions: tuple[str, ...]
    macros: tuple[str, ...]
    exact: bool
    sources: Path = microkernels.SOURCES
    extra_flags: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        tier = _EXACT if self.exact else ()
        architecture = f"-D__AIE_ARCH__={_ARCHITECTURES[self.device]}"
        return (*_FLAGS, *tier, architecture, *self.macros, *self.extra_flags)

    def stem(self, compiler: cxx.Compiler) -> str:
        digest = hashlib.sha256(repr((self.flags, self.functions, compiler, cxx.this_processor(compiler))).encode())
        headers = (*self.sources.glob("*.h"), *(_MODEL / "include").rglob("*.hpp"))
        for file in sorted((*self._units, *headers)):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
        return f"{CACHE.prefix}-{digest.hexdigest()[:16]}"

    @property
    def _units(self) -> tuple[Path, ...]:
        return (*(self.sources / f"{name}.cc" for name in self.functions), _MODEL / "model_calls.cpp")

    def compile(self, compiler: cxx.Compiler, scratch: Path) -> Path:
        """The library, in the folder `scratch`. Raises CompileError."""
        _log.warning("compiling the NPU's micro-kernels for the emulated device with %s, once", compiler.command[0])
        return cxx.compile_units(
            compiler, dict.fromkeys(self._units, self.flags), self.extra_flags, self.extra_flags, scratch
        )


@functools.cache
def _loaded(build: Build) -> ctypes.CDLL:
    """The library. Raises BackendUnavailable if there is no compiler, or it fails."""
    compiler = cxx.find_compiler()
    try:
        stem = build.stem(compiler)
        path = CACHE.find(stem) or CACHE.obtain(stem, lambda scratch: build.compile(compiler, scratch))
        return ctypes.CDLL(str(path))
    except (cxx.CompileError, OSError) as e:
        raise BackendUnavailable(f"the micro-kernels could not be compiled for the emulated device: {e}") from e


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array that is aligned as the functions need it, of unknown content."""
    bytes_ = prod((shape,) if isinstance(shape, int) else shape) * np.dtype(dtype).itemsize
    whole = np.empty(bytes_ + _ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % _ALIGNMENT
    return whole[start : start + bytes_].view(dtype).reshape(shape)


def aligned(array: Array) -> Array:
    """A copy of an array that is aligned as the functions need it."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class _Library:
    """Functions on objects of fixed sizes (bytes)."""

    def __init__(self, build: Build, objects: Mapping[str, tuple[tuple[type, int], ...]]) -> None:
        self._objects = objects
        library = _loaded(build)
        self._kernels = {name: ctypes.cast(library[name], ctypes.c_void_p) for name in build.functions}
        self._model_call = library["model_call"]
        self._model_call.restype = ctypes.c_uint

    def _call(self, name: str, *arrays: Array) -> None:
        """Call a function on each of the objects in the arrays; an array of one object takes part in every call."""
        expected = self._objects[name]
        counts = [array.size // size for array, (_, size) in zip(arrays, expected, strict=True)]
        times = max(1, *counts)
        for array, count, (dtype, size) in zip(arrays, counts, expected, strict=True):
            if array.dtype != dtype or array.size != count * size or count not in (1, times):
                raise ValueError(
                    f"{name} expects objects of {size:,} {np.dtype(dtype)}, one or {times}; "
                    f"got {array.size:,} {array.dtype}"
                )
            if not array.flags.c_contiguous or array.ctypes.data % _ALIGNMENT:
                raise ValueError(f"{name} expects contiguous arrays at multiples of {_ALIGNMENT} bytes: use `aligned`")
        number = len(arrays)
        invalid = self._model_call(
            self._kernels[name],
            times,
            number,
            (ctypes.c_void_p * number)(*(array.ctypes.data for array in arrays)),
            (ctypes.c_size_t * number)(*(size * np.dtype(dtype).itemsize for dtype, size in expected)),
            (ctypes.c_bool * number)(*(count > 1 for count in counts)),
        )
        if invalid:
            raise IndexError(f"{name} made {invalid} loads or stores that are outside its objects or misaligned")


class ProductKernels(_Library):
    """The functions on core tiles. C is float32; A, B, headers and results are bf16 bits. Outputs are written in place.

    Every array holds one object, or as many as the longest: then the function is called for each in turn.
    """

    def __init__(
        self,
        device: str,
        core: Tile,
        *,
        exact: bool,
        bfp16: bool = False,
        sources: Path = microkernels.SOURCES,
        extra_flags: tuple[str, ...] = (),
    ) -> None:
        macros = (*microkernels.product_macros(core), *([microkernels.BFP16] if bfp16 else []))
        a, b = (np.uint16, core.m * core.k), (np.uint16, core.k * core.n)
        c, out = (np.float32, core.m * core.n), (np.uint16, core.m * core.n)
        super().__init__(
            Build(device, microkernels.PRODUCT_FUNCTIONS, macros, exact, sources, extra_flags),
            {
                "zero_f32": (c,),
                "matmul_bf16_f32": (a, b, c),
                "matmul_transposed_bf16_f32": (a, b, c),
                "round_bf16": (c, out),
                "finish_bf16": (c, b, out),
            },
        )

    def zero_f32(self, c: Array) -> None:
        """C = 0."""
        self._call("zero_f32", c)

    def matmul_bf16_f32(self, a: Array, b: Array, c: Array) -> None:
        """C += A B."""
        self._call("matmul_bf16_f32", a, b, c)

    def matmul_transposed_bf16_f32(self, a: Array, b: Array, c: Array) -> None:
        """C += A B, the blocks of B stored as columns."""
        self._call("matmul_transposed_bf16_f32", a, b, c)

    def round_bf16(self, c: Array, out: Array) -> None:
        """out = C, rounded."""
        self._call("round_bf16", c, out)

    def finish_bf16(self, c: Array, header: Array, out: Array) -> None:
        """out = activation(C + bias), rounded."""
        self._call("finish_bf16", c, header, out)


class RowKernels(_Library):
    """The functions on rows of `width` numbers. Every array holds one row, or as many as the longest."""

    def __init__(
        self,
        device: str,
        width: int,
        *,
        exact: bool,
        sources: Path = microkernels.SOURCES,
        extra_flags: tuple[str, ...] = (),
    ) -> None:
        f32, bf16 = (np.float32, width), (np.uint16, width)
        super().__init__(
            Build(device, microkernels.ROW_FUNCTIONS, microkernels.row_macros(width), exact, sources, extra_flags),
            {"add_norm": (f32, bf16, f32, bf16), "softmax": (f32, f32, bf16)},
        )

    def add_norm(self, x: Array, y: Array, total: Array, normed: Array) -> None:
        """total = x + y; normed = (total - mean) / sqrt(variance + 1e-5), rounded."""
        self._call("add_norm", x, y, total, normed)

    def softmax(self, scores: Array, bias: Array, weights: Array) -> None:
        """weights = softmax(scores + bias), rounded. `scores` is overwritten."""
        self._call("softmax", scores, bias, weights)
