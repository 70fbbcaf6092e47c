"""Designs built for a real device: found on disk, and their instruction streams compared with the plan.

A stream of another product runs on the device too, and writes to wrong addresses or hangs. So nothing is sent before
the stream has been decoded and is the plan's, operation for operation.
"""

from __future__ import annotations

from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.artifacts import Artifact
from tilewhisper.kernels.xdna.instructions.comparison import check_stream
from tilewhisper.kernels.xdna.instructions.fields import StreamError
from tilewhisper.kernels.xdna.sequence import Plan


def find(root: Path, plan: Plan) -> Artifact:
    """Find the design under `root` for one launch of the plan. Raises BackendUnavailable, also for another stream."""
    artifact = artifacts.find(root, plan, target="hardware")
    check_file(artifact.instructions, plan)
    return artifact


def check_file(file: Path, plan: Plan) -> None:
    """Compare a built stream with the plan. Raises BackendUnavailable with the first difference, or OSError."""
    try:
        check_stream(file.read_bytes(), plan)
    except StreamError as wrong:
        raise BackendUnavailable(
            f"{file} is not the instruction stream of {plan.description} on {plan.device.name}: {wrong}; "
            f"{artifacts.how_to_fix(plan.design)}"
        ) from wrong
