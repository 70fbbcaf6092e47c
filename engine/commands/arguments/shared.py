"""Flags that several commands have: the model, speech, policies, the NPU and threads."""

import argparse

from tilewhisper.engine.commands import flags
from tilewhisper.engine.routing.policy import DEFAULT_POLICY
from tilewhisper.models.checkpoint.default import FALLBACK

POLICY = f"a preset's name or a TOML file (default: {DEFAULT_POLICY})"
MODEL = (
    "an official size, a hub name, a folder or a weights file (default: the first installed multilingual size, "
    f"{FALLBACK} before others; else an installed English-only size)"
)


def add_model(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--model",
        metavar="NAME|PATH",
        help=MODEL,
    )


def add_speech(p: argparse.ArgumentParser) -> None:
    for name in ("language", "task", "audio_context"):
        flag = flags.FLAGS[name]
        flag.add_to(p, default=flag.field.default)


def add_policy(p: argparse._ActionsContainer) -> None:
    p.add_argument("--policy", default=DEFAULT_POLICY, metavar="NAME|FILE", help=POLICY)
    add_backend(p)


def add_backend(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="SITES=NAME",
        help="route these products to this backend, on top of the policy; repeatable, the last match wins: "
        "'layers.3.*=bf16'",
    )


def add_npu(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--npu",
        choices=("auto", "xdna1", "xdna2", "emulated"),
        default="auto",
        help="the NPU that a policy uses: the device (auto; xdna1 or xdna2 if its name is unknown) or a far slower "
        "emulation of it (default: %(default)s)",
    )
    p.add_argument("--npu_kernels", metavar="DIR", help="folder of compiled NPU designs (see docs/npu.md)")
    p.add_argument(
        "--npu_fault",
        metavar="FAULT",
        help="make the emulated NPU fail, to test fallbacks: hang:N[,N...] or lost:N at its N-th run, or contexts",
    )


def add_threads(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="CPU threads; 0 is torch's own number (default: %(default)s)",
    )


def add_truth(p: argparse._ActionsContainer, name: str, help: str) -> None:
    p.add_argument(f"--{name}", type=flags.truth, nargs="?", const=True, metavar="True|False", help=help)
