"""Command-line flags derived from the option records: openai-whisper's, whisper-ctranslate2's and our own.

A flag that is not given is not passed on, so that the defaults are those of Python. Imports neither torch nor numpy,
because `--help` and bad flags are answered without them.
"""

import math
from argparse import SUPPRESS, ArgumentTypeError, Namespace, _ActionsContainer
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tilewhisper.engine.options import TranscriptionOptions, validate
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.option_fields import OptionField, Range, option, option_fields, parse_truth

Value = TypeVar("Value")


@dataclass(frozen=True)
class TemperatureFlags:
    """openai-whisper's two flags for the option `temperature`. Raises OptionError for a value that is not allowed."""

    temperature: float = option(0.0, "the first temperature; 0 takes the most likely text", Range(0, 10))
    temperature_increment_on_fallback: float | None = option(
        0.2,
        "step to the next temperature, up to 1, for text that fails a threshold; None tries no other",
        Range(0.01, 10),
    )

    def __post_init__(self) -> None:
        validate(self)

    def temperatures(self) -> tuple[float, ...]:
        """The first temperature and those above it, up to 1; bit-equal to numpy's `arange`, as in openai-whisper."""
        first, step = self.temperature, self.temperature_increment_on_fallback
        if step is None:
            return (first,)
        exact_step = (first + step) - first
        return tuple(first + i * exact_step for i in range(max(1, math.ceil((1 + 1e-6 - first) / step))))


@dataclass(frozen=True)
class Flag:
    """The flag of a record's option."""

    record: type
    field: OptionField

    @property
    def name(self) -> str:
        return f"vad_{self.field.name}" if self.record is VadOptions else self.field.name

    def add_to(self, group: _ActionsContainer, default: Any = SUPPRESS) -> None:
        """`default` is the value where the flag is not given; SUPPRESS leaves it out of the parsed arguments."""
        about = self.field.option
        bare: dict[str, Any] = {"nargs": "?", "const": True} if self.field.annotation is bool else {}
        group.add_argument(
            *(f"--{name}" for name in (self.name, about.alias) if name),
            dest=self.name,
            type=checked(self.field.parse),
            default=default,
            choices=about.allowed if isinstance(about.allowed, tuple) else None,
            metavar=self.field.metavar,
            help=self.field.summary.replace("%", "%%"),
            **bare,
        )


def checked(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """`parse` whose ValueError argparse shows as it is."""

    def parse_word(word: str) -> Value:
        try:
            return parse(word)
        except ValueError as e:
            raise ArgumentTypeError(str(e)) from None

    return parse_word


def count(least: int) -> Callable[[str], int]:
    """A flag's word as a whole number from `least` on."""

    def parse(word: str) -> int:
        if not word.isdecimal() or int(word) < least:
            raise ValueError(f"must be a whole number >= {least}, got {word!r}")
        return int(word)

    return checked(parse)


truth = checked(parse_truth)
"""A flag's word, True or False."""


RECORDS = (TemperatureFlags, TranscriptionOptions, VadOptions, SubtitleOptions)
FLAGS: Mapping[str, Flag] = {
    flag.name: flag
    for record in RECORDS
    for flag in (Flag(record, field) for field in option_fields(record).values() if field.option.flag)
}
"""All flags of options, by name."""
GROUPS: Mapping[str, tuple[Flag, ...]] = {
    title: tuple(flag for flag in FLAGS.values() if flag.field.option.group == title)
    for title in dict.fromkeys(field.option.group for field in option_fields(TranscriptionOptions).values())
}
"""The flags by their heading in `--help`."""


def options(args: Namespace) -> dict[str, Any]:
    """The given flags as fields of TranscriptionOptions, checked. Raises OptionError."""
    given = _given(args, TranscriptionOptions)
    if temperature := _given(args, TemperatureFlags):
        given["temperature"] = TemperatureFlags(**temperature).temperatures()
    if vad := _given(args, VadOptions):
        given["vad_parameters"] = vad
    TranscriptionOptions(**given)
    return given


def subtitle_options(args: Namespace) -> SubtitleOptions:
    """Raises OptionError, also where words without times are to be laid out."""
    given = SubtitleOptions(**_given(args, SubtitleOptions))
    given.check(word_timestamps=getattr(args, "word_timestamps", False))
    return given


def _given(args: Namespace, record: type) -> dict[str, Any]:
    flags = [flag for flag in FLAGS.values() if flag.record is record]
    return {flag.field.name: getattr(args, flag.name) for flag in flags if hasattr(args, flag.name)}
