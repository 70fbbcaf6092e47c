"""The fields of a form by name: which are known, which are given twice, and their values as text, numbers and truth."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tilewhisper.engine.serving.errors import RequestError
from tilewhisper.models.option_fields import PLAIN, Range, shown

T = TypeVar("T")


class FormValues:
    """The fields of one form. Every method raises RequestError, with the field's name as its `param`."""

    def __init__(self, fields: Iterable[tuple[str, str]], known: Sequence[str], nested: Sequence[str] = ()) -> None:
        """`known` are the allowed names; a name with brackets after it is the same field: `include[]`.

        `nested` are the names that may have a key between the brackets: `chunking_strategy[type]`.
        """
        self._values: dict[str, list[str]] = {}
        self._nested: dict[str, dict[str, str]] = {}
        for name, value in fields:
            base, bracket, rest = name.partition("[")
            key = rest.removesuffix("]")
            if base not in known or (bracket and not rest.endswith("]")) or (key and base not in nested):
                raise RequestError(400, _unknown(name, known), param=name[:80], code="unknown_field")
            if key:
                self._nested.setdefault(base, {})[key] = value
            else:
                self._values.setdefault(base, []).append(value)

    def text(self, name: str, *, may_be_empty: bool = False) -> str | None:
        """The value of a field, None where it is not given."""
        values = list(dict.fromkeys(self._values.get(name, [])))
        if len(values) > 1:
            raise self.wrong(name, "is given twice, with different values")
        if values and not values[0] and not may_be_empty:
            raise self.wrong(name, "is empty; give a value or leave the field out")
        return values[0] if values else None

    def several(self, name: str, allowed: Sequence[str]) -> tuple[str, ...]:
        """The values of a field that may be given several times, each one of `allowed`."""
        values = tuple(dict.fromkeys(self._values.get(name, [])))
        for value in values:
            self._check(name, value, allowed)
        return values

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        """One of `allowed`."""
        value = self.text(name)
        return default if value is None else self._check(name, value, allowed)

    def number(self, name: str, allowed: Range, default: float) -> float:
        """A number within `allowed`."""
        value = self.text(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            raise self.wrong(name, f"must be a number {allowed}, got {shown(value)}") from None
        if number not in allowed:
            raise self.wrong(name, f"must be a number {allowed}, got {shown(value)}")
        return number

    def integer(self, name: str, allowed: Range, default: int) -> int:
        """A whole number within `allowed`."""
        number = self.number(name, allowed, float(default))
        if not number.is_integer():
            raise self.wrong(name, f"must be a whole number {allowed}, got {number}")
        return int(number)

    def truth(self, name: str, default: bool = False) -> bool:
        """true or false; 1 and 0 too."""
        value = self.text(name)
        if value is None:
            return default
        if value in ("0", "1"):
            return value == "1"
        try:
            return bool(PLAIN[bool].parse(value))
        except ValueError:
            raise self.wrong(name, f"must be true or false, got {shown(value)}") from None

    def nested(self, name: str) -> dict[str, str]:
        """The values of `name[key]` by key."""
        return self._nested.get(name, {})

    def wrong(self, name: str, problem: str, *, code: str | None = None) -> RequestError:
        """The error of a field."""
        return RequestError(400, f"{name} {problem}", param=name, code=code)

    def _check(self, name: str, value: str, allowed: Sequence[str]) -> str:
        if value not in allowed:
            raise self.wrong(name, f"must be {' or '.join(allowed)}, got {shown(value)}")
        return value


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.partition("[")[0], known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the fields are file, {', '.join(known)}"
    return f"unknown field {shown(name)}; {hint}"
