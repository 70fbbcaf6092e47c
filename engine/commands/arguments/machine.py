"""The arguments of the commands on this machine: build, doctor, npu-check."""

import argparse

from tilewhisper.engine.commands.arguments import shared
from tilewhisper.engine.commands.hints import HintingParser


def add_build(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser("build", help="compile the native CPU kernels now instead of on first use")
    p.add_argument("--force", action="store_true", help="compile again even if they exist")


def add_doctor(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    commands.add_parser("doctor", help="show what this machine can run, and why it cannot run the rest")


def add_npu_check(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "npu-check",
        help="check the NPU's set-up, then run products of known result on it, from one core to the whole array",
        epilog="Exit status: 0 every result is right, 2 a part is missing or a step failed.",
    )
    shared.add_npu(p)
    p.add_argument("--report", metavar="FILE", help="write a report to send as JSON, without private data")
    p.add_argument("--timeout", type=int, default=10_000, metavar="MS", help="for one run (default: %(default)s)")
    other = p.add_argument_group("a design of another tool, such as mlir-aie's whole-array example, instead of ours")
    other.add_argument("--xclbin", metavar="FILE", help="its binary")
    other.add_argument("--instructions", metavar="FILE", help="its instruction stream")
    other.add_argument("--shape", metavar="M,K,N", help="its product (M, K) x (K, N), all matrices row-major")
    other.add_argument(
        "--dtypes", choices=("bf16:f32", "bf16:bf16"), help="of the inputs and the result (default: bf16:f32)"
    )
