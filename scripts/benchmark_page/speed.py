"""The benchmarks of speed."""

from benchmark_page import figures
from benchmark_page.benchmark import MODEL, NOTE, WER, Benchmark, Column, with_spread

_NAME = Column("name", "")
_TIME = ("rtf", "rtf_min", "rtf_max")
_RTF = with_spread("rtf", "RTF", ".4f")
_RATIO, _MEDIAN_RATIO = Column("ratio", "times the first", ".2f"), Column("median_ratio", "median of the ratios", ".2f")
_BOTH_MODELS = ("--model", "base", "--model", "tiny.en")
_COMPARE = ("python", "scripts/compare.py")
_CLIPS, _INT8 = "{data}/librispeech", ("--policy", "int8")
_NEEDS_PEERS = "Other engines run on the same weights and need `pip install 'tilewhisper[peers]'`."
_QUICK = ("--model", "tiny.en", *_INT8, "--runs", "5")
_TWO_PEERS = ("--peer", "openvino-genai", "--peer", "faster-whisper")
_SPEED = ("rtf", "rtf_min", "rtf_max", "ratio", "word_error_rate")

SPEED = (
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
        figures.bench,
        time=("rtf_median", "rtf_min", "rtf_max"),
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
        figures.encoder,
        quick=(
            *("python", "scripts/bench_encoder.py", "--audio", "{data}/jfk.flac", "--policy", "cpu"),
            *("--model", "tiny.en", "--rounds", "7"),
        ),
        time=("median_ms", "min_ms", "max_ms"),
    ),
    Benchmark(
        "files",
        "Many files at once",
        "60 clips (447.5 s of LibriSpeech test-other), given together; greedy. OpenVINO computes in bfloat16 on a "
        f"processor that has it, unless told otherwise (`--peer openvino-genai-f32`). {_NEEDS_PEERS}",
        (*_COMPARE, "files", _CLIPS, *_BOTH_MODELS, *_INT8, "--every-peer", "--runs", "3"),
        (MODEL, _NAME, *_RTF, _RATIO, WER, NOTE),
        figures.compare(*_SPEED),
        quick=(*_COMPARE, "files", _CLIPS, "--clips", "6", *_QUICK, *_TWO_PEERS, "--peer", "whisper.cpp"),
        time=_TIME,
    ),
    Benchmark(
        "clips",
        "Clip after clip",
        f"The same clips, one at a time; greedy. {_NEEDS_PEERS}",
        (*_COMPARE, "clips", _CLIPS, *_BOTH_MODELS, *_INT8, "--every-peer", "--runs", "3"),
        (MODEL, _NAME, *_RTF, _RATIO, _MEDIAN_RATIO, WER, NOTE),
        figures.compare(*_SPEED, "median_ratio"),
        quick=(*_COMPARE, "clips", _CLIPS, "--clips", "3", *_QUICK, "--every-peer"),
        time=_TIME,
    ),
    Benchmark(
        "one-thread",
        "Clip after clip, on one thread",
        f"The first 20 clips, one at a time; greedy. {_NEEDS_PEERS}",
        (
            *(*_COMPARE, "clips", _CLIPS, "--clips", "20", "--model", "base", *_INT8, "--every-peer"),
            *("--runs", "3", "--threads", "1"),
        ),
        (MODEL, _NAME, *_RTF, _RATIO, _MEDIAN_RATIO, WER, NOTE),
        figures.compare(*_SPEED, "median_ratio"),
        quick=(*_COMPARE, "clips", _CLIPS, "--clips", "3", *_QUICK, *_TWO_PEERS, "--threads", "1"),
        time=_TIME,
        threads=1,
    ),
    Benchmark(
        "long",
        "A long recording",
        "Five minutes of speech, cut at silences and decoded in batches of 8. Last end: seconds from the end of "
        f"speech to the end of the last segment. {_NEEDS_PEERS}",
        (
            *(*_COMPARE, "long", _CLIPS, "--model", "base", *_INT8, "--ours", "batch_size=8"),
            *("--every-peer", "--runs", "3"),
        ),
        (
            *(MODEL, _NAME, *_RTF, _RATIO, _MEDIAN_RATIO, WER),
            *(Column("misplaced", "out of order", "d"), Column("end_error", "last end s", "+.2f"), NOTE),
        ),
        figures.compare(*_SPEED, "median_ratio", "misplaced", "end_error"),
        quick=(
            *(*_COMPARE, "long", _CLIPS, "--seconds", "60", *_QUICK, "--ours", "batch_size=8"),
            *(*_TWO_PEERS, "--peer", "faster-whisper-batched"),
        ),
        time=_TIME,
    ),
    Benchmark(
        "beams",
        "A long recording, with 5 beams",
        f"Five minutes of speech, window after window, as all engines do by default. {_NEEDS_PEERS}",
        (
            *(*_COMPARE, "long", _CLIPS, "--model", "base", *_INT8, "--beam_size", "5"),
            *(*_TWO_PEERS, "--runs", "3"),
        ),
        (MODEL, _NAME, *_RTF, _RATIO, _MEDIAN_RATIO, WER, NOTE),
        figures.compare(*_SPEED, "median_ratio"),
        quick=(*_COMPARE, "long", _CLIPS, "--seconds", "60", *_QUICK, *_TWO_PEERS, "--beam_size", "5"),
        time=_TIME,
    ),
    Benchmark(
        "hour",
        "An hour",
        f"An hour of speech: the clips, joined and repeated, decoded in batches of 8. {_NEEDS_PEERS}",
        (
            *(*_COMPARE, "long", _CLIPS, "--seconds", "3600", "--model", "base", *_INT8),
            *("--ours", "batch_size=8", "--every-peer", "--runs", "3"),
        ),
        (MODEL, _NAME, *_RTF, _RATIO, WER, NOTE),
        figures.compare(*_SPEED),
        quick=(
            *(*_COMPARE, "long", _CLIPS, "--seconds", "180", "--model", "tiny.en", *_INT8),
            *("--ours", "batch_size=8", *_TWO_PEERS, "--runs", "3"),
        ),
        time=_TIME,
    ),
    Benchmark(
        "lengths",
        "From one second to an hour",
        f"Recordings of whole clips, each on its own; greedy. {_NEEDS_PEERS}",
        (*_COMPARE, "lengths", _CLIPS, "--model", "base", *_INT8, "--every-peer", "--runs", "3"),
        (MODEL, _NAME, Column("audio", "audio s", ".1f"), *_RTF),
        figures.lengths,
        quick=(
            *(*_COMPARE, "lengths", _CLIPS, "--seconds", "1", "--seconds", "10", "--seconds", "30"),
            *("--seconds", "60", *_QUICK, *_TWO_PEERS),
        ),
        time=_TIME,
    ),
    Benchmark(
        "token",
        "The time per token",
        "The decoder's part of the clips, for engines that report it. Per token: everything after the encoder. TPOT: "
        f"the same without prompts and without the cross-attention K/V projections. {_NEEDS_PEERS}",
        (
            *(*_COMPARE, "token", _CLIPS, "--model", "base", *_INT8, "--batch", "8"),
            *("--peer", "openvino-genai", "--runs", "5"),
        ),
        (
            *(MODEL, _NAME, Column("tokens", "tokens", "d"), *with_spread("token_ms", "ms per token", ".2f")),
            *(Column("step_ms", "TPOT ms", ".2f"), WER, NOTE),
        ),
        figures.token,
        quick=(*_COMPARE, "token", _CLIPS, "--clips", "6", *_QUICK, "--batch", "8", "--peer", "openvino-genai"),
        time=("token_ms", "token_ms_min", "token_ms_max"),
    ),
    Benchmark(
        "start",
        "From the start of the process",
        f"Seconds from the start of the process to the text and to its end, on the second run. {_NEEDS_PEERS}",
        (*_COMPARE, "start", "{data}/jfk.flac", "--model", "tiny.en", "--model", "base", "--runs", "9"),
        (
            *(MODEL, _NAME, Column("to_text", "to text s", ".2f"), Column("to_end", "to end s", ".2f")),
            *(Column("min", "min", ".2f"), Column("max", "max", ".2f")),
        ),
        figures.start,
        quick=(*_COMPARE, "start", "{data}/jfk.flac", "--model", "tiny.en", "--runs", "5"),
        time=("to_end", "min", "max"),
    ),
)
