"""The C++ sources of the cores' micro-kernels, one function in a file of its name, and their macros (see README.md)."""

from pathlib import Path

from tilewhisper.kernels.xdna.array import Tile

SOURCES = Path(__file__).parent

PRODUCT_FUNCTIONS = (
    "zero_f32",
    "matmul_bf16_f32",
    "matmul_transposed_bf16_f32",
    "round_bf16",
    "finish_bf16",
)
ROW_FUNCTIONS = ("add_norm", "softmax")
BFP16 = "-DAIE_API_EMULATE_BFLOAT16_MMUL_WITH_BFP16"
"""On AIE2P: products of 8x8x8 in block floating point."""


def source(function: str) -> Path:
    """The file that defines a function."""
    return SOURCES / f"{function}.cc"


def product_macros(core: Tile) -> tuple[str, ...]:
    """The macros of functions on core tiles."""
    return (f"-DDIM_M={core.m}", f"-DDIM_K={core.k}", f"-DDIM_N={core.n}")


def row_macros(width: int) -> tuple[str, ...]:
    """The macros of functions on rows."""
    return (f"-DWIDTH={width}",)
