"""The inner loops of the products in compiled units: instructions for each multiply-add, from the disassembly."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MULTIPLY_ADDS = {
    "smlal": 4, "smlal2": 4, "sdot": 16, "sudot": 16, "usmmla": 32,
    "vpmaddwd ymm": 16, "vpdpwssd ymm": 16, "vpdpbusd ymm": 32, "vpdpwssd zmm": 32, "vpdpbusd zmm": 64,
}  # fmt: skip
"""Of one instruction."""
ENTRIES = {"short": ("pairs", 2), "signed char": ("byte pairs", 2), "tilewhisper::Quad": ("quads", 4)}
"""Types of a panel's entries: the layout, and the numbers in a word."""
PANEL = 16

_FUNCTION = re.compile(r"^[0-9a-f]+ <void tilewhisper::\w+::(word|quad)_tile<(\d+), (\d+)(?:, ([^>]+))?>.*>:$")
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{\w+\}\s+)?(\S+)\s*(.*)$")
_JUMP = re.compile(r"^(?:b\.\w+|cbn?z|tbn?z|j[a-z]+)$")
_TARGET = re.compile(r"(?:0x)?([0-9a-f]+) <")


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def multiply_adds(self) -> int:
        register = re.search(r"[yz]mm", self.operands)
        return MULTIPLY_ADDS.get(f"{self.name} {register[0]}" if register else self.name, 0)


@dataclass(frozen=True)
class InnerLoop:
    layout: str
    rows: int
    columns: int
    instructions: int
    multiplying: int
    on_the_stack: int
    multiply_adds: int
    """That the product needs: neon_dot also adds up the columns' entries."""


def inner_loops(unit: Path) -> list[InnerLoop]:
    """The loop of each layout for as many rows as its kernel takes at once. Raises ValueError for an unknown loop."""
    largest: dict[str, InnerLoop] = {}
    for kind, rows, panels, entry, body in _functions(unit):
        layout, numbers = ENTRIES[entry]
        old = largest.get(layout)
        if old is None or (rows, panels * PANEL) > (old.rows, old.columns):
            largest[layout] = _measured(layout, numbers, rows, panels, _loop(body), own_tile=kind == "quad")
    return [largest[layout] for layout, _ in ENTRIES.values()]


def _functions(unit: Path) -> Iterator[tuple[str, int, int, str, list[Instruction]]]:
    command = ["llvm-objdump", "-d", "-C", "--no-show-raw-insn", "--mattr=+dotprod,+i8mm", str(unit)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for block in text.split("\n\n"):
        first, *lines = block.strip().splitlines() or [""]
        if found := _FUNCTION.match(first):
            kind, rows, panels, entry = found.groups()
            body = [Instruction(int(m[1], 16), m[2], m[3]) for line in lines if (m := _LINE.match(line))]
            yield kind, int(rows), int(panels), entry or "tilewhisper::Quad", body


def _loop(body: list[Instruction]) -> list[Instruction]:
    """The instructions from the target of a jump backwards to the jump, where most are multiplying."""
    place = {instruction.address: i for i, instruction in enumerate(body)}
    loops = []
    for i, instruction in enumerate(body):
        if _JUMP.match(instruction.name) and (target := _TARGET.search(instruction.operands)):
            start = place.get(int(target[1], 16), len(body))
            if start <= i:
                loops.append(body[start : i + 1])
    return max(loops, key=lambda loop: sum(each.multiply_adds for each in loop))


def _measured(
    layout: str, numbers: int, rows: int, panels: int, loop: list[Instruction], *, own_tile: bool
) -> InnerLoop:
    names = {each.name for each in loop if each.multiply_adds}
    words = 2 if names == {"usmmla"} else 1
    needed = rows * panels * PANEL * numbers * words
    of_offsets = panels * PANEL * numbers if own_tile and "sdot" in names else 0
    found = sum(each.multiply_adds for each in loop)
    if found != needed + of_offsets:
        raise ValueError(f"{layout}, {rows} rows: {found} multiply-adds where {needed + of_offsets} are expected")
    stack = sum(bool(re.search(r"\[sp|%rsp|%rbp", each.operands)) for each in loop)
    multiplying = sum(each.multiply_adds > 0 for each in loop)
    return InnerLoop(layout, rows, panels * PANEL, len(loop), multiplying, stack, needed)
