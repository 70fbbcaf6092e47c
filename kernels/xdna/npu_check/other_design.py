"""A built product of another tool, such as mlir-aie's own whole-array example, run by this project's loader.

Its kernel must take what this project's kernels take: opcode, instructions, their length, A, B and C, all row-major.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tilewhisper.kernels.base import BackendUnavailable, ProductShape, UnsupportedShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.array import WORD_BYTES
from tilewhisper.kernels.xdna.npu_check.comparison import KnownProduct
from tilewhisper.kernels.xdna.npu_check.running import BuiltProduct
from tilewhisper.kernels.xdna.npu_check.steps import StepResult, product_title, result_of
from tilewhisper.kernels.xdna.opening import OpenedNpu

DTYPES = {"bf16:f32": "f32", "bf16:bf16": "bf16"}
"""Of the inputs and the result -> of the result."""
_ROUNDED_EVERY = 32
"""Terms between two roundings to a bf16 result: the smallest k of mlir-aie's examples."""
_MOST_ELEMENTS = 2**26
"""Of one matrix. The comparison needs 8 bytes for each, several times."""
_SIGN = b"xclbin2\0"


@dataclass(frozen=True)
class OtherDesign:
    """Files of another tool, and the product that they compute."""

    xclbin: Path
    instructions: Path
    shape: ProductShape
    dtype_out: str

    def check(self) -> None:
        """Raises BackendUnavailable or UnsupportedShape for files and sizes that cannot be run."""
        if _start(self.xclbin, len(_SIGN)) != _SIGN:
            raise BackendUnavailable(f"{self.xclbin} is not an xclbin: give the file that aiecc wrote")
        _words(self.instructions)
        m, k, n = self.shape.m, self.shape.k, self.shape.n
        if max(m * k, k * n, m * n) > _MOST_ELEMENTS:
            raise UnsupportedShape(
                f"a matrix of {self.shape} has more than {_MOST_ELEMENTS:,} elements; check a smaller one"
            )


def run_other(npu: OpenedNpu, design: OtherDesign, timeout_ms: int) -> StepResult:
    """Run the product and compare it, like a step."""
    m, k, n = design.shape.m, design.shape.k, design.shape.n
    product = KnownProduct.random(m, k, n, design.dtype_out, min(_ROUNDED_EVERY, k))
    title = product_title(m, k, n, "bf16", design.dtype_out)
    with _as_built(design) as built:
        return result_of("other design", title, npu.opened, built, product, None, timeout_ms)


@contextmanager
def _as_built(design: OtherDesign) -> Iterator[BuiltProduct]:
    """The design with its instructions as the loader reads them: words, where older tools write them as text."""
    data = _words(design.instructions)
    with TemporaryDirectory(prefix="tilewhisper-check-") as folder:
        file = Path(folder) / "insts.bin"
        file.write_bytes(data)
        yield BuiltProduct(design.xclbin, artifacts.KERNEL, file, len(data))


def _words(file: Path) -> bytes:
    """An instruction stream, from binary or from lines of one hexadecimal word. Raises BackendUnavailable."""
    data = _read(file)
    try:
        lines = data.decode("ascii").split()
        data = np.array([int(line, 16) for line in lines], "<u4").tobytes()
    except (ValueError, OverflowError):
        pass  # binary
    if not data or len(data) % WORD_BYTES or data.startswith(_SIGN):
        raise BackendUnavailable(
            f"{file} is not an instruction stream: expected 32-bit words, or a text with one hexadecimal word a line"
        )
    return data


def _start(file: Path, size: int) -> bytes:
    with _reading(file), file.open("rb") as opened:
        return opened.read(size)


def _read(file: Path) -> bytes:
    with _reading(file):
        return file.read_bytes()


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise BackendUnavailable(f"cannot read {file}: {e.strerror}") from e
