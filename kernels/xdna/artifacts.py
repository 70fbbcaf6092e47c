"""Built designs on disk, with the same layout for the real device and the emulated device.

A root folder holds one folder per design, which has its name, with these files:

    design.xclbin          the binary of one design
    insts_{title}.bin      the instruction stream of one launch, such as 1536x384, little-endian 32-bit words
    manifest.json          `Manifest`: a description of the files above, with the size and SHA-256 of each

K is fixed in the binary: a binary that was built for another K runs, reports success and returns garbage. So nothing is
sent to the device before `find` has compared the manifest with the plan and the files with the manifest.

Does not know how a design is built, the contents of the files, `pyxrt` or tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.xdna.array import WORD_BYTES, Tile
from tilewhisper.kernels.xdna.row_plan import RowDesign
from tilewhisper.kernels.xdna.sequence import AnyDesign, Plan
from tilewhisper.kernels.xdna.tile_plan import Design

Target = Literal["hardware", "emulated"]
InstructionUnit = Literal["bytes", "words"]
KERNEL = "MLIR_AIE"
XCLBIN = "design.xclbin"
MANIFEST = "manifest.json"

_FORMAT = 3
"""Designs of format 1 reserved too small a stack for their kernels; those of format 2 had mlir-aie's kernels."""


@dataclass(frozen=True)
class FileRecord:
    name: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of a design's folder."""

    design: AnyDesign
    launches: Mapping[str, str]
    """Title of a launch -> the instruction file's name."""
    files: tuple[FileRecord, ...]
    target: Target
    tools: Mapping[str, str]
    """Name of each build tool -> its version."""
    instruction_unit: InstructionUnit = "bytes"
    """The unit of the kernel's third argument."""
    kernel: str = KERNEL
    """Its name inside the xclbin."""


@dataclass(frozen=True)
class Artifact:
    """A design on disk, checked against a plan."""

    folder: Path
    manifest: Manifest
    xclbin: Path
    instructions: Path
    """The instruction stream of the plan's launch."""

    @property
    def instruction_count(self) -> int:
        """The kernel's third argument: the stream's length in the unit its tools use."""
        size = self.instructions.stat().st_size
        return size if self.manifest.instruction_unit == "bytes" else size // WORD_BYTES


def instruction_file(title: str) -> str:
    return f"insts_{title}.bin"


def write(
    root: Path,
    design: AnyDesign,
    xclbin: bytes,
    instructions: Mapping[str, bytes],
    *,
    target: Target,
    tools: Mapping[str, str],
    instruction_unit: InstructionUnit = "bytes",
    kernel: str = KERNEL,
) -> Path:
    """Write a design's folder under `root`, replacing an older one, and return it. The manifest is written last."""
    folder = root / design.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    launches = {launch: instruction_file(launch) for launch in instructions}
    contents = {XCLBIN: xclbin} | {launches[launch]: data for launch, data in instructions.items()}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    files = tuple(FileRecord(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items())
    manifest = Manifest(design, launches, files, target, dict(tools), instruction_unit, kernel)
    (folder / MANIFEST).write_text(json.dumps(_to_json(manifest), indent=2) + "\n", "utf-8")
    return folder


def find(root: Path, plan: Plan, *, target: Target | None = None) -> Artifact:
    """Find the design under `root` for one launch of the plan, with all its files intact.

    `target` rejects designs for the other kind of device; None accepts both. Raises BackendUnavailable with the
    first difference and the way to fix it.
    """
    folder = root / plan.design.name
    if not folder.is_dir():
        raise BackendUnavailable(f"{_why_missing(root, plan.design)}; {how_to_fix(plan.design)}")
    manifest = read_manifest(folder, plan.design)
    reasons = (
        *_design_reasons(manifest.design, plan.design),
        *_target_reasons(manifest, target),
        *_launch_reasons(manifest, plan.title),
        *_file_reasons(folder, manifest),
    )
    if reasons:
        raise BackendUnavailable(f"the design in {folder} does not fit: {reasons[0]}; {how_to_fix(plan.design)}")
    return Artifact(folder, manifest, folder / XCLBIN, folder / manifest.launches[plan.title])


def read_manifest(folder: Path, required: AnyDesign) -> Manifest:
    """Read a folder's manifest. Raises BackendUnavailable if it is missing or invalid."""
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_text("utf-8"))
        if isinstance(data, dict) and data.get("format", _FORMAT) != _FORMAT:
            raise BackendUnavailable(
                f"{path} has format {data['format']}, and this version of tilewhisper reads {_FORMAT}; "
                f"{how_to_fix(required)}"
            )
        return _from_json(data)
    except OSError as missing:
        raise BackendUnavailable(f"{path} cannot be read ({missing.strerror}); {how_to_fix(required)}") from missing
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        raise BackendUnavailable(f"{path} is not a manifest of this version; {how_to_fix(required)}") from broken


def designs_in(root: Path) -> tuple[AnyDesign, ...]:
    """Every design that has a readable manifest under `root`."""
    return tuple(design for folder in sorted(root.glob("*/")) if (design := design_in(folder)))


def design_in(folder: Path) -> AnyDesign | None:
    """The design of one folder; None without a readable manifest of this version."""
    try:
        return _from_json(json.loads((folder / MANIFEST).read_text("utf-8"))).design
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _why_missing(root: Path, required: AnyDesign) -> str:
    """Why there is no folder for this design: the nearest design and its first difference."""
    built = [(design, list(_design_reasons(design, required))) for design in designs_in(root)] if root.is_dir() else []
    if not built:
        return f"no design has been built in {root}"
    nearest, reasons = min(built, key=lambda item: len(item[1]))
    if not reasons:
        return f"the design {required.name} is in a folder with another name"
    return f"no design in {root} fits; the nearest, {nearest.name}, differs: {reasons[0]}"


def _design_reasons(built: AnyDesign, required: AnyDesign) -> Iterator[str]:
    if built.device != required.device:
        yield f"built for {built.device.upper()}, this is {required.device.upper()}"
    if (built.rows, built.columns) != (required.rows, required.columns):
        yield f"built for {built.rows}x{built.columns} cores, not {required.rows}x{required.columns}"
    match built, required:
        case Design(), Design():
            yield from _product_reasons(built, required)
        case RowDesign(), RowDesign():
            if built != required:
                yield f"built for {built.name}, not {required.name}"
        case _:
            yield f"built for {_kind(built)}, not {_kind(required)}"


def _product_reasons(built: Design, required: Design) -> Iterator[str]:
    if built.k != required.k:
        yield f"built for K = {built.k}, not {required.k}"
    if built.core != required.core:
        yield f"built with core tiles of {built.core}, not {required.core}"
    found, needed = (f"{design.dtype_in} -> {design.dtype_out}" for design in (built, required))
    if found != needed:
        yield f"built for {found}, not {needed}"
    if built.b_by_columns != required.b_by_columns:
        yield f"built for B stored by {'columns' if built.b_by_columns else 'rows'}"
    if built.finish != required.finish:
        yield f"built with the finish {built.finish!r} of a tile, not {required.finish!r}"


def _kind(design: AnyDesign) -> str:
    return design.function if isinstance(design, RowDesign) else "products"


def _target_reasons(manifest: Manifest, target: Target | None) -> Iterator[str]:
    if target and manifest.target != target:
        kinds = {"hardware": "a real device", "emulated": "the emulated device"}
        yield f"built for {kinds[manifest.target]}, this is {kinds[target]}"


def _launch_reasons(manifest: Manifest, launch: str) -> Iterator[str]:
    if launch not in manifest.launches:
        available = ", ".join(manifest.launches) or "none"
        yield f"no instruction stream for M x N = {launch} (available: {available})"


def _file_reasons(folder: Path, manifest: Manifest) -> Iterator[str]:
    recorded = {record.name for record in manifest.files}
    for name in (XCLBIN, *manifest.launches.values()):
        if name not in recorded:
            yield f"the manifest has no SHA-256 of {name}"
    for record in manifest.files:
        path = folder / record.name
        if not path.is_file():
            yield f"{record.name} is missing"
        elif (size := path.stat().st_size) != record.size:
            state = "truncated" if size < record.size else "too long"
            yield f"{record.name} is {state}: {size:,} bytes of {record.size:,}"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != record.sha256:
            yield f"{record.name} was changed after the build: its SHA-256 differs"


def how_to_fix(required: AnyDesign) -> str:
    of_layer = isinstance(required, RowDesign) or required.b_by_columns or required.finish != "none"
    return f"run scripts/build_kernels.py --device {required.device}{' --policy-sites layers' if of_layer else ''}"


def _to_json(manifest: Manifest) -> dict[str, Any]:
    return {"format": _FORMAT, **asdict(manifest)}


def design_from_json(data: dict[str, Any]) -> AnyDesign:
    """A design from its fields. Raises KeyError or TypeError if they are no design's."""
    if "function" in data:
        return RowDesign(**data)
    return Design(**{**data, "core": Tile(**data["core"])})


def _from_json(data: dict[str, Any]) -> Manifest:
    """Parse a manifest. Raises ValueError, KeyError, TypeError or AttributeError if it is invalid."""
    if data["format"] != _FORMAT:
        raise ValueError(f"format {data['format']}")
    return Manifest(
        design=design_from_json(data["design"]),
        launches={str(title): _plain_name(name) for title, name in data["launches"].items()},
        files=tuple(FileRecord(_plain_name(f["name"]), int(f["size"]), f["sha256"]) for f in data["files"]),
        target=_one_of(data["target"], ("hardware", "emulated")),
        tools=dict(data["tools"]),
        instruction_unit=_one_of(data["instruction_unit"], ("bytes", "words")),
        kernel=str(data["kernel"]),
    )


def _plain_name(name: str) -> str:
    """Accept only files in the manifest's own folder. Raises ValueError."""
    if Path(name).name != name:
        raise ValueError(f"expected a file name without a folder, got {name!r}")
    return name


def _one_of(value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise ValueError(f"expected one of {known}, got {value!r}")
    return value
