"""The project's targets of speed, memory and accuracy, and what was measured for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmark_page.figures import Figures
from benchmark_page.results import Result

Rows = Sequence[Figures]
OPENVINO, FASTER_WHISPER, BATCHED = "OpenVINO GenAI int8", "faster-whisper int8", "faster-whisper int8, batches of 8"


@dataclass(frozen=True)
class Target:
    """A bound of one figure. `model` is None where the figure is the worst of all models."""

    what: str
    benchmark: str
    model: str | None
    sign: Literal["<=", ">="]
    bound: float
    measured: Callable[[Rows], float | None]
    """From the rows of the model; None where one of them is missing."""
    unit: str = ""


@dataclass(frozen=True)
class Verdict:
    target: Target
    measured: float | None

    @property
    def text(self) -> str:
        """`met`, `not met`, or `not measured`."""
        if self.measured is None:
            return "not measured"
        above = self.measured >= self.target.bound
        met = self.measured == self.target.bound or above == (self.target.sign == ">=")
        return "met" if met else "not met"

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """What, model, target, measured, and whether it is met."""
        target = self.target
        measured = "-" if self.measured is None else f"{self.measured:.2f} {target.unit}".strip()
        bound = f"{target.sign} {target.bound:.3g} {target.unit}".strip()
        return target.what, target.model or "all", bound, measured, self.text


def verdicts(results: Mapping[str, Result]) -> list[Verdict]:
    """Every target with its figure from the results."""
    return [Verdict(target, _measured(target, results.get(target.benchmark))) for target in TARGETS]


def _measured(target: Target, result: Result | None) -> float | None:
    if result is None:
        return None
    rows = [row for row in result.rows if target.model in (None, row.get("model"))]
    try:
        return target.measured(rows)
    except (KeyError, StopIteration, TypeError, ValueError):  # a row or a figure is missing
        return None


def _of(rows: Rows, name: str, key: str) -> float:
    """A figure of the first row whose name begins so. Raises StopIteration without one, and TypeError for None."""
    return float(next(row[key] for row in rows if str(row["name"]).startswith(name)))


def _ratio(name: str, key: str = "rtf") -> Callable[[Rows], float]:
    return lambda rows: _of(rows, name, key) / _of(rows, "tilewhisper", key)


def _inverse_start(rows: Rows) -> float:
    return _of(rows, "tilewhisper", "to_text") / _of(rows, "faster-whisper", "to_text")


def _more_errors_than_float32(rows: Rows) -> float:
    return _of(rows, "tilewhisper", "word_error_rate") - _of(rows, "transformers float32", "word_error_rate")


def _more_errors_than_the_best(rows: Rows) -> float:
    peers = [row["word_error_rate"] for row in rows if not row["name"].startswith("tilewhisper")]
    return _of(rows, "tilewhisper", "word_error_rate") - float(min(rate for rate in peers if rate is not None))


def _batch_of_8(rows: Rows) -> float:
    by_size = {size: row for row in rows for size in (1, 8) if row["name"].endswith(f"batch_size={size}")}
    return float(by_size[8]["token_ms"] / by_size[1]["token_ms"])


def _more_memory(rows: Rows) -> float:
    theirs = {row["model"]: row["peak_mb"] for row in rows if row["engine"] == "faster-whisper"}
    return float(max(row["peak_mb"] - theirs[row["model"]] for row in rows if row["engine"] == "int8"))


TARGETS = (
    Target("clips one by one: times of OpenVINO GenAI int8", "clips", "base", ">=", 4, _ratio(OPENVINO)),
    Target("clips one by one: times of faster-whisper int8", "clips", "base", ">=", 10, _ratio(FASTER_WHISPER)),
    Target(
        *("clips one by one: WER above float32 at full context", "clips", "base", "<=", 0.3),
        *(_more_errors_than_float32, "points"),
    ),
    Target("all at once: times of OpenVINO GenAI int8", "files", "base", ">=", 6, _ratio(OPENVINO)),
    Target("all at once: times of faster-whisper int8", "files", "base", ">=", 18, _ratio(FASTER_WHISPER)),
    Target("five minutes, batched: times of OpenVINO GenAI int8", "long", "base", ">=", 3, _ratio(OPENVINO)),
    Target(
        *("five minutes, batched: WER above the best peer's", "long", "base", "<=", 0.5),
        *(_more_errors_than_the_best, "points"),
    ),
    Target("five minutes, 5 beams: times of faster-whisper int8", "beams", "base", ">=", 5, _ratio(FASTER_WHISPER)),
    Target("a token: times of OpenVINO GenAI int8", "token", "base", ">=", 3, _ratio(OPENVINO, "token_ms")),
    Target("a token in batches of 8 / on its own", "token", "base", "<=", 1 / 3, _batch_of_8),
    Target("peak memory above faster-whisper int8, worst model", "footprint", None, "<=", 100, _more_memory, "MB"),
    Target(
        *("size on disk, worst model", "footprint", None, "<=", 1.1),
        *(lambda rows: max(row["disk"] for row in rows if row["engine"] == "int8"), "bytes a parameter"),
    ),
    Target("start to text / faster-whisper's", "start", "tiny.en", "<=", 0.8, _inverse_start),
    Target("start to text / faster-whisper's", "start", "base", "<=", 0.8, _inverse_start),
    Target(
        *("peak memory of an hour above a minute's", "memory", None, "<=", 100),
        *(lambda rows: max(row["difference_mb"] for row in rows), "MB"),
    ),
)
"""Times are ratios in one run, on two threads, with the same audio and beam."""
