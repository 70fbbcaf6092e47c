"""The benchmarks of docs/benchmarks.md as data."""

from collections.abc import Mapping, Sequence

from benchmark_page import figures
from benchmark_page.benchmark import MODEL, WER, Benchmark, Column
from benchmark_page.speed import SPEED

_BOTH_MODELS = ("--model", "base", "--model", "tiny.en")
_CLIPS = "{data}/librispeech"
_NEEDS_PEERS = "Other engines run on the same weights and need `pip install 'tilewhisper[peers]'`."
_RTF = Column("rtf", "RTF", ".4f")

BENCHMARKS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        *SPEED,
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
                *(
                    MODEL,
                    Column("engine", ""),
                    Column("parameters", "million parameters", ".0f"),
                    Column("peak_mb", "peak MB", ".0f"),
                ),
                *(Column("first_mb", "at the first start", ".0f"), Column("disk", "disk, bytes a parameter", ".2f")),
                *(Column("load_seconds", "load s", ".2f"), Column("seconds", "to text s", ".2f")),
            ),
            figures.footprint,
            quick=(
                *("python", "scripts/footprint.py", "{data}/jfk.flac", "--model", "tiny.en", "--random", "base"),
                *("--random", "small", "--runs", "1"),
            ),
            statuses=(0, 1),  # 1: ours exceeds the script's target; the figures are complete
        ),
        Benchmark(
            "memory",
            "Peak memory",
            "Peak resident memory of `tilewhisper transcribe` over a minute and over an hour of speech (over 30 s and "
            "two minutes in a quick run). A batch of chunks holds K/V caches for each of its windows.",
            ("python", "scripts/memory.py", _CLIPS, "--model", "tiny.en"),
            (
                *(MODEL, Column("way", ""), Column("short_mb", "short, MB", ".0f")),
                *(Column("long_mb", "long, MB", ".0f"), Column("difference_mb", "difference MB", "+.0f"), _RTF),
            ),
            figures.memory,
            quick=(
                *("python", "scripts/memory.py", _CLIPS, "--model", "tiny.en", "--seconds", "30"),
                *("--seconds", "120"),
            ),
            statuses=(0, 1),  # 1: a difference is above the script's target; the figures are complete
        ),
        Benchmark(
            "products",
            "Single products below the limits of the machine",
            "Each product of the model on each backend, beside the peaks of its instructions and of reading memory, "
            "which are measured with it. Inputs are random; wrong results are not timed.",
            ("python", "scripts/bench_kernels.py", "--size", "base", "--threads", "2"),
            (
                *(Column("product", "product"), Column("backend", "backend"), Column("instructions", "instructions")),
                *(Column("operations_per_byte", "operations a byte", ".1f"), Column("gops", "GOP/s", ".1f")),
                *(Column("peak", "peak GOP/s", ".0f"), Column("of_peak", "% of peak", ".0f")),
                *(Column("read_gb_s", "memory GB/s", ".1f"), Column("median_ms", "ms", ".3f")),
                *(Column("min_ms", "min", ".3f"), Column("max_ms", "max", ".3f")),
            ),
            figures.products,
            quick=("python", "scripts/bench_kernels.py", "--size", "tiny", "--threads", "2", "--rounds", "5"),
        ),
        Benchmark(
            "layers",
            "What each layer loses and takes on a backend",
            "The products of one layer at a time on a backend, everything else in float32: the largest relative error "
            "that one of them causes in the encoder's states, and the time of all of them together.",
            ("python", "scripts/bench_layers.py", "{data}/jfk.flac", "--model", "base"),
            (
                *(MODEL, Column("backend", "backend"), Column("layer", "layer"), Column("error", "error", ".1e")),
                *(Column("ms", "ms", ".2f"), Column("float32_ms", "ms in float32", ".2f")),
            ),
            figures.sensitivity,
            quick=("python", "scripts/bench_layers.py", "{data}/jfk.flac", "--model", "tiny.en", "--rounds", "3"),
        ),
        Benchmark(
            "accuracy",
            "Word errors beside transformers",
            "60 clips of LibriSpeech test-other, decoded greedily with full audio context.",
            ("python", "scripts/accuracy.py", _CLIPS, "--model", "tiny.en", "--model", "base"),
            (
                *(MODEL, Column("policy", "policy"), Column("clips", "clips", "d"), WER),
                Column("transformers_word_error_rate", "transformers WER %", ".2f"),
                Column("same_tokens", "same tokens"),
            ),
            figures.accuracy,
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
                *(MODEL, Column("setting", "setting"), Column("decoding", "decoding"), Column("what", "")),
                *(Column("same_tokens", "same tokens"), Column("near", "near %", ".2f")),
                *(
                    Column("difference", "difference %", ".2f"),
                    WER,
                    Column("their_word_error_rate", "openai's", ".2f"),
                ),
                *(Column("disordered", "disordered", "d"), Column("their_disordered", "openai's", "d")),
            ),
            figures.parity,
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
                *(MODEL, Column("format", "format"), Column("precision", "precision")),
                *(Column("megabytes", "MB", ".1f"), Column("same_as_file", "same file")),
                *(Column("same_with_its_rounding", "its rounding"), Column("same_as_source", "source")),
                *(WER, Column("our_word_error_rate", "ours", ".2f")),
            ),
            figures.weights,
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
                *("--setting", "cpu/full", "--setting", "cpu/sparse:32", "--setting", "int8/sparse:32"),
            ),
            (
                *(MODEL, Column("setting", "setting"), Column("folder", "clips of"), Column("clips", "clips", "d")),
                *(Column("measure", "measure"), Column("error_rate", "error %", ".2f")),
                *(Column("same_text", "same text", "d"), Column("end_mean", "ends mean", ".3f")),
                *(Column("end_max", "max", ".3f"), Column("disordered", "disordered", "d")),
                *(Column("again_in_full", "in full", "d"), Column("loops", "loops", "d"), _RTF),
            ),
            figures.transcripts,
        ),
    )
}


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """The named benchmarks, or all of them, in the order of the page. Raises ValueError for an unknown name."""
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise ValueError(f"unknown benchmark {unknown[0]!r}; the benchmarks are {', '.join(BENCHMARKS)}")
    return [one for name, one in BENCHMARKS.items() if not names or name in names]


def workloads() -> list[Benchmark]:
    """Those of `compare.py all`."""
    return [one for one in BENCHMARKS.values() if one.quick]
