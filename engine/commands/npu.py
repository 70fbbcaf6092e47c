"""The NPU flags of the command line as settings for the backends."""

from argparse import Namespace

from tilewhisper.kernels.base import Settings


def settings(args: Namespace) -> Settings:
    """The settings that create a backend."""
    return Settings(npu=args.npu, npu_kernels=args.npu_kernels, npu_fault=args.npu_fault)
