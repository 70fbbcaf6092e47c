"""Run a build tool with its full output in a log, and find the cause of a failure in that output."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tilewhisper.kernels.base import KernelError

TIMEOUT = 1800
"""Seconds, for one run."""

_SHOWN = 300
"""Characters of a cause; the log has the rest."""

_PAIRS = "install a pair of build_kernels.py --pairs"
_KNOWN = (
    (r"Unknown command line argument", "the driver is of another generation: give it with --generation"),
    (r"unknown output selector", "the driver is of another generation: give it with --generation"),
    (r"posix_spawn failed", f"a program that it starts is missing: {_PAIRS}"),
    (
        r"chess-llvm-link|xchesscc Failed|Error linking with xbridge",
        "it uses Vitis's compiler and not Peano, as another generation does: give the right one with --generation",
    ),
    (
        r"(?=.*objectfifo\.?subview)(?=.*(unregistered|unknown|unrecognized))",
        f"this mlir-aie has other operations than the design: give its generation with --generation, or {_PAIRS}",
    ),
    (r"(?i)stack.*measured|measured.*stack", f"the design reserves too little for this kernel: {_PAIRS}"),
    (r"adf\.h", f"its headers ask for Vitis: {_PAIRS}"),
)
"""(what a line of the output contains, the remedy), the most telling first."""

_ERROR = re.compile(r"(?i)\b(error|fatal)\b\s*:")
_FAILED = re.compile(r"(?i)\bfail(ed|ure)\b|\bnot found\b|\bno such file\b|\bcannot\b")


class ToolError(KernelError):
    """A build tool is missing or failed."""


def run(command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> None:
    """Run a command in a folder and write its output to `log`. Raises ToolError with the cause of a failure."""
    name = next(Path(part).name for part in command if not Path(part).name.startswith("python"))
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=dict(environment),
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        output = (slow.stdout or b"").decode("utf-8", "replace")
        _write(log, command, output)
        raise ToolError(f"{name} took longer than {TIMEOUT} s; its output so far is in {log}") from slow
    except OSError as broken:
        raise ToolError(f"{command[0]} cannot be started: {broken.strerror}; install it again") from broken
    _write(log, command, done.stdout)
    if done.returncode:
        cause = cause_of(done.stdout) or f"no output, exit status {done.returncode}"
        raise ToolError(f"{name} failed: {cause}; the full log is {log}")


def cause_of(output: str) -> str:
    """The line of the output that says why a tool failed, and the remedy if it is known; empty if there is no output.

    The last line of a compiler is rarely the cause: it counts errors, or tells how to reproduce them.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for pattern, remedy in _KNOWN:
        if line := next((line for line in lines if re.search(pattern, line)), None):
            return f"{line[:_SHOWN]} ({remedy})"
    for telling in (_ERROR, _FAILED):
        if line := next(filter(telling.search, lines), None):
            return line[:_SHOWN]
    return lines[-1][:_SHOWN] if lines else ""


def _write(log: Path, command: Sequence[str], output: str) -> None:
    log.write_text(f"$ {shlex.join(command)}\n{output}", "utf-8")
