"""The arguments of the commands that measure or predict: layers, bench, profile, tune, plan."""

import argparse

from tilewhisper.engine.commands.arguments import shared
from tilewhisper.engine.commands.hints import HintingParser


def add_layers(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("layers", help="list the products of the encoder: size, and backend by a policy")
    shared.add_model(p)
    shared.add_policy(p)
    shared.add_npu(p)


def add_bench(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("bench", help="compare the speed of policies, and of transformers, with greedy decoding")
    p.add_argument("files", nargs="+", metavar="FILE", help="audio or video files")
    shared.add_model(p)
    shared.add_speech(p)
    p.add_argument("--policy", action="append", metavar="NAME|FILE", help=f"{shared.POLICY}; repeatable")
    shared.add_npu(p)
    shared.add_threads(p)
    p.add_argument("--runs", type=int, default=5, help="measured runs, after one warm-up run (default: %(default)s)")
    p.add_argument(
        "--peer",
        choices=("transformers", "none"),
        default="transformers",
        help="other engine (default: %(default)s)",
    )
    p.add_argument("--json", metavar="FILE", help="write the figures as JSON")


def add_profile(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("profile", help="show the time of each part of a greedy transcription")
    p.add_argument("file", metavar="FILE", help="an audio or video file")
    shared.add_model(p)
    shared.add_speech(p)
    shared.add_policy(p)
    shared.add_npu(p)
    shared.add_threads(p)
    p.add_argument(
        "--runs",
        type=int,
        default=3,
        help="recorded runs, after one warm-up run; the median run is shown (default: %(default)s)",
    )
    p.add_argument("--trace", metavar="FILE", help="write a trace for chrome://tracing or ui.perfetto.dev as JSON")
    p.add_argument("--json", metavar="FILE", help="write the figures as JSON")


def add_tune(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("tune", help="measure the backends on this machine and write the fastest policy")
    shared.add_model(p)
    p.add_argument("-o", "--output", metavar="FILE", help="policy file to write (TOML)")
    p.add_argument(
        "--map",
        metavar="FILE",
        help="page to write (HTML): for each product and candidate, the error that it alone adds to the encoder states "
        "and to the text of --audio, and the time it saves",
    )
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
    shared.add_npu(p)
    shared.add_threads(p)
    p.add_argument("--rounds", type=int, default=7, help="timed rounds, after one warm-up round (default: %(default)s)")


def add_plan(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("plan", help="predict an NPU's time for an encoder beside this machine's CPU")
    what = p.add_mutually_exclusive_group()
    shared.add_model(what)
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
    shared.add_threads(p)
