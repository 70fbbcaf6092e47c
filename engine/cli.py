"""The command line: arguments in, exit status out. Each command is a module of `engine.commands`.

Exit status: 0 all done, 2 what was asked cannot be done, 3 some files of several failed, 130 interrupted.
"""

import argparse
import atexit
import gc
import sys
from collections.abc import Sequence
from importlib import import_module

from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.policy import DEFAULT_POLICY
from tilewhisper.models.catalog import DEFAULT_MODEL

_ABOUT = "Transcribe speech with Whisper, every encoder matmul on the backend you choose."
FORMATS = ("txt", "vtt", "srt", "tsv", "json", "jsonl", "all")


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    # Python ends by looking over all objects for garbage; with torch's there are enough to take 0.4 s.
    atexit.register(gc.freeze)
    # A command is imported when it is asked for: torch and transformers take seconds.
    command = import_module(f"tilewhisper.engine.commands.{args.command}")
    try:
        status: int = command.run(args)
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
    return status


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
    p = commands.add_parser("transcribe", help="transcribe audio files and report the real-time factor")
    p.add_argument("files", nargs="+", metavar="FILE", help="audio or video files")
    _add_model(p)
    _add_speech(p)
    _add_policy(p)
    _add_npu(p)
    _add_threads(p)
    p.add_argument("--report", metavar="FILE", help="write what the run cost and what ran where as JSON")
    p.add_argument(
        "-f",
        "--output_format",
        "--output-format",
        choices=FORMATS,
        help="write a file of this format, or of each (default: txt)",
    )
    p.add_argument("-o", "--output_dir", "--output-dir", metavar="DIR", help="write the files here (default: .)")


def _add_layers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser("layers", help="list the encoder's products, their sizes, and where a policy sends them")
    _add_model(p)
    _add_policy(p)
    _add_npu(p)


def _add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = commands.add_parser("bench", help="measure policies side by side with transformers' own generate")
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
    p = commands.add_parser("profile", help="show where a transcription's time goes, stage by stage and site by site")
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
        "--audio-context",
        default="auto",
        metavar="HOW",
        help="how much of the silence after a short window is encoded: full, sparse:S, silent or auto (default: auto)",
    )


def _add_policy(p: argparse.ArgumentParser) -> None:
    p.add_argument("--policy", default=DEFAULT_POLICY, metavar="NAME|FILE", help=f"(default: {DEFAULT_POLICY})")
    p.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="SITES=NAME",
        help="send these sites to this backend, on top of the policy; repeatable, the last one wins: 'layers.3.*=bf16'",
    )


def _add_npu(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--npu",
        choices=("auto", "emulated"),
        default="auto",
        help="which NPU a policy's `npu` means: the real one (auto) or an emulation of it, far slower (default: auto)",
    )
    p.add_argument("--npu_kernels", "--npu-kernels", metavar="DIR", help="folder of built designs (see docs/npu.md)")
    p.add_argument(
        "--npu_fault",
        "--npu-fault",
        metavar="FAULT",
        help="make the emulated NPU fail, to try out a fallback: hang:N[,N...] or lost:N at its N-th run, or contexts",
    )


def _add_threads(p: argparse.ArgumentParser) -> None:
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: as many as torch takes)")


if __name__ == "__main__":
    sys.exit(main())
