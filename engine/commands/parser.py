"""The argument parser: every command, its flags and their help. Imports neither torch nor numpy."""

import argparse
from collections.abc import Sequence

from tilewhisper import __version__
from tilewhisper.engine.commands import flags, shared_flags
from tilewhisper.engine.commands.hints import HintingParser, missing_command
from tilewhisper.engine.commands.inputs import STDIN
from tilewhisper.engine.commands.listen_files import FORMATS as LIVE_FORMATS
from tilewhisper.engine.commands.listen_files import STEM as LIVE_STEM
from tilewhisper.engine.commands.listen_files import parse_formats as live_formats
from tilewhisper.engine.commands.outputs import ALL, STDIN_STEM, parse_formats
from tilewhisper.engine.compat import COMPUTE_TYPES, NEAREST
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.output.writers import WRITERS
from tilewhisper.models.checkpoint.export import FORMATS
from tilewhisper.models.option_fields import Range, option_fields

DEFAULT_BATCH_SIZE = 8
"""Chunks of a file that are decoded together."""
_ABOUT = "Transcribe speech with Whisper, each encoder product on the backend of your choice."
_TRANSCRIBE = (
    "The text goes to standard output, figures and errors to standard error. Files are written if --output_format, "
    "--output_dir, --keep_folders, --keep_extension or --verbose False is given, in openai-whisper's formats. Flags "
    "may be spelled with underscores or dashes."
)
_STATUSES = (
    "Exit status: 0 all done, 2 the request cannot be met, 3 some of several files failed or a file is damaged and was "
    "transcribed in part, 130 interrupted."
)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """A command and its flags. Exits with status 2 and a message for words that are none."""
    root = HintingParser(prog="tilewhisper", description=_ABOUT)
    root.add_argument(
        "--version", action="version", version=f"tilewhisper {__version__}", help="show the version and exit"
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_transcribe(commands)
    _add_layers(commands)
    _add_bench(commands)
    _add_profile(commands)
    _add_tune(commands)
    _add_plan(commands)
    _add_convert(commands)
    _add_build(commands)
    _add_listen(commands)
    _add_serve(commands)
    _add_cache(commands)
    commands.add_parser("doctor", help="show what this machine can run, and why it cannot run the rest")
    _add_npu_check(commands)
    if problem := missing_command(words, commands.choices):
        root.error(problem)
    return root.parse_args(words)


def _add_transcribe(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "transcribe",
        help="transcribe audio files and report the real-time factor",
        usage="tilewhisper transcribe FILE [FILE ...] [options]",
        description=_TRANSCRIBE,
        epilog=_STATUSES,
    )
    p.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=f"audio or video files, folders of them, or {STDIN} for standard input (its files are named {STDIN_STEM})",
    )
    _add_truth(p, "recursive", "include the folders inside the given folders (default: False)")
    _add_output(p.add_argument_group("output"))
    for title, members in flags.GROUPS.items():
        group = p.add_argument_group(title)
        for member in members:
            member.add_to(group)
    _add_weights(p.add_argument_group("model"))
    _add_machine(p.add_argument_group("machine"))


def _add_output(p: argparse._ArgumentGroup) -> None:
    p.add_argument(
        "-f",
        "--output_format",
        action="extend",
        type=flags.checked(parse_formats),
        metavar="FORMAT[,FORMAT...]",
        help=f"formats of the files: {', '.join(WRITERS)} or {ALL}; repeatable (default: {ALL})",
    )
    p.add_argument("-o", "--output_dir", metavar="DIR", help="folder of the files, created if missing (default: .)")
    _add_truth(
        p,
        "keep_folders",
        "repeat the inputs' folders in the output folder, below the folder that all inputs share (default: False)",
    )
    _add_truth(p, "keep_extension", "name files talk.mp3.srt instead of talk.srt (default: False)")
    p.add_argument(
        "--verbose",
        type=flags.truth,
        metavar="True|False",
        help="True prints times with the text; False prints neither text nor figures and writes files (default: text "
        "without times)",
    )
    p.add_argument("--report", metavar="FILE", help="write times, memory and the backend of each product as JSON")


def _add_weights(p: argparse._ArgumentGroup) -> None:
    p.add_argument(
        "--model",
        metavar="NAME|PATH",
        help=shared_flags.MODEL,
    )
    p.add_argument("--model_dir", metavar="DIR", help="folder searched first for weights; downloads go there too")
    _add_truth(p, "local_files_only", "never download from the hub (default: False)")


def _add_machine(p: argparse._ArgumentGroup) -> None:
    which = p.add_mutually_exclusive_group()
    which.add_argument("--policy", metavar="NAME|FILE", help=shared_flags.POLICY)
    which.add_argument(
        "--compute_type",
        choices=(*COMPUTE_TYPES, *NEAREST),
        help=f"CTranslate2's name of a policy: {_compute_types()}",
    )
    shared_flags.add_backend(p)
    shared_flags.add_npu(p)
    shared_flags.add_threads(p)
    _add_truth(
        p,
        "batched",
        "cut each file at silences and decode its chunks together (default: False, or True for one file with "
        "--batch_size); if False, several files are decoded together, each with the text it has alone",
    )
    batch_size = option_fields(TranscriptionOptions)["batch_size"]
    p.add_argument(
        "--batch_size",
        type=flags.checked(batch_size.parse),
        metavar=batch_size.metavar,
        help="most files, or chunks of one file, decoded together; 1 decodes files one after the other "
        f"(default: {DEFAULT_BATCH_SIZE} chunks; for files it depends on cores and memory)",
    )
    p.add_argument("--device", metavar="NAME", help="cpu (default) or auto; use --policy npu for an NPU")
    _add_truth(p, "fp16", "accepted for openai-whisper's sake, without effect: --policy decides the precision")


def _add_truth(p: argparse._ActionsContainer, name: str, help: str) -> None:
    p.add_argument(f"--{name}", type=flags.truth, nargs="?", const=True, metavar="True|False", help=help)


def _compute_types() -> str:
    """Each compute type with its policy."""
    by_policy: dict[str, list[str]] = {}
    for name, (policy, _) in COMPUTE_TYPES.items():
        by_policy.setdefault(policy, []).append(name)
    return "; ".join(f"{', '.join(names)} = {policy}" for policy, names in by_policy.items())


def _add_cache(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "cache",
        help="list or clear what earlier starts have cached of models",
        description="A model's first start packs its weights for the backends of its policy, and later starts map them "
        "from the cache. The checkpoints themselves are not part of it.",
    )
    p.add_argument("models", nargs="*", metavar="MODEL", help="only these models, by their listed names (default: all)")
    p.add_argument("--clear", action="store_true", help="delete what is listed")


def _add_listen(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "listen",
        help="transcribe the microphone, or PCM on standard input, while it is spoken",
        epilog="Exit status: 0 the input has ended, or Ctrl-C; 2 the request cannot be met.",
    )
    p.add_argument(
        "input", nargs="?", metavar=STDIN, help=f"{STDIN} reads PCM (s16le) from standard input (default: microphone)"
    )
    p.add_argument("--input_device", metavar="NUMBER|NAME", help="of the microphone (default: the system's)")
    p.add_argument("--list_devices", action="store_true", help="list the input devices and exit")
    p.add_argument(
        "--rate", type=int, default=16_000, metavar="HZ", help="sample rate of standard input (default: %(default)s)"
    )
    p.add_argument(
        "--channels", type=int, default=1, metavar="N", help="channels of standard input (default: %(default)s)"
    )
    p.add_argument(
        "-f",
        "--output_format",
        action="extend",
        type=flags.checked(live_formats),
        metavar="FORMAT[,FORMAT...]",
        help=f"formats of files that grow cue by cue: {', '.join(LIVE_FORMATS)} or {ALL}; repeatable (default: {ALL} "
        "if --output_dir is given, else none)",
    )
    p.add_argument(
        "-o", "--output_dir", metavar="DIR", help=f"folder of the files, which are named {LIVE_STEM} (default: .)"
    )
    shared_flags.add_model(p)
    for name in ("language", "task", "initial_prompt"):
        flag = flags.FLAGS[name]
        flag.add_to(p, default=flag.field.default)
    shared_flags.add_policy(p)
    shared_flags.add_npu(p)
    shared_flags.add_threads(p)


def _add_serve(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "serve",
        help="serve OpenAI's HTTP API, live transcription, Wyoming and a web page",
        epilog="Exit status: 0 stopped by SIGINT or SIGTERM, 2 the request cannot be met.",
    )
    models = p.add_argument_group("models")
    models.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help=f"{shared_flags.MODEL}; repeatable: the first is loaded at the start, and official names stand for it",
    )
    shared_flags.add_policy(models)
    shared_flags.add_npu(models)
    shared_flags.add_threads(models)
    beam_size = option_fields(TranscriptionOptions)["beam_size"]
    models.add_argument(
        "--beam_size",
        type=flags.checked(beam_size.parse),
        default=1,
        metavar=beam_size.metavar,
        help="hypotheses followed where a request does not say; 5 is more exact and slower (default: %(default)s)",
    )
    _add_number(models, "unload_after", "SECONDS", "unload a model that was not used for so long (default: never)")
    _add_number(models, "memory_limit", "MB", "most memory of all models' weights together (default: no limit)")
    network = p.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    network.add_argument(
        "--port", type=flags.checked(_port), default=8000, help="0 is any free port (default: %(default)s)"
    )
    network.add_argument("--api_key_file", metavar="FILE", help="one key a line; without it, no key is asked for")
    network.add_argument(
        "--cors_origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="origin such as https://example.com whose pages may read answers; repeatable (default: none)",
    )
    network.add_argument("--wyoming", metavar="URI", help="speak Wyoming too, such as at tcp://127.0.0.1:10300")
    limits = p.add_argument_group("limits")
    _add_number(limits, "max_upload_mb", "MB", "largest file (default: %(default)g)", 25)
    _add_number(limits, "max_audio_minutes", "MINUTES", "longest audio (default: %(default)g)", 240)
    limits.add_argument(
        "--max_waiting",
        type=flags.checked(_count),
        default=64,
        metavar="N",
        help="requests that may wait; one more is answered with 429 (default: %(default)s)",
    )
    _add_number(limits, "request_timeout", "SECONDS", "time limit of a request (default: %(default)g)", 600)


def _add_number(p: argparse._ActionsContainer, name: str, unit: str, help: str, default: float | None = None) -> None:
    p.add_argument(f"--{name}", type=flags.checked(_above_zero), default=default, metavar=unit, help=help)


def _above_zero(word: str) -> float:
    number = float(word)
    if number not in Range(0, above=True):
        raise ValueError(f"must be a number > 0, got {word}")
    return number


def _port(word: str) -> int:
    if not word.isdecimal() or int(word) > 65535:
        raise ValueError(f"must be a port from 0 to 65535, got {word!r}")
    return int(word)


def _count(word: str) -> int:
    if not word.isdecimal():
        raise ValueError(f"must be a whole number >= 0, got {word!r}")
    return int(word)


def _add_layers(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("layers", help="list the products of the encoder: size, and backend by a policy")
    shared_flags.add_model(p)
    shared_flags.add_policy(p)
    shared_flags.add_npu(p)


def _add_bench(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("bench", help="compare the speed of policies, and of transformers, with greedy decoding")
    p.add_argument("files", nargs="+", metavar="FILE", help="audio or video files")
    shared_flags.add_model(p)
    shared_flags.add_speech(p)
    p.add_argument("--policy", action="append", metavar="NAME|FILE", help=f"{shared_flags.POLICY}; repeatable")
    shared_flags.add_npu(p)
    shared_flags.add_threads(p)
    p.add_argument("--runs", type=int, default=5, help="measured runs, after one warm-up run (default: %(default)s)")
    p.add_argument(
        "--peer",
        choices=("transformers", "none"),
        default="transformers",
        help="other engine (default: %(default)s)",
    )
    p.add_argument("--json", metavar="FILE", help="write the figures as JSON")


def _add_profile(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("profile", help="show the time of each part of a greedy transcription")
    p.add_argument("file", metavar="FILE", help="an audio or video file")
    shared_flags.add_model(p)
    shared_flags.add_speech(p)
    shared_flags.add_policy(p)
    shared_flags.add_npu(p)
    shared_flags.add_threads(p)
    p.add_argument(
        "--runs",
        type=int,
        default=3,
        help="recorded runs, after one warm-up run; the median run is shown (default: %(default)s)",
    )
    p.add_argument("--trace", metavar="FILE", help="write a trace for chrome://tracing or ui.perfetto.dev as JSON")
    p.add_argument("--json", metavar="FILE", help="write the figures as JSON")


def _add_tune(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("tune", help="measure the backends on this machine and write the fastest policy")
    shared_flags.add_model(p)
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="policy file to write (TOML)")
    p.add_argument(
        "--audio",
        nargs="+",
        default=[],
        metavar="FILE",
        help="measure the error on the first 30 s of these files (default: synthetic speech)",
    )
    p.add_argument(
        "--bound",
        type=float,
        default=5e-3,
        metavar="REL",
        help="largest relative error of the encoder states (default: %(default)s)",
    )
    p.add_argument(
        "--candidate",
        action="append",
        metavar="NAME",
        help="a backend to try besides torch; repeatable (default: the fast backends that can run here)",
    )
    shared_flags.add_npu(p)
    shared_flags.add_threads(p)
    p.add_argument("--rounds", type=int, default=7, help="timed rounds, after one warm-up round (default: %(default)s)")


def _add_plan(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("plan", help="predict an NPU's time for an encoder beside this machine's CPU")
    what = p.add_mutually_exclusive_group()
    shared_flags.add_model(what)
    what.add_argument("--shape", metavar="M,K,N", help="one product (M, K) x (K, N) instead of a model's encoder")
    what.add_argument(
        "--sizes",
        action="store_true",
        help="all model sizes on each NPU, beside this machine's CPU, which is measured with one layer of each size",
    )
    what.add_argument(
        "--published", action="store_true", help="published times beside their predictions, with the errors"
    )
    p.add_argument("--geometry", metavar="NAME", help="tile geometry of a model or product (default: whole-array)")
    p.add_argument(
        "--device",
        metavar="NAME",
        help="cost profile: xdna1, xdna2-native or xdna2-bfp16, seed, seed-scaled (default: xdna1; with --sizes and "
        "--published all but the seed's)",
    )
    p.add_argument("--json", metavar="FILE", help="write the plan as JSON")
    p.add_argument(
        "--stream",
        nargs="?",
        const="",
        metavar="FILE",
        help="print the NPU's instruction stream of --shape instead of the cost; FILE: a built one (insts_MxN.bin), "
        "which is compared with the plan",
    )
    shared_flags.add_threads(p)


def _add_convert(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "convert",
        help="write a model in the format of another engine",
        usage="tilewhisper convert MODEL --to FORMAT DIR [--precision PRECISION]",
        epilog="Exit status: 0 written, 2 the request cannot be met, 130 interrupted.",
    )
    p.add_argument("model", metavar="MODEL", help="an official size, a hub name, a folder or a weights file")
    p.add_argument("folder", metavar="DIR", help="new or empty folder; its files appear when all are complete")
    p.add_argument("--to", required=True, choices=FORMATS, help="format: " + _engines())
    p.add_argument(
        "--precision", metavar="PRECISION", help=f"of the weights; the first is the default: {_precisions()}"
    )


def _engines() -> str:
    return "; ".join(f"{name} for {form.engines}" for name, form in FORMATS.items())


def _precisions() -> str:
    return "; ".join(f"{name} {', '.join(form.precisions)}" for name, form in FORMATS.items())


def _add_build(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("build", help="compile the native CPU kernels now instead of on first use")
    p.add_argument("--force", action="store_true", help="compile again even if they exist")


def _add_npu_check(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "npu-check",
        help="check the NPU's set-up, then run products of known result on it, from one core to the whole array",
        epilog="Exit status: 0 every result is right, 2 a part is missing or a step failed.",
    )
    shared_flags.add_npu(p)
    p.add_argument("--report", metavar="FILE", help="write a report to send as JSON, without private data")
    p.add_argument("--timeout", type=int, default=10_000, metavar="MS", help="for one run (default: %(default)s)")
    other = p.add_argument_group("a design of another tool, such as mlir-aie's whole-array example, instead of ours")
    other.add_argument("--xclbin", metavar="FILE", help="its binary")
    other.add_argument("--instructions", metavar="FILE", help="its instruction stream")
    other.add_argument("--shape", metavar="M,K,N", help="its product (M, K) x (K, N), all matrices row-major")
    other.add_argument(
        "--dtypes", choices=("bf16:f32", "bf16:bf16"), help="of the inputs and the result (default: bf16:f32)"
    )
