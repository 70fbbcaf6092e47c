"""`tilewhisper npu-check`: the parts of the NPU's set-up, then products of known result on the device."""

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from tilewhisper.engine import report
from tilewhisper.engine.commands import npu, tables
from tilewhisper.engine.commands.files import check_separate, check_writable, write
from tilewhisper.engine.commands.screen import Transcript
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.tuning.planning import parse_shape
from tilewhisper.kernels.base import KernelError, Settings
from tilewhisper.kernels.xdna.emulated.on_demand import parse_fault
from tilewhisper.kernels.xdna.npu_check.all_steps import run_steps
from tilewhisper.kernels.xdna.npu_check.other_design import DTYPES, OtherDesign, run_other
from tilewhisper.kernels.xdna.npu_check.parts import Part, device_parts, failed_device, machine_parts
from tilewhisper.kernels.xdna.npu_check.privacy import without_private_data
from tilewhisper.kernels.xdna.npu_check.steps import StepResult
from tilewhisper.kernels.xdna.opening import OpenedNpu, kernels_folder, open_npu

_EMULATED = "The NPU is emulated: times are this CPU's, and nothing below is about a real NPU."


def run(args: Namespace) -> int:
    """Exit status 0 if every step passed, else 2, with the first remedy as the error."""
    chosen, other = _checked_settings(args), _other_design(args)
    check_writable(args.report)
    check_separate([("--report", args.report)], filter(None, (args.xclbin, args.instructions)))
    parts, opened = _parts(chosen)
    transcript = Transcript()
    results: list[StepResult] = []
    try:
        missing = next((part for part in parts if part.problem and part.needed), None)
        if missing and missing.problem:
            transcript.complain(f"{missing.problem.remedy}: {missing.problem.reason}")
        if chosen.npu == "emulated":
            transcript.say(_EMULATED)
        transcript.show(tables.plain_table(("part", "state", "details"), map(_row, parts)))
        if opened is None or missing:
            return 2
        transcript.say("")
        for result in [run_other(opened, other, args.timeout)] if other else run_steps(opened, args.timeout):
            results.append(result)
            for line in _lines(result):
                transcript.say(line)
        return _conclude(transcript, results)
    finally:  # written even if standard output is lost
        if args.report:
            write(Path(args.report), _report(chosen, parts, results, transcript.text))


def _checked_settings(args: Namespace) -> Settings:
    chosen = npu.settings(args)
    if args.timeout < 1:
        raise OptionError(f"--timeout must be >= 1, got {args.timeout}")
    if chosen.npu_fault and chosen.npu != "emulated":
        raise OptionError("--npu_fault makes the emulated NPU fail: add --npu emulated")
    parse_fault(chosen.npu_fault)
    if chosen.npu_kernels and not kernels_folder(chosen).is_dir():
        raise OptionError(f"--npu_kernels {chosen.npu_kernels}: there is no such folder")
    return chosen


def _other_design(args: Namespace) -> OtherDesign | None:
    """The files of another tool, checked; None if none are given."""
    given = {"--xclbin": args.xclbin, "--instructions": args.instructions, "--shape": args.shape}
    missing = [flag for flag, value in given.items() if not value]
    if len(missing) == len(given):
        if args.dtypes:
            raise OptionError("--dtypes is for a design of another tool: add --xclbin, --instructions and --shape")
        return None
    if missing:
        raise OptionError(f"a design of another tool needs {', '.join(given)}; missing: {', '.join(missing)}")
    dtype_out = DTYPES[args.dtypes or next(iter(DTYPES))]
    design = OtherDesign(Path(args.xclbin), Path(args.instructions), parse_shape(args.shape), dtype_out)
    design.check()
    return design


def _parts(chosen: Settings) -> tuple[list[Part], OpenedNpu | None]:
    """The parts, and the device if nothing that it needs is missing."""
    parts = [] if chosen.npu == "emulated" else list(machine_parts())
    if any(part.problem and part.needed for part in parts):
        return parts, None
    try:
        opened = open_npu(chosen)
    except KernelError as e:
        return [*parts, failed_device(e)], None
    return [*parts, *device_parts(opened, kernels_folder(chosen))], opened


def _row(part: Part) -> tuple[str, str, str]:
    if part.problem is None:
        return part.name, "ok", part.found
    state = "missing" if part.needed else "warning"
    lines = (part.found, part.problem.reason, f"to do: {part.problem.remedy}")
    return part.name, state, "\n".join(line for line in lines if line)


def _lines(result: StepResult) -> Iterator[str]:
    times = " and ".join(f"{1e3 * seconds:.3g}" for seconds in result.seconds)
    state = f"passed in {times} ms" if result.passed else result.state
    yield f"{result.name:<13} {result.product:<43} {state}"
    if wrong := result.difference:
        first = wrong.first
        yield (
            f"    {wrong.wrong:,} of {wrong.elements:,} elements are wrong, the first in row {first.row}, column "
            f"{first.column}: expected {first.expected:.6g}, found {first.found:.6g}, allowed error {first.allowed:.2g}"
        )
    if result.reason:
        yield f"    {'likely cause' if result.difference else 'error'}: {result.reason}"
    if result.remedy:
        yield f"    to do: {result.remedy}"


def _conclude(transcript: Transcript, results: Iterable[StepResult]) -> int:
    failed = next((result for result in results if not result.passed), None)
    if failed is None:
        transcript.say("All results are right.")
        return 0
    transcript.complain(f"{failed.remedy}: {failed.name}: {failed.state}: {failed.reason}")
    return 2


def _report(chosen: Settings, parts: Iterable[Part], results: Iterable[StepResult], screen: str) -> str:
    """All of it as JSON, without private data."""
    machine = report.machine()
    content = {
        "npu": chosen.npu,
        "system": {"os": machine.os, "python": machine.python, "cpu": machine.cpu, "packages": machine.packages},
        "parts": [asdict(part) for part in parts],
        "steps": [asdict(result) for result in results],
        "screen": screen.splitlines(),
    }
    return json.dumps(without_private_data(content), indent=1) + "\n"
