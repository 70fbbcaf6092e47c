"""The cores of the emulated device with the compiled micro-kernels, object by object as their programs call them.

The objects arrive and leave in the order of the memory tiles, so a wrong index in a layout or in the C++ of a kernel
gives a wrong result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.emulated.compiled_kernels import ProductKernels, RowKernels, aligned, empty
from tilewhisper.kernels.xdna.emulated.panels import ColumnResults, ProductRoute
from tilewhisper.kernels.xdna.emulated.program import ProductProgram, RowProgram
from tilewhisper.kernels.xdna.emulated.rows import RowRoute

Numbers = npt.NDArray[Any]


def multiply(program: ProductProgram, route: ProductRoute, a: Numbers, b: Numbers, c: Numbers, *, exact: bool) -> None:
    """A launch of a product on its operands' buffers. Raises BackendUnavailable if the kernels cannot be compiled."""
    kernels = ProductKernels(program.design.device, program.design.core, exact=exact)
    pairs = [pair for column in route.columns for tile in column.pairs for pair in tile]
    lefts = {left: aligned(a[route.a[left]]) for left in {left for left, _ in pairs}}
    rights = {right: aligned(b[route.b[right]]) for right in {right for _, right in pairs}}

    def send(column: ColumnResults) -> None:
        sent = [_core(program, kernels, lefts[i], rights[j])[column.order] for tile in column.pairs for i, j in tile]
        if sent:
            c[column.destination] = np.concatenate(sent)[: column.destination.size]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(send, route.columns))


def _core(program: ProductProgram, kernels: ProductKernels, a: Numbers, b: Numbers) -> Numbers:
    """A core's object of C from its objects of A (steps, m * k) and B (steps, k * n); one more B has the bias."""
    design, steps = program.design, len(a)
    size = design.core.m * design.core.n
    sums = empty(size, np.float32)
    kernels.zero_f32(sums)
    matmul = kernels.matmul_transposed_bf16_f32 if design.b_by_columns else kernels.matmul_bf16_f32
    matmul(a, b[:steps], sums)
    if design.dtype_out == "f32":
        return sums
    out = empty(size, np.uint16)
    if design.finish == "bias":
        kernels.finish_bf16(sums, b[steps], out)
    else:
        kernels.round_bf16(sums, out)
    return out


def compute_rows(program: RowProgram, route: RowRoute, buffers: Mapping[str, Numbers], *, exact: bool) -> None:
    """A launch of a row function on its operands' buffers, by name. Raises BackendUnavailable, see `multiply`."""
    design = program.design
    kernels = RowKernels(design.device, design.width, exact=exact)
    places = {operand.name: found for operand, found in zip(design.operands, route.operands, strict=True)}
    rows = {
        operand.name: aligned(buffers[operand.name][places[operand.name]])
        if operand.direction == "to array"
        else empty(places[operand.name].shape, buffers[operand.name].dtype)
        for operand in design.operands
    }
    getattr(kernels, design.function)(*rows.values())
    for operand in design.operands:
        if operand.direction == "from array":
            buffers[operand.name][places[operand.name]] = rows[operand.name]
