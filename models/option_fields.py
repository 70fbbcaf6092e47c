"""Option records: dataclasses whose fields state their own help, range and spelling.

A record declares an option once:

    beam_size: int = option(5, "hypotheses followed at temperature 0; 1 is greedy", Range(1, 64))

Everything else is derived from that line: the check of a value (`normalized`), the command-line flag
(`OptionField.parse` and `.summary`), the Python signature and the documentation (option_signature.py).

Imports neither torch nor numpy, because `tilewhisper --help` and bad flags are answered without them.
"""

import dataclasses
import difflib
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any, NamedTuple, get_args, get_type_hints

_KEY = "option"
_REQUIRED: Any = object()
_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 80


@dataclass(frozen=True)
class Range:
    """Finite numbers between two bounds, both included; with `above`, the lower bound is excluded.

    `most=math.inf` allows infinity itself.
    """

    least: float | None = None
    most: float | None = None
    above: bool = False

    def __contains__(self, value: float) -> bool:
        if isinstance(value, float) and not math.isfinite(value) and (self.most, value) != (math.inf, math.inf):
            return False
        high_enough = self.least is None or (value > self.least if self.above else value >= self.least)
        return high_enough and (self.most is None or value <= self.most)

    @property
    def span(self) -> str:
        """As the help shows it."""
        if self.least is None or self.most is None or self.most == math.inf:
            return str(self)
        return f"{'above ' if self.above else ''}{self.least} to {self.most}"

    def __str__(self) -> str:
        bounds = []
        if self.least is not None:
            bounds.append(f"{'>' if self.above else '>='} {self.least}")
        if self.most is not None and self.most != math.inf:
            bounds.append(f"<= {self.most}")
        return " and ".join(bounds) or "finite"


class Plain(NamedTuple):
    """A type that a command-line word can become."""

    called: str
    metavar: str
    convert: Callable[[Any], Any]
    """A Python value to its normal form; ValueError or TypeError for a value of another type."""
    parse: Callable[[str], Any]
    """A command-line word to a Python value; ValueError for any other word."""


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(value)
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(value)
    return float(value) + 0.0  # -0.0 becomes 0.0


def _exactly(kind: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(value)
        return value

    return convert


def parse_truth(word: str) -> bool:
    """A command-line word, True or False in any case. Raises ValueError."""
    if word.lower() not in ("true", "false"):
        raise ValueError(f"must be True or False, got {word!r}")
    return word.lower() == "true"


PLAIN: Mapping[type, Plain] = {
    bool: Plain("True or False", "True|False", _exactly(bool), parse_truth),
    int: Plain("an integer", "N", _integer, int),
    float: Plain("a number", "N", _number, float),
    str: Plain("text", "TEXT", _exactly(str), str),
}


@dataclass(frozen=True)
class Option:
    """The metadata of an option field."""

    help: str
    allowed: Range | tuple[str, ...] | None = None
    """Range of a number, or choices of a text."""
    check: Callable[[Any], Any] | None = None
    """For other values than one of `PLAIN`: gives the normal form, or raises a ValueError that says what is allowed."""
    parse: Callable[[str], Any] | None = None
    """For a flag whose value is none of `PLAIN`."""
    group: str = "decoding"
    """Heading of the flag in `--help`."""
    flag: bool = True
    metavar: str | None = None
    alias: str = ""
    """Another engine's name of the flag."""
    none: Any = _REQUIRED
    """What None stands for, for a field that never is None."""


def option(default: Any, help: str, allowed: Range | tuple[str, ...] | None = None, **metadata: Any) -> Any:
    """A dataclass field that is an option; `metadata` are fields of `Option`."""
    return dataclasses.field(default=default, metadata={_KEY: Option(help, allowed, **metadata)})


@dataclass(frozen=True)
class OptionField:
    """An option as its record declares it."""

    name: str
    annotation: Any
    default: Any
    keyword_only: bool
    option: Option

    @property
    def nullable(self) -> bool:
        return type(None) in get_args(self.annotation)

    @property
    def plain(self) -> Plain | None:
        """The first plain type of the annotation, which is the one that the command line parses."""
        return next((PLAIN[kind] for kind in self._types if kind in PLAIN), None)

    @property
    def _types(self) -> tuple[Any, ...]:
        return get_args(self.annotation) or (self.annotation,)

    def normalize(self, value: Any) -> Any:
        """The value in its normal form. Raises ValueError with the field's name, the allowed values and the value."""
        if value is None and self.option.none is not _REQUIRED:
            return self.option.none
        if value is None and self.nullable:
            return None
        try:
            return self._normal(value)
        except ValueError as e:
            nothing = ", or None" if self.nullable or self.option.none is not _REQUIRED else ""
            raise ValueError(f"{self.name} must be {e}{nothing}, got {shown(value)}") from None

    def _normal(self, value: Any) -> Any:
        if check := self.option.check:
            return check(value)
        plain, allowed = self.plain, self.option.allowed
        assert plain is not None, f"{self.name} needs a check"
        try:
            normal = plain.convert(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{plain.called} {allowed}" if isinstance(allowed, Range) else plain.called) from None
        if allowed is not None and normal not in allowed:
            raise ValueError(str(allowed) if isinstance(allowed, Range) else " or ".join(allowed))
        return normal

    def parse(self, word: str) -> Any:
        """The value of a command-line word. Raises ValueError that says what is allowed."""
        if word == "None" and self.option.none is not _REQUIRED:
            return self.option.none
        if word == "None" and self.nullable:
            return None
        if self.option.parse:
            return self.option.parse(word)
        assert self.plain is not None
        try:
            return self.plain.parse(word)
        except ValueError:
            raise ValueError(f"must be {self.plain.called}, got {word!r}") from None

    @property
    def metavar(self) -> str | None:
        if isinstance(self.option.allowed, tuple):
            return None
        return self.option.metavar or (self.plain.metavar if self.plain else None)

    @property
    def summary(self) -> str:
        """The help text with the range and the default."""
        return f"{self.option.help} ({', '.join(self._facts)})" if self._facts else self.option.help

    @property
    def _facts(self) -> list[str]:
        facts = []
        if isinstance(self.option.allowed, Range):
            facts.append(self.option.allowed.span)
        if self.default is not None:
            default = self.default
            several = isinstance(default, tuple)
            facts.append(f"default: {','.join(map(str, default)) if several else default}")
        return facts


def option_fields(record: type) -> Mapping[str, OptionField]:
    """The options of a record by name, in their order."""
    return _option_fields(record)


@cache
def _option_fields(record: type) -> Mapping[str, OptionField]:
    hints = get_type_hints(record)
    return {
        field.name: OptionField(field.name, hints[field.name], field.default, bool(field.kw_only), field.metadata[_KEY])
        for field in dataclasses.fields(record)
    }


def normalized(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by option name, each in its normal form. Raises ValueError for the first that is not allowed."""
    if problem := unknown(values, option_fields(record)):
        raise ValueError(problem)
    return {name: option_fields(record)[name].normalize(value) for name, value in values.items()}


def unknown(names: Iterable[str], known: Mapping[str, OptionField]) -> str | None:
    """Why the names are not all option names, with near names; None where they are."""
    name = next((name for name in names if name not in known), None)
    if name is None:
        return None
    spellings = {field.option.alias: field.name for field in known.values() if field.option.alias}
    near = difflib.get_close_matches(str(name), [*known, *spellings], n=3)
    found = dict.fromkeys(spellings.get(one, one) for one in near)
    hint = f"did you mean {' or '.join(found)}?" if found else f"the options are {', '.join(known)}"
    return f"unknown option {name!r}; {hint}"


def shown(value: Any) -> str:
    """A value as an error message shows it: one short line, whatever the value is."""
    try:
        return re.sub(r"\s*\n\s*", " ", _shorten.repr(value))
    except Exception:  # a foreign __repr__, or an int of more digits than Python converts
        return f"a value of type {type(value).__name__}"
