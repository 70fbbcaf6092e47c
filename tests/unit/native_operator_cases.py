"""Mutations of the arguments of every native operator, and the program that runs them all.

    python tests/unit/native_operator_cases.py LIBRARY

Each operator runs in a forked child, so that a crash or a hang fails one case and the rest still runs. One JSON line
for each operator: its name, how many cases ran, and the failures.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from native_arguments import EMPTY, NAMESPACE, VALID, native
from torch import Tensor

SECONDS = 60
"""Of one child: a hang is a failure too."""
CRASHES = 5
"""Of one operator, after which its remaining cases are left out."""

INTEGERS = (-(2**63), -(2**31), -1, 0, 1, 3, 2**20, 2**31, 2**62, 2**63 - 1)
FLOATS = (0.0, -1.0, 1e300, float("inf"), float("nan"))
TEXTS = ("", "x" * 1000, "avx2\0")
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
    torch.complex64,
)  # fmt: skip
PACKED = (torch.int8, torch.int16)
"""A packed weight of 16 bits has as many entries as one of 8, so that either is a weight."""
ACCEPTED = {("rescore", "weight"): (torch.float16,), ("embed", "table"): (torch.float16, torch.float32)}
"""Types of an argument besides that of the valid one."""
HUGE = 2**50
"""A size that takes no memory in an expanded tensor."""


# ---------------------------------------------------------------- mutations

Path = tuple[int, ...]
"""Where an argument is: its place, and its place in a list."""


@dataclass(frozen=True)
class Case:
    label: str
    arguments: Callable[[], list[Any]]
    check: Callable[[list[Any], Any], str | None]
    """From the arguments, after the call, and the result or the RuntimeError to a complaint."""


def at(arguments: list[Any], path: Path) -> Any:
    for place in path:
        arguments = arguments[place]
    return arguments


def replaced(arguments: list[Any], path: Path, value: Any) -> list[Any]:
    copy = list(arguments)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value) if path[1:] else value
    return copy


def layouts(t: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same values in other strides; the numbers between them are no part of the argument."""

    def within(*shape: int) -> Tensor:
        return torch.full(shape, 77, dtype=t.dtype)

    yield "at an odd offset", within(t.numel() + 1)[1:].view(t.shape).copy_(t)
    if t.dim():
        yield "every other column", within(*t.shape[:-1], t.shape[-1] * 2)[..., ::2].copy_(t)
        yield "rows apart", within(*t.shape[:-1], t.shape[-1] + 3)[..., :-3].copy_(t)
        yield "every other row", within(t.shape[0] * 2, *t.shape[1:])[::2].copy_(t)
    if t.dim() > 1:
        yield "transposed", t.mT.contiguous().mT


def resized(t: Tensor) -> Iterator[tuple[str, Tensor]]:
    for dim, size in enumerate(t.shape):
        if size:
            yield f"dimension {dim} longer", torch.cat([t, t.narrow(dim, 0, 1)], dim)
        if size > 1:
            yield f"dimension {dim} shorter", t.narrow(dim, 0, size - 1).clone()
    yield "a dimension more", t[None]
    yield "flat", t.flatten()
    yield "one number", t.flatten()[:1].squeeze().clone()


def tensor_cases(
    operator: str, name: str, t: Tensor, mutable: bool
) -> Iterator[tuple[str, Tensor, Callable[..., str | None]]]:
    for label, other in layouts(t):
        yield label, other, partial(same, operator)
    for dim, size in enumerate(t.shape):
        if size > 1:
            check = refused if mutable else partial(same, operator)
            yield f"dimension {dim} expanded", t.narrow(dim, 0, 1).expand_as(t), check
        yield f"dimension {dim} empty", t.narrow(dim, 0, 0), empty
        yield f"dimension {dim} huge", t.narrow(dim, 0, 1).expand(*t.shape[:dim], HUGE, *t.shape[dim + 1 :]), refused
        yield f"dimension {dim} empty, another huge", torch.empty(0, dtype=t.dtype).expand(HUGE, 0), refused_or_empty
    for label, other in resized(t):
        yield label, other, anything
    for dtype in DTYPES:
        if dtype != t.dtype:
            packed = t.dtype in PACKED and dtype in PACKED
            either = packed or operator == "read" or dtype in ACCEPTED.get((operator, name), ())
            yield str(dtype), t.to(dtype), anything if either else refused
    yield "meta", t.to("meta"), refused
    if t.is_floating_point():
        yield "sparse", t.to_sparse(), refused
        yield "all NaN", torch.full_like(t, float("nan")), anything
        yield "all infinite", torch.full_like(t, float("inf")), anything


def value_cases(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield "flipped", not value
    elif isinstance(value, int):
        for other in {*INTEGERS, value - 1, value + 1, 2 * value} - {value}:
            yield str(other), other
    elif isinstance(value, float):
        yield from ((str(other), other) for other in FLOATS)
    elif isinstance(value, str):
        yield from ((repr(other[:5]), other) for other in TEXTS)
    elif isinstance(value, list):
        yield "no entries", []
        yield "an entry less", value[:-1]
        yield "an entry more", [*value, value[-1]]


def cases_of(operator: str) -> Iterator[Case]:
    """All cases, in an order that is the same in every process."""
    schema = getattr(native, operator).default._schema
    for number, make in enumerate(VALID[operator]):
        valid = make()
        yield Case(f"valid {number}", partial(contiguous, valid), accepted)
        for place, argument in enumerate(schema.arguments):
            mutable = argument.alias_info is not None and argument.alias_info.is_write
            paths: list[Path] = [(place,)]
            if isinstance(valid[place], list):  # its entries are read in a loop: the first and the last stand for all
                paths += [(place, i) for i in sorted({0, len(valid[place]) - 1}) if valid[place]]
            for path in paths:
                name = f"{number}: {argument.name}{list(path[1:]) or ''}"
                original = at(valid, path)
                others: list[tuple[str, Any, Callable[..., str | None]]] = []
                if isinstance(original, Tensor):
                    others += tensor_cases(operator, argument.name, original, mutable)
                if "Optional" in str(argument.type) and original is not None:
                    others.append(("None", None, anything))
                others += [(label, other, anything) for label, other in value_cases(original)]
                for label, other, check in others:
                    yield Case(f"{name}: {label}", partial(mutated, valid, path, other), check)
    for number, (make, shapes) in enumerate(EMPTY.get(operator, [])):
        yield Case(f"without rows {number}", make, partial(has_shapes, shapes))


def mutated(valid: list[Any], path: Path, value: Any) -> list[Any]:
    """Copies of the other arguments, as an operator may write to them."""
    return replaced(contiguous(valid), path, value)


# ---------------------------------------------------------------- checks


def anything(arguments: list[Any], result: Any) -> None:
    """A result or an error: it did not crash."""


def accepted(arguments: list[Any], result: Any) -> str | None:
    return f"refused: {result}" if isinstance(result, RuntimeError) else None


def refused(arguments: list[Any], result: Any) -> str | None:
    return None if isinstance(result, RuntimeError) else "not refused"


def empty(arguments: list[Any], result: Any) -> str | None:
    if isinstance(result, RuntimeError) or result is None:
        return None
    return None if sum(t.numel() for t in tensors(result)) == 0 else "numbers out of nothing"


refused_or_empty = empty


def has_shapes(shapes: Any, arguments: list[Any], result: Any) -> str | None:
    if isinstance(result, RuntimeError):
        return f"refused: {result}"
    if isinstance(result, Tensor):
        result = tuple(result.shape)
    elif isinstance(result, tuple | list):
        result = tuple(tuple(t.shape) for t in result)
    return None if result == shapes else f"must be {shapes}, got {result}"


def same(operator: str, arguments: Any, result: Any) -> str | None:
    """An error, or to the bit the result of contiguous tensors: the operator's, and those it has written to."""
    if isinstance(result, RuntimeError):
        return None
    before = partial(contiguous, arguments.original)
    copies = before()
    expected = call(operator, copies)
    if isinstance(expected, RuntimeError):
        return f"contiguous tensors are refused: {expected}"
    if operator.startswith("register"):
        return None
    found = [*tensors(result), *tensors(list(arguments))]
    wanted = [*tensors(expected), *tensors(copies)]
    equal = all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(found, wanted, strict=True))
    equal &= isinstance(result, Tensor | tuple | list) or result == expected
    return None if equal else "another result than of contiguous tensors"


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in tensors(part)] if isinstance(value, tuple | list) else []


def contiguous(value: Any) -> Any:
    """A copy; of a tensor that must be refused, itself."""
    if isinstance(value, Tensor):
        copied = value.device.type == "cpu" and value.layout == torch.strided and value.numel() < HUGE
        return value.clone(memory_format=torch.contiguous_format) if copied else value
    return [contiguous(part) for part in value] if isinstance(value, list) else value


class Arguments(list[Any]):
    """Arguments of a call, and copies of them as they were before it."""

    def __init__(self, arguments: list[Any]) -> None:
        super().__init__(arguments)
        self.original = contiguous(arguments)


def call(operator: str, arguments: list[Any]) -> Any:
    try:
        return getattr(native, operator)(*arguments)
    except RuntimeError as e:
        return e


# ---------------------------------------------------------------- running


def operators() -> list[str]:
    """All operators of the loaded library, by torch's own registry."""
    every = torch._C._dispatch_get_all_op_names()
    return sorted(name.partition("::")[2] for name in every if name.startswith(f"{NAMESPACE}::"))


def run(operator: str) -> dict[str, Any]:
    """All cases of one operator; a child that dies is followed by one for the cases after."""
    failures: list[str] = []
    number, crashes = -1, 0
    while True:
        number, label, complaints, status = _child(operator, number + 1)
        failures += complaints
        if status == 0:
            return {"operator": operator, "cases": number + 1, "failures": failures}
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        failures.append(f"{label}: {'hangs' if name == 'SIGALRM' else f'crashed, {name}'}")
        crashes += 1
        if crashes == CRASHES:
            failures.append("more cases, left out after so many crashes")
            return {"operator": operator, "cases": number + 1, "failures": failures}


def _child(operator: str, first: int) -> tuple[int, str, list[str], int]:
    """The last case that began, its label, all complaints, and the exit status, negative for a signal.

    The parent never runs an operator: a child could not use the threads that the parent's calls leave behind.
    """
    read, write = os.pipe()
    if not (pid := os.fork()):
        status = 1
        try:
            os.close(read)
            signal.alarm(SECONDS)
            with os.fdopen(write, "w", buffering=1) as to:
                _run_cases(operator, first, to)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    number, label, complaints = first - 1, "before any case", []
    with os.fdopen(read) as lines:
        for line in lines:
            number, label, complaint = json.loads(line)
            complaints += [f"{label}: {complaint}"] if complaint else []
    _, ended = os.waitpid(pid, 0)
    return number, label, complaints, os.waitstatus_to_exitcode(ended)


def _run_cases(operator: str, first: int, to: Any) -> None:
    torch.set_num_threads(2)
    for number, case in enumerate(cases_of(operator)):
        if number < first:
            continue
        print(json.dumps([number, case.label, None]), file=to)
        arguments = Arguments(case.arguments())
        if complaint := case.check(arguments, call(operator, arguments)):
            print(json.dumps([number, case.label, complaint]), file=to)


if __name__ == "__main__":
    torch.ops.load_library(sys.argv[1])
    for each in operators():
        if each in VALID:
            print(json.dumps(run(each)), flush=True)
