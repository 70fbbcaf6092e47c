"""Python signatures and docstrings derived from an option record (option_fields.py)."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from tilewhisper.models.option_fields import OptionField, option_fields

Method = TypeVar("Method", bound=Callable[..., Any])

_POSITIONAL, _KEYWORD_ONLY = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY


def takes_options(record: type, moved: inspect.Parameter | None = None, before: str = "") -> Callable[[Method], Method]:
    """Decorate a method that takes `**options`: it gets the signature and the parameter list of the record.

    With `*args` too, options that are not keyword-only follow the method's own positional parameters. The method's own
    keyword-only parameters come last. A parameter with an option's name replaces the option; `moved` is such a
    parameter by position, before the option `before`.
    """

    def decorate(method: Method) -> Method:
        signature = inspect.signature(method)
        own = list(signature.parameters.values())
        names = {one.name for one in own}
        fields = [field for field in option_fields(record).values() if field.name not in names]
        any_positional = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in own)
        options = [_parameter(field, field.keyword_only or not any_positional) for field in fields]
        if moved:
            options = [one for one in options if one.name != moved.name]
            options.insert([one.name for one in options].index(before), moved)
        positional = [one for one in own if one.kind is _POSITIONAL]
        keyword_only = [one for one in own if one.kind is _KEYWORD_ONLY]
        method.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*positional, *options, *keyword_only]
        )
        listed = "\n".join(f"    {field.name}: {field.summary}" for field in fields)
        method.__doc__ = f"{inspect.cleandoc(method.__doc__ or '')}\n\nOptions:\n{listed}\n"
        return method

    return decorate


def _parameter(field: OptionField, keyword_only: bool) -> inspect.Parameter:
    kind = _KEYWORD_ONLY if keyword_only else _POSITIONAL
    return inspect.Parameter(field.name, kind, default=field.default, annotation=field.annotation)
