"""From the parsed JSON of each benchmark's command to the rows of its table."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Figures = dict[str, Any]
"""One table row by column key: strings, numbers, or None where a contender does not report a figure."""


def bench(result: Any) -> list[Figures]:
    files = len(result["files"])
    return [
        _pick(row, "name", "rtf_median", "rtf_min", "rtf_max", "speed", "ratio")
        | {"encode": row["stages"].get("encode"), "decode": row["stages"].get("decode")}
        | {"same_text": f"{row['same_text']}/{files}", "same_tokens": f"{row['same_tokens']}/{files}"}
        for row in result["rows"]
    ]


def encoder(result: Any) -> list[Figures]:
    return [
        _pick(row, "name", "error", "ratio")
        | {
            f"{name}_ms": 1e3 * of(row["seconds"]) if row["right"] else None
            for name, of in (("median", statistics.median), ("min", min), ("max", max))
        }
        for row in result["rows"]
    ]


def accuracy(result: Any) -> list[Figures]:
    return [
        _pick(row, "model", "policy", "clips", "word_error_rate", "transformers_word_error_rate")
        | {"same_tokens": f"{row['same_tokens']}/{row['clips']}"}
        for row in result
    ]


def parity(result: Any) -> list[Figures]:
    keys = ("model", "setting", "decoding", "what", "near", "difference", "word_error_rate", "their_word_error_rate")
    return [
        _pick(row, *keys, "disordered", "their_disordered")
        | {"same_tokens": f"{row['recordings'] - len(row['different'])}/{row['recordings']}"}
        for row in result["rows"]
    ]


def transcripts(result: Any) -> list[Figures]:
    keys = ("model", "folder", "setting", "clips", "measure", "error_rate", "end_mean", "end_max", "disordered")
    return [
        _pick(row, *keys, "again_in_full", "loops", "rtf") | {"same_text": row["clips"] - len(row["different"])}
        for row in result["rows"]
    ]


def compare(*keys: str) -> Callable[[Any], list[Figures]]:
    return lambda results: [figures for result in results for figures in _compared(result, keys)]


def lengths(results: Any) -> list[Figures]:
    return [
        {"model": result["model"], "name": row["name"], "audio": recording["seconds"]}
        | _spread("rtf", [seconds / recording["seconds"] for seconds in runs])
        for result in results
        for row in result["rows"]
        for recording, runs in zip(result["recordings"], row["seconds"], strict=False)  # none of a wrong text
    ]


def _compared(result: Any, keys: tuple[str, ...]) -> Iterator[Figures]:
    for row in result["rows"]:
        note = "wrong text: not timed" if row["rtf"] is None else None
        yield {"model": result["model"], "note": note} | _pick(row, "name", *keys)
    for name, reason in result["left_out"].items():
        yield {"model": result["model"], "name": name, "note": reason}


def _spread(key: str, values: Sequence[float]) -> Figures:
    return {key: statistics.median(values), f"{key}_min": min(values), f"{key}_max": max(values)}


def token(results: Any) -> list[Figures]:
    seconds = ("token_seconds", "token_seconds_min", "token_seconds_max", "step_seconds")
    milliseconds = ("token_ms", "token_ms_min", "token_ms_max", "step_ms")
    return [
        {key: value for key, value in row.items() if key not in seconds}
        | {ms: _scaled(row.get(key), 1e3) for key, ms in zip(seconds, milliseconds, strict=True)}
        for row in compare("tokens", *seconds, "word_error_rate")(results)
    ]


def start(results: Any) -> list[Figures]:
    return [
        {"model": result["model"], "name": name}
        | {"to_text": statistics.median(one["to_text"] for one in starts)}
        | {"to_end": statistics.median(ends := [one["to_end"] for one in starts]), "min": min(ends), "max": max(ends)}
        for result in results
        for name, starts in result["starts"].items()
    ]


def footprint(results: Any) -> list[Figures]:
    return [
        _pick(one, "model", "engine", "load_seconds", "seconds")
        | {"peak_mb": one["peak_bytes"] / 1e6, "disk": one["disk_bytes"] / one["parameters"]}
        | {"first_mb": one["first_peak_bytes"] and one["first_peak_bytes"] / 1e6}
        | {"parameters": one["parameters"] / 1e6}
        for one in results["footprints"]
    ]


def memory(peaks: Any) -> list[Figures]:
    rows: dict[tuple[str, str], list[Any]] = {}
    for peak in peaks:
        rows.setdefault((peak["model"], peak["way"]), []).append(peak)
    return [
        {"model": model, "way": way, "short_mb": each[0]["peak_bytes"] / 1e6, "long_mb": each[-1]["peak_bytes"] / 1e6}
        | {"difference_mb": (max(one["peak_bytes"] for one in each) - each[0]["peak_bytes"]) / 1e6}
        | {"rtf": each[-1]["rtf"]}
        for (model, way), each in rows.items()
    ]


def products(result: Any) -> list[Figures]:
    """Of each product and backend; the peaks are those of its instructions and of memory."""
    return [
        _pick(row, "backend", "operations_per_byte", "gops")
        | {"product": f"{row['product']['role']} {_shape(row['product']['shape'])}"}
        | {"median_ms": row["median_ms"], "min_ms": row["min_ms"], "max_ms": row["max_ms"]}
        | {"of_peak": _scaled(row["of_peak"], 100)}
        | {"peak": result["peaks"]["gops"].get(row["arithmetic"]["instructions"])}
        | {"instructions": row["arithmetic"]["instructions"], "read_gb_s": result["peaks"]["read_gb_s"]}
        for row in result["rows"]
        if row["seconds"]
    ]


def _shape(shape: Mapping[str, int]) -> str:
    return " x ".join(str(shape[side]) for side in ("m", "k", "n"))


def sensitivity(result: Any) -> list[Figures]:
    """The products of each layer together: their largest error, and their time on one backend."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for effect in result["effects"]:
        if not effect["exclusion"]:
            groups.setdefault((effect["backend"], _layer(effect["site"])), []).append(effect)
    return [
        {"model": result["model"], "backend": backend, "layer": layer}
        | {"error": max(each["error"] for each in effects)}
        | {"float32_ms": 1e3 * sum(result["seconds"][each["site"]] for each in effects)}
        | {"ms": 1e3 * sum(result["seconds"][each["site"]] - each["seconds_saved"] for each in effects)}
        for (backend, layer), effects in groups.items()
    ]


def _layer(site: str) -> str:
    return site.split(".")[1] if site.startswith("layers.") else "convolutions"


def weights(result: Any) -> list[Figures]:
    def share(row: Any, key: str) -> str | None:
        return None if row[key] is None else f"{row[key]}/{row['recordings']}"

    return [
        _pick(row, "model", "format", "precision", "megabytes", "word_error_rate", "our_word_error_rate")
        | {key: share(row, key) for key in ("same_as_file", "same_with_its_rounding", "same_as_source")}
        for row in result
    ]


def _pick(row: Mapping[str, Any], *keys: str) -> Figures:
    return {key: row[key] for key in keys}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
