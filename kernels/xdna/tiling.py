"""Cut a product for a device, or say which limit it breaks.

Both are pure functions of whole numbers: the arithmetic of the cut is in `tile_plan`, and every limit of the geometry,
the device's memories and its descriptors is checked here, each with its figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from tilewhisper.kernels.base import ProductShape, UnsupportedShape
from tilewhisper.kernels.xdna.array import Device, Geometry, Tile
from tilewhisper.kernels.xdna.tile_plan import (
    TilePlan,
    Views,
    array_tile,
    core_tile,
    cut,
    l1_bytes,
    l2_bytes,
    whole_views,
)
from tilewhisper.kernels.xdna.transfers import Transfer, transfers


def plan(shape: ProductShape, geometry: Geometry, device: Device, views: Views | None = None) -> TilePlan:
    """The product, cut. Raises UnsupportedShape with the reason of `why_not`."""
    if reason := why_not(shape, geometry, device, views):
        raise UnsupportedShape(f"{geometry.name} on {device.name} cannot take {shape}: {reason}")
    return cut(shape, geometry, device, views)


def why_not(shape: ProductShape, geometry: Geometry, device: Device, views: Views | None = None) -> str | None:
    """The first limit that the product breaks, with its figures; None where it fits."""
    core = core_tile(shape, geometry)
    return next(
        chain(_geometry_reasons(geometry, core, device), _product_reasons(shape, geometry, device, views)), None
    )


def _geometry_reasons(geometry: Geometry, core: Tile, device: Device) -> Iterator[str]:
    """Limits that the geometry breaks for any product."""
    for name, needed, available in (
        ("rows", geometry.rows, device.rows),
        ("columns", geometry.columns, device.columns),
    ):
        if needed > available:
            yield f"it uses {needed} {name} of cores and the device has {available}"
    if device.name not in geometry.devices:
        yield f"it is made for {', '.join(geometry.devices)}"
    micro = device.micro_kernels.get(geometry.dtype_in)
    if micro is None:
        known = ", ".join(device.micro_kernels)
        yield f"the device has no micro-kernel for {geometry.dtype_in}; it has {known}"
        return
    for name, part in (("micro-kernel", micro.tile), ("vectorised kernel's block", micro.block)):
        yield from _indivisible("core tile", core, name, part)
    if geometry.call:
        yield from _indivisible("call tile", geometry.call, "array's tile", array_tile(geometry, core))
    a, b, c = l1_bytes(geometry, core)
    if a + b + c > (room := device.l1_bytes - device.stack_bytes):
        yield (
            f"the core tile {core} needs {a + b + c:,} bytes of L1 (A {a:,} + B {b:,} + C {c:,}, double-buffered) "
            f"and a core has {room:,} beside its stack; use smaller core tiles"
        )
    if (needed := l2_bytes(geometry, core)) > device.l2_bytes:
        yield f"the core tile {core} needs {needed:,} bytes of a memory tile, which has {device.l2_bytes:,}"


def _product_reasons(shape: ProductShape, geometry: Geometry, device: Device, views: Views | None) -> Iterator[str]:
    """Limits that this product breaks under a valid geometry."""
    if min(shape.batch, shape.m, shape.k, shape.n) < 1:
        yield "every size must be at least 1"
        return
    found = cut(shape, geometry, device, views)
    yield from _view_reasons(found)
    if (needed := found.shim_descriptors) > device.shim_descriptors:
        yield f"it needs {needed} buffer descriptors of a shim tile, which has {device.shim_descriptors}"
    if (needed := found.queued_transfers) > device.task_queue:
        yield (
            f"it starts {needed} transfers on a channel of a shim tile before it waits for one, "
            f"and the channel's queue holds {device.task_queue}; use fewer row blocks in a turn"
        )
    for transfer in transfers(found):
        for reason in _transfer_reasons(transfer, device):
            yield f"moving {transfer.operand} at a {transfer.at} {reason}"


def _view_reasons(found: TilePlan) -> Iterator[str]:
    """Operands that reach past their buffers."""
    own = whole_views(found.geometry, found.core, found.launch)
    for name, view in vars(found.views).items():
        needed = own.of(name)
        first_row, first_column = divmod(view.offset, view.pitch)
        if first_row + needed.rows > view.rows or first_column + needed.pitch > view.pitch:
            yield (
                f"{name.upper()}, padded to {needed.rows} x {needed.pitch}, reaches past its buffer of "
                f"{view.rows} x {view.pitch} from element {view.offset:,} on"
            )


def _transfer_reasons(transfer: Transfer, device: Device) -> Iterator[str]:
    """Limits of a buffer descriptor that the transfer breaks."""
    sizes, strides = transfer.sizes_in_words, transfer.strides_in_words
    dimensions = device.memory_dimensions
    if transfer.at == "shim tile":
        repeat, *sizes_within = sizes
        if repeat > device.max_repeat:
            yield f"takes {repeat:,} repeats, and a descriptor holds {device.max_repeat}; split the product"
        sizes, dimensions = tuple(sizes_within), device.shim_dimensions
    if len(sizes) > dimensions:
        yield f"takes {len(sizes)} dimensions, and a descriptor has {dimensions}"
    if max(sizes) > device.max_wrap:
        yield f"takes a wrap of {max(sizes):,} words, and a descriptor holds {device.max_wrap:,}; split the product"
    walked = [stride for size, stride in zip(transfer.sizes, strides, strict=True) if size > 1]
    if walked and max(walked) > device.max_stride:
        yield f"takes a stride of {max(walked):,} words, and a descriptor holds {device.max_stride:,}"


def _indivisible(whole_name: str, whole: Tile, part_name: str, part: Tile) -> Iterator[str]:
    for axis in ("m", "k", "n"):
        size, divisor = getattr(whole, axis), getattr(part, axis)
        if rest := size % divisor:
            yield (
                f"the {whole_name} {whole} is not a multiple of the {part_name} {part}: "
                f"{axis} {size} % {divisor} = {rest}"
            )
