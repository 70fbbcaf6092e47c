"""The command line: arguments in, exit status out. Each command is a module of `engine.commands`.

Exit status: 0 all done, 2 what was asked cannot be done, 3 some files of several failed, 130 interrupted.
"""

import argparse
import atexit
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from tilewhisper.engine import startup
from tilewhisper.engine.commands import flags
from tilewhisper.engine.commands.loading import MULTILINGUAL_MODEL
from tilewhisper.engine.compat import COMPUTE_TYPES
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.routing.policy import DEFAULT_POLICY
from tilewhisper.models.checkpoint.catalog import DEFAULT_MODEL

_ABOUT = "Transcribe speech with Whisper, every encoder matmul on the backend you choose."
_TRANSCRIBE = (
    "The text goes to standard output, figures and errors to standard error. Files are written where --output_format, "
    "--output_dir or --verbose False asks for them, as openai-whisper writes them. Flags go with underscores or dashes."
)
_STATUSES = "Exit status: 0 all done, 2 what was asked cannot be done, 3 some files of several failed, 130 interrupted."
FORMATS = ("txt", "vtt", "srt", "tsv", "json", "jsonl", "all")
DEFAULT_BATCH_SIZE = 8
_FLAG = re.compile(r"(?<=^--)[^=]*")


def program() -> NoReturn:
    """`main` as a process of its own, which ends when its work is done.

    Python and torch would take all their objects apart first: 0.14 s. What is registered for the end is still called;
    where a stream cannot be written, Python ends as it always does, which has the words and the status for that.
    """
    status = main()
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(status)
    os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(_underscored(sys.argv[1:] if arguments is None else arguments))
    try:
        with startup.fast_imports():
            return _run(args)
    except USER_ERRORS as e:
        print(f"tilewhisper: error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tilewhisper: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`); that is its right. Keep the interpreter from saying so at exit.
        sys.stdout = None
        return 0


def _run(args: argparse.Namespace) -> int:
    # A command is imported when it is asked for: torch and transformers take seconds.
    command = import_module(f"tilewhisper.engine.commands.{args.command}")
    status: int = command.run(args)
    return status


def _underscored(words: Sequence[str]) -> list[str]:
    """--dash-case as --snake_case, which is how flags are known here; what follows a lone -- is no flag."""
    flags = words.index("--") if "--" in words else len(words)
    return [_FLAG.sub(lambda flag: flag[0].replace("-", "_"), word) for word in words[:flags]] + list(words[flags:])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tilewhisper", description=_ABOUT)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_transcribe(commands)
    _add_layers(commands)
    _add_bench(commands)
    _add_profile(commands)
    _add_tune(commands)
    _add_plan(commands)
    _add_build(commands)
    commands.add_parser("doctor", help="what this machine can run, and why not the rest")
    return parser


class _Version(argparse.Action):
    """Looked up when it is asked for: 40 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"tilewhisper {version('tilewhisper')}")
        parser.exit()


def _add_transcribe(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser(
        "transcribe",
        help="transcribe audio files and report the real-time factor",
        usage="tilewhisper transcribe FILE [FILE ...] [options]",
        description=_TRANSCRIBE,
        epilog=_STATUSES,
    )
    p.add_argument("files", nargs="+", metavar="FILE", help="audio or video files, or folders of them")
    _add_output(p.add_argument_group("output"))
    for title, members in flags.GROUPS.items():
        group = p.add_argument_group(title)
        for flag in members:
            flag.add_to(group)
    _add_weights(p.add_argument_group("model"))
    _add_machine(p.add_argument_group("machine"))


def _add_output(p: argparse._ArgumentGroup) -> None:
    p.add_argument("-f", "--output_format", choices=FORMATS, help="the files' format (default: all)")
    p.add_argument("-o", "--output_dir", metavar="DIR", help="the files' folder, made when missing (default: .)")
    p.add_argument(
        "--verbose",
        type=flags.truth,
        metavar="True|False",
        help="True shows times with the text; False shows no text and no figures, and writes files (default: neither)",
    )
    p.add_argument("--report", metavar="FILE", help="write what the run cost and what ran where as JSON")


def _add_weights(p: argparse._ArgumentGroup) -> None:
    p.add_argument(
        "--model",
        metavar="NAME|PATH",
        help="an official size, a hub name, a folder or a weights file "
        f"(default: {DEFAULT_MODEL}; {MULTILINGUAL_MODEL} where another language or a translation is asked for)",
    )
    p.add_argument("--model_dir", metavar="DIR", help="where weights are looked for first, and downloaded to")
    _add_truth(p, "local_files_only", "do not ask the hub (default: False)")


def _add_machine(p: argparse._ArgumentGroup) -> None:
    which = p.add_mutually_exclusive_group()
    which.add_argument("--policy", metavar="NAME|FILE", help=f"(default: {DEFAULT_POLICY})")
    which.add_argument(
        "--compute_type",
        choices=COMPUTE_TYPES,
        help="a policy by CTranslate2's name for it: float32 is torch, bfloat16 is bf16, int16 is cpu; int8 and "
        "int8_float32 are int8",
    )
    _add_backend(p)
    _add_npu(p)
    _add_threads(p)
    _add_truth(
        p,
        "batched",
        "cut each file at silences and decode its pieces together (default: False, True where --batch_size is given "
        "with one file); without it, several files are decoded together, each as it would be alone",
    )
    p.add_argument(
        "--batch_size",
        type=int,
        metavar="N",
        help="the most files, or pieces of one, that are decoded together; 1 does files one after the other "
        f"(default: {DEFAULT_BATCH_SIZE} pieces, of files what cores and memory say)",
    )
    p.add_argument("--device", metavar="NAME", help="cpu, which is the default; an NPU goes by --policy npu")
    _add_truth(p, "fp16", "taken for openai-whisper's sake; has no effect: --policy says what computes")


def _add_truth(p: argparse._ActionsContainer, name: str, help: str) -> None:
    p.add_argument(f"--{name}", type=flags.truth, nargs="?", const=True, metavar="True|False", help=help)


def _add_layers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser("layers", help="list the encoder's products, their sizes, and where a policy sends them")
    _add_model(p)
    _add_policy(p)
    _add_npu(p)


def _add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser("bench", help="measure policies side by side with transformers' own generate, greedily")
    p.add_argument("files", nargs="+", metavar="FILE", help="audio or video files")
    _add_model(p)
    _add_speech(p)
    p.add_argument(
        "--policy", action="append", metavar="NAME|FILE", help=f"a policy; repeatable (default: {DEFAULT_POLICY})"
    )
    _add_npu(p)
    _add_threads(p)
    p.add_argument("--runs", type=int, default=5, help="measured runs of each, after one that warms up (default: 5)")
    p.add_argument("--peer", choices=("transformers", "none"), default="transformers", help="what to stand beside")
    p.add_argument("--json", metavar="FILE", help="write the figures as JSON")


def _add_profile(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser("profile", help="show where a greedy transcription's time goes, part by part")
    p.add_argument("file", metavar="FILE", help="an audio or video file")
    _add_model(p)
    _add_speech(p)
    _add_policy(p)
    _add_npu(p)
    _add_threads(p)
    p.add_argument(
        "--runs", type=int, default=3, help="recorded runs, after one that warms up; the median one counts (default: 3)"
    )
    p.add_argument("--trace", metavar="FILE", help="write a trace for chrome://tracing or ui.perfetto.dev as JSON")
    p.add_argument("--json", metavar="FILE", help="write the figures as JSON")


def _add_tune(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser("tune", help="measure the backends on this machine and write the fastest policy of them")
    _add_model(p)
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="the policy to write, TOML")
    p.add_argument(
        "--audio",
        nargs="+",
        default=[],
        metavar="FILE",
        help="measure the error on the first 30 s of each of these (default: a synthetic sound like speech)",
    )
    p.add_argument(
        "--bound", type=float, default=5e-3, metavar="REL", help="on the error of encoder states (default: %(default)s)"
    )
    p.add_argument(
        "--candidate",
        action="append",
        metavar="NAME",
        help="a backend to try beside torch; repeatable (default: those made for speed that can run here)",
    )
    _add_npu(p)
    _add_threads(p)
    p.add_argument("--rounds", type=int, default=7, help="timed rounds, after one that warms up (default: 7)")


def _add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser("plan", help="predict how an NPU would cut an encoder's products, and what they would cost")
    what = p.add_mutually_exclusive_group()
    _add_model(what)
    what.add_argument("--shape", metavar="M,K,N", help="one product (M, K) x (K, N) instead of a model's encoder")
    p.add_argument("--geometry", default="whole-array", metavar="NAME", help="the cut (default: %(default)s)")
    p.add_argument("--device", default="xdna1", metavar="NAME", help="whose costs to predict (default: %(default)s)")
    p.add_argument("--json", metavar="FILE", help="write the plan as JSON")


def _add_build(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser("build", help="compile the native CPU kernels now instead of on first use")
    p.add_argument("--force", action="store_true", help="even when they are there already")


def _add_model(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|PATH",
        help=f"an official size, a hub name, a folder or a weights file (default: {DEFAULT_MODEL})",
    )


def _add_speech(p: argparse.ArgumentParser) -> None:
    p.add_argument("--language", help="code or English name; detected when not given")
    p.add_argument("--task", choices=("transcribe", "translate"), default="transcribe", help="translate is to English")
    p.add_argument(
        "--audio_context",
        default="auto",
        metavar="HOW",
        help="how much of the silence after a short window is encoded: full, sparse:S, silent or auto (default: auto)",
    )


def _add_policy(p: argparse.ArgumentParser) -> None:
    p.add_argument("--policy", default=DEFAULT_POLICY, metavar="NAME|FILE", help=f"(default: {DEFAULT_POLICY})")
    _add_backend(p)


def _add_backend(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="SITES=NAME",
        help="send these sites to this backend, on top of the policy; repeatable, the last one wins: 'layers.3.*=bf16'",
    )


def _add_npu(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--npu",
        choices=("auto", "emulated"),
        default="auto",
        help="which NPU a policy's `npu` means: the real one (auto) or an emulation of it, far slower (default: auto)",
    )
    p.add_argument("--npu_kernels", metavar="DIR", help="folder of built designs (see docs/npu.md)")
    p.add_argument(
        "--npu_fault",
        metavar="FAULT",
        help="make the emulated NPU fail, to try out a fallback: hang:N[,N...] or lost:N at its N-th run, or contexts",
    )


def _add_threads(p: argparse._ActionsContainer) -> None:
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: as many as torch takes)")


if __name__ == "__main__":
    program()
