"""The sensitivity map as one HTML page without external parts: a grid of layers by products for each backend."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from tilewhisper.engine.tuning.sensitivity import Effect, Sensitivity

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .6rem 0 .3rem; }
th { font-weight: 500; text-align: left; padding: .2rem .6rem; white-space: nowrap; }
td { min-width: 4.2rem; padding: .25rem .5rem; text-align: right; border: 1px solid Canvas; color: #000; }
td.none { color: inherit; }
</style>
<h1>$title</h1>
<p>$about</p>
$grids
<p>$setting</p>
</html>
""")
_ABOUT = (
    "Each cell is one product of the encoder on one backend, with everything else in float32: the relative error of "
    "the encoder's states, the mean change of the log-probability of each token of the text, and the time it saves in "
    "a window of 30 s. Errors are shaded by their size. Errors of several products do not add up exactly."
)


@dataclass(frozen=True)
class _Measure:
    title: str
    of: Callable[[Effect], float | None]
    shown: Callable[[float], str]
    larger_is_worse: bool


_MEASURES = (
    _Measure("relative error of the encoder states", lambda effect: effect.error, "{:.1e}".format, True),
    _Measure("change of the text's log-probabilities, nats", lambda effect: effect.text_error, "{:.1e}".format, True),
    _Measure("milliseconds saved", lambda effect: 1e3 * effect.seconds_saved, "{:+.2f}".format, False),
)


def page(model: str, sensitivity: Sensitivity, setting: str) -> str:
    """The whole page; `setting` says how and where it was measured."""
    grids = [grid for backend in _backends(sensitivity) for grid in _grids(backend, sensitivity)]
    text = " ".join(f"“{text}”" for text in sensitivity.text)
    said = f" The text: {text} ({sensitivity.text_tokens} tokens)." if text else ""
    return _PAGE.substitute(
        title=escape(f"Sensitivity of {model}"),
        about=escape(_ABOUT + said),
        grids="\n".join(grids),
        setting=escape(setting),
    )


def _backends(sensitivity: Sensitivity) -> Iterator[str]:
    yield from dict.fromkeys(effect.backend for effect in sensitivity.effects)


def _grids(backend: str, sensitivity: Sensitivity) -> Iterator[str]:
    effects = {effect.site: effect for effect in sensitivity.effects if effect.backend == backend}
    for measure in _MEASURES:
        values = [value for effect in effects.values() if _is_figure(value := measure.of(effect))]
        if values:
            rows = "\n".join(_rows(effects, measure, values))
            caption = f"<caption>{escape(backend)}: {measure.title}</caption>"
            yield f'<div class="wide"><table>{caption}\n{rows}\n</table></div>'


def _rows(effects: dict[str, Effect], measure: _Measure, values: Sequence[float]) -> Iterator[str]:
    """A row for each layer, and one for the convolutions before them."""
    groups: dict[str, dict[str, Effect]] = {}
    for site, effect in effects.items():
        layer, product = _split(site)
        groups.setdefault(layer, {})[product] = effect
    columns = list(dict.fromkeys(product for group in groups.values() for product in group))
    yield "<tr><th></th>" + "".join(f"<th>{escape(_short(column))}</th>" for column in columns) + "</tr>"
    for layer, group in groups.items():
        cells = "".join(_cell(group.get(column), measure, values) for column in columns)
        yield f"<tr><th>{escape(layer)}</th>{cells}</tr>"


def _split(site: str) -> tuple[str, str]:
    """`layers.3.self_attn.q_proj` as `layers.3` and `self_attn.q_proj`."""
    if not site.startswith("layers."):
        return "before the layers", site
    _, number, product = site.split(".", 2)
    return f"layers.{number}", product


def _short(product: str) -> str:
    return product.removeprefix("self_attn.")


def _cell(effect: Effect | None, measure: _Measure, values: Sequence[float]) -> str:
    if effect is None:
        return '<td class="none"></td>'
    value = measure.of(effect)
    if not _is_figure(value):
        return f'<td class="none" title="{escape(effect.exclusion)}">cannot run</td>'
    detail = f"{effect.site} on {effect.backend}"
    if effect.changed_tokens:
        detail += f": {effect.changed_tokens} tokens of the text are no longer the most probable"
    color = _color(value, values, measure.larger_is_worse)
    return f'<td style="background:{color}" title="{escape(detail)}">{measure.shown(value)}</td>'


def _color(value: float, values: Sequence[float], larger_is_worse: bool) -> str:
    """Errors from pale to red on a logarithmic scale; time from white to green, and what costs time in grey."""
    if larger_is_worse:
        positive = [each for each in values if each > 0] or [1.0]
        low, high = math.log(min(positive)), math.log(max(positive))
        share = (math.log(value) - low) / max(high - low, 1e-9) if value > 0 else 0.0
        return f"hsl({60 - 55 * share:.0f} 90% {92 - 37 * share:.0f}%)"
    share = value / max(max(values), 1e-12)
    return f"hsl(140 45% {95 - 40 * share:.0f}%)" if share > 0 else "hsl(0 0% 85%)"


def _is_figure(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
