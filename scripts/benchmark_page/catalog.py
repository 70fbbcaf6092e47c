"""The benchmarks of docs/benchmarks.md as data: the command, the figures taken from its JSON, the table's columns."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]
"""One table row by column key: strings, numbers, or None where a contender does not report a figure."""


@dataclass(frozen=True)
class Column:
    """`form` is a format specification for numbers; None prints strings as they are."""

    key: str
    heading: str
    form: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """One section of the page."""

    name: str
    title: str
    about: str
    arguments: tuple[str, ...]
    """The command as typed in the root of the repository; `{data}` stands for the folder of shared recordings."""
    columns: tuple[Column, ...]
    figures: Callable[[Any], list[Figures]]
    """From the parsed JSON of the command to table rows."""
    statuses: tuple[int, ...] = (0,)
    """Exit statuses of a complete run."""

    def command(self, data: str) -> list[str]:
        return [argument.format(data=data) for argument in self.arguments]


def _bench(result: Any) -> list[Figures]:
    files = len(result["files"])
    return [
        _pick(row, "name", "rtf_median", "rtf_min", "rtf_max", "speed", "ratio")
        | {"encode": row["stages"].get("encode"), "decode": row["stages"].get("decode")}
        | {"same_text": f"{row['same_text']}/{files}", "same_tokens": f"{row['same_tokens']}/{files}"}
        for row in result["rows"]
    ]


def _encoder(result: Any) -> list[Figures]:
    return [
        _pick(row, "name", "error", "ratio")
        | {
            f"{name}_ms": 1e3 * of(row["seconds"]) if row["right"] else None
            for name, of in (("median", statistics.median), ("min", min), ("max", max))
        }
        for row in result["rows"]
    ]


def _accuracy(result: Any) -> list[Figures]:
    return [
        _pick(row, "model", "policy", "clips", "word_error_rate", "transformers_word_error_rate")
        | {"same_tokens": f"{row['same_tokens']}/{row['clips']}"}
        for row in result
    ]


def _parity(result: Any) -> list[Figures]:
    keys = ("model", "setting", "decoding", "what", "near", "difference", "word_error_rate", "their_word_error_rate")
    return [
        _pick(row, *keys, "disordered", "their_disordered")
        | {"same_tokens": f"{row['recordings'] - len(row['different'])}/{row['recordings']}"}
        for row in result["rows"]
    ]


def _transcripts(result: Any) -> list[Figures]:
    keys = ("model", "folder", "setting", "clips", "measure", "error_rate", "end_mean", "end_max", "disordered")
    return [
        _pick(row, *keys, "again_in_full", "loops", "rtf") | {"same_text": row["clips"] - len(row["different"])}
        for row in result["rows"]
    ]


def _compare(*keys: str) -> Callable[[Any], list[Figures]]:
    return lambda results: [
        {"model": result["model"]} | _pick(row, "name", *keys) for result in results for row in result["rows"]
    ]


def _token(results: Any) -> list[Figures]:
    rows = _compare("tokens", "token_seconds", "step_seconds", "word_error_rate")(results)
    return [
        _pick(row, "model", "name", "tokens", "word_error_rate")
        | {"token_ms": _scaled(row["token_seconds"], 1e3), "step_ms": _scaled(row["step_seconds"], 1e3)}
        for row in rows
    ]


def _start(results: Any) -> list[Figures]:
    return [
        {"model": result["model"], "name": name}
        | {"to_text": statistics.median(one["to_text"] for one in starts)}
        | {"to_end": statistics.median(ends := [one["to_end"] for one in starts]), "min": min(ends), "max": max(ends)}
        for result in results
        for name, starts in result["starts"].items()
    ]


def _footprint(results: Any) -> list[Figures]:
    return [
        _pick(one, "model", "engine", "load_seconds", "seconds")
        | {"peak_mb": one["peak_bytes"] / 1e6, "disk": one["disk_bytes"] / one["parameters"]}
        | {"first_mb": one["first_peak_bytes"] and one["first_peak_bytes"] / 1e6}
        for one in results["footprints"]
    ]


def _memory(peaks: Any) -> list[Figures]:
    rows: dict[tuple[str, str], list[Any]] = {}
    for peak in peaks:
        rows.setdefault((peak["model"], peak["way"]), []).append(peak)
    return [
        {"model": model, "way": way, "short_mb": each[0]["peak_bytes"] / 1e6, "long_mb": each[-1]["peak_bytes"] / 1e6}
        | {"difference_mb": (max(one["peak_bytes"] for one in each) - each[0]["peak_bytes"]) / 1e6}
        | {"rtf": each[-1]["rtf"]}
        for (model, way), each in rows.items()
    ]


def _weights(result: Any) -> list[Figures]:
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


_MODEL, _NAME, _WER = Column("model", "model"), Column("name", ""), Column("word_error_rate", "WER %", ".2f")
_RTF, _RATIO = Column("rtf", "RTF", ".4f"), Column("ratio", "times the first", ".2f")
_SPEED = (_MODEL, _NAME, _RTF, _RATIO)
_MEDIAN_RATIO = Column("median_ratio", "median of the ratios", ".2f")
_PEERS = ("--peer", "openvino-genai", "--peer", "faster-whisper")
_BOTH_MODELS = ("--model", "base", "--model", "tiny.en")
_COMPARE = ("python", "scripts/compare.py")
_CLIPS = "{data}/librispeech"
_NEEDS_PEERS = "Other engines run on the same weights and need `pip install 'tilewhisper[peers]'`."

BENCHMARKS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark(
            "bench",
            "One file beside transformers",
            "Greedy decoding of an 11 s recording. The ratio is against transformers' `generate`. The text may differ "
            "from transformers' because `--audio_context auto` approximates the silence after the speech.",
            ("tilewhisper", "bench", "{data}/jfk.flac", "--model", "base", "--language", "en", "--threads", "2"),
            (
                _NAME,
                Column("rtf_median", "RTF median", ".4f"),
                Column("rtf_min", "min", ".4f"),
                Column("rtf_max", "max", ".4f"),
                Column("speed", "speed", ".1f"),
                Column("ratio", "ratio", ".2f"),
                Column("encode", "encode s", ".3f"),
                Column("decode", "decode s", ".3f"),
                Column("same_text", "same text"),
                Column("same_tokens", "same tokens"),
            ),
            _bench,
        ),
        Benchmark(
            "encoder",
            "The encoder alone",
            "One pass over a full 30 s window. The error is relative, of the encoder states against transformers in "
            f"float32; the ratio is against the faster of ONNX Runtime and OpenVINO. {_NEEDS_PEERS}",
            ("python", "scripts/bench_encoder.py", "--audio", "{data}/jfk.flac", "--policy", "cpu"),
            (
                _NAME,
                Column("error", "error", ".1e"),
                Column("median_ms", "ms median", ".1f"),
                Column("min_ms", "min", ".1f"),
                Column("max_ms", "max", ".1f"),
                Column("ratio", "ratio", ".2f"),
            ),
            _encoder,
        ),
        Benchmark(
            "files",
            "Many files at once",
            "60 clips (447.5 s of LibriSpeech test-other), given together; greedy. OpenVINO computes in bfloat16 on a "
            f"processor that has it, unless told otherwise (`--peer openvino-genai-f32`). {_NEEDS_PEERS}",
            (*_COMPARE, "files", _CLIPS, *_BOTH_MODELS, "--policy", "int8", *_PEERS, "--runs", "3"),
            (*_SPEED, _WER),
            _compare("rtf", "ratio", "word_error_rate"),
        ),
        Benchmark(
            "clips",
            "Clip after clip",
            f"The same 60 clips, one at a time; greedy. {_NEEDS_PEERS}",
            (*_COMPARE, "clips", _CLIPS, *_BOTH_MODELS, "--policy", "int8", *_PEERS, "--runs", "3"),
            (*_SPEED, _MEDIAN_RATIO, _WER),
            _compare("rtf", "ratio", "median_ratio", "word_error_rate"),
        ),
        Benchmark(
            "long",
            "A long recording",
            "Five minutes of speech, cut at silences and decoded in batches of 8. Last end: seconds from the end of "
            f"speech to the end of the last segment. {_NEEDS_PEERS}",
            (
                *(*_COMPARE, "long", _CLIPS, "--model", "base", "--policy", "int8", "--ours", "batch_size=8"),
                *(*_PEERS, "--peer", "faster-whisper-batched", "--runs", "3"),
            ),
            (
                *(*_SPEED, _MEDIAN_RATIO, _WER),
                Column("misplaced", "out of order", "d"),
                Column("end_error", "last end s", "+.2f"),
            ),
            _compare("rtf", "ratio", "median_ratio", "word_error_rate", "misplaced", "end_error"),
        ),
        Benchmark(
            "token",
            "The time per token",
            "The decoder's part of the 60 clips. Per token: everything after the encoder. TPOT: the same without "
            f"prompts and without the cross-attention K/V projections. {_NEEDS_PEERS}",
            (
                *(*_COMPARE, "token", _CLIPS, "--model", "base", "--policy", "int8", "--batch", "8"),
                *("--peer", "openvino-genai", "--runs", "5"),
            ),
            (
                *(_MODEL, _NAME, Column("tokens", "tokens", "d")),
                *(Column("token_ms", "ms per token", ".2f"), Column("step_ms", "TPOT ms", ".2f"), _WER),
            ),
            _token,
        ),
        Benchmark(
            "start",
            "From the start of the process",
            f"Seconds from the start of the process to the text and to its end, on the second run. {_NEEDS_PEERS}",
            (*_COMPARE, "start", "{data}/jfk.flac", "--model", "tiny.en", "--runs", "5"),
            (
                *(_MODEL, _NAME, Column("to_text", "to text s", ".2f"), Column("to_end", "to end s", ".2f")),
                *(Column("min", "min", ".2f"), Column("max", "max", ".2f")),
            ),
            _start,
        ),
        Benchmark(
            "footprint",
            "Memory, disk and load time by model size",
            "11 s of speech with 5 beams, in fresh processes. Weights of sizes that pip does not install are random. "
            "The first start packs the weights, for which faster-whisper's were converted to int8 beforehand. "
            f"{_NEEDS_PEERS}",
            (
                *("python", "scripts/footprint.py", "{data}/jfk.flac", "--model", "tiny.en", "--model", "base"),
                *("--random", "small", "--random", "large-v3-turbo", "--random", "large-v3"),
            ),
            (
                *(_MODEL, Column("engine", ""), Column("peak_mb", "peak MB", ".0f")),
                *(Column("first_mb", "at the first start", ".0f"), Column("disk", "disk, bytes a parameter", ".2f")),
                *(Column("load_seconds", "load s", ".2f"), Column("seconds", "to text s", ".2f")),
            ),
            _footprint,
            statuses=(0, 1),  # 1: ours exceeds the script's target; the figures are complete
        ),
        Benchmark(
            "memory",
            "Peak memory",
            "Peak resident memory of `tilewhisper transcribe` over a minute and over an hour of speech. A batch of "
            "chunks holds K/V caches for each of its windows.",
            ("python", "scripts/memory.py", _CLIPS, "--model", "tiny.en"),
            (
                *(_MODEL, Column("way", ""), Column("short_mb", "1 minute, MB", ".0f")),
                *(Column("long_mb", "1 hour, MB", ".0f"), Column("difference_mb", "difference MB", "+.0f"), _RTF),
            ),
            _memory,
            statuses=(0, 1),  # 1: a difference is above the script's target; the figures are complete
        ),
        Benchmark(
            "accuracy",
            "Word errors beside transformers",
            "60 clips of LibriSpeech test-other, decoded greedily with full audio context.",
            ("python", "scripts/accuracy.py", _CLIPS, "--model", "tiny.en", "--model", "base"),
            (
                *(_MODEL, Column("policy", "policy"), Column("clips", "clips", "d"), _WER),
                Column("transformers_word_error_rate", "transformers WER %", ".2f"),
                Column("same_tokens", "same tokens"),
            ),
            _accuracy,
        ),
        Benchmark(
            "parity",
            "Tokens beside openai-whisper",
            "openai-whisper in float32 on the same weights (needs `pip install openai-whisper==20250625`). Near: word "
            "times within 60 ms. Difference: word error rate of our text against theirs. Disordered: segments that "
            "overlap or have no length. Tokens differ where two beam hypotheses are so close that rounding decides; "
            "with `--policy torch` they agree there too.",
            (
                *("python", "scripts/parity.py", _CLIPS, "{data}/long", "--setting", "cpu/full"),
                *("--model", "tiny.en", "--model", "base"),
            ),
            (
                *(_MODEL, Column("setting", "setting"), Column("decoding", "decoding"), Column("what", "")),
                *(Column("same_tokens", "same tokens"), Column("near", "near %", ".2f")),
                *(
                    Column("difference", "difference %", ".2f"),
                    _WER,
                    Column("their_word_error_rate", "openai's", ".2f"),
                ),
                *(Column("disordered", "disordered", "d"), Column("their_disordered", "openai's", "d")),
            ),
            _parity,
        ),
        Benchmark(
            "weights",
            "Weight files beside their own engines",
            "Each format and precision that `tilewhisper convert` writes, and ggml's K types, decoded greedily by the "
            "engine it belongs to: recordings on which this engine gives the same tokens with the same file; with the "
            "same file and that engine's rounding of activations, where it is known; and with the source of the file. "
            "CTranslate2 computes int16, int8_float16 and int8_bfloat16 as int8_float32 on this processor. Precisions "
            "that are missing were not run. "
            f"{_NEEDS_PEERS}",
            (
                *("python", "scripts/check_weights.py", "{data}/jfk.flac", _CLIPS, "--clips", "9"),
                *("--model", "tiny.en", "--model", "base"),
            ),
            (
                *(_MODEL, Column("format", "format"), Column("precision", "precision")),
                *(Column("megabytes", "MB", ".1f"), Column("same_as_file", "same file")),
                *(Column("same_with_its_rounding", "its rounding"), Column("same_as_source", "source")),
                *(_WER, Column("our_word_error_rate", "ours", ".2f")),
            ),
            _weights,
            statuses=(0, 1),  # 1: a quantised file has other tokens; the figures are complete
        ),
        Benchmark(
            "transcripts",
            "What the audio context and 8 bits change",
            "Each setting is POLICY/AUDIO_CONTEXT. Errors are in words (WER) for English clips, in characters (CER) "
            "for eight languages. Same text and segment ends (seconds) compare with the first setting. In full: "
            "windows encoded again with full context. Loops: clips with a segment that repeats itself. Texts change "
            "more often than they get worse.",
            (
                *("python", "scripts/transcripts.py", _CLIPS, "{data}/languages", *_BOTH_MODELS),
                *("--setting", "cpu/full", "--setting", "cpu/sparse:16", "--setting", "int8/sparse:16"),
            ),
            (
                *(_MODEL, Column("setting", "setting"), Column("folder", "clips of"), Column("clips", "clips", "d")),
                *(Column("measure", "measure"), Column("error_rate", "error %", ".2f")),
                *(Column("same_text", "same text", "d"), Column("end_mean", "ends mean", ".3f")),
                *(Column("end_max", "max", ".3f"), Column("disordered", "disordered", "d")),
                *(Column("again_in_full", "in full", "d"), Column("loops", "loops", "d"), _RTF),
            ),
            _transcripts,
        ),
    )
}


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """The named benchmarks, or all of them, in the order of the page. Raises ValueError for an unknown name."""
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise ValueError(f"unknown benchmark {unknown[0]!r}; the benchmarks are {', '.join(BENCHMARKS)}")
    return [one for name, one in BENCHMARKS.items() if not names or name in names]
