"""The instruction sets to time the native kernels with, and the build that has `avx_vnni` in AVX-512's encoding.

AVX-VNNI is AVX-512's VNNI in 256 bits and AVX2's encoding. A processor that has only AVX-512 can run the same
instructions in its own encoding (EVEX), so that `avx_vnni_evex` is what `avx_vnni` would be there: the same source with
other flags, and 16 registers, as AVX2's encoding has. The inner loops are equal instruction by instruction (g++ 12).
It is for measurements only, since such a processor has `avx512`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from tilewhisper.engine.errors import OptionError
from tilewhisper.kernels.cpu import build
from tilewhisper.kernels.cpu.compiler import INSTRUCTION_SETS

if TYPE_CHECKING:
    from kernel_bench.measurement import Outcome

EVEX = "avx_vnni_evex"
_SIXTEEN_REGISTERS = tuple(f"-ffixed-xmm{number}" for number in range(16, 32))  # g++ only
EVEX_BUILD = build.Build(
    set_flags={"avx_vnni": (*INSTRUCTION_SETS["x86_64"]["avx2"], "-mavx512vl", "-mavx512vnni", *_SIXTEEN_REGISTERS)},
    extra_flags=("-DTILEWHISPER_EVEX",),
)


def load(sets: Sequence[str]) -> None:
    """Load the library that has these sets. Raises OptionError, and BackendUnavailable without a compiler."""
    build.load(EVEX_BUILD if EVEX in sets else build.NATIVE)
    reasons = build.why_not_sets()
    for name in sets:
        if reason := reasons.get(name, f"the sets are {', '.join(reasons)}"):
            raise OptionError(f"--set {name} cannot be used: {reason}")


def use(name: str) -> None:
    torch.ops.tilewhisper_native.use_instruction_set(name)


def comparisons(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """How many times as fast each set is as the last one named, by backend, and whether their bits are equal."""
    timed = [outcome for outcome in outcomes if outcome.seconds and outcome.instruction_set]
    for _, group in itertools.groupby(timed, lambda outcome: outcome.backend.split()[0]):
        *others, last = group
        for other in others:
            bits = "equal bits" if other.digest == last.digest else "other bits"
            ratio = min(last.seconds) / min(other.seconds)
            yield f"{other.backend} is {ratio:.2f} times as fast as {last.backend}, with {bits}"
