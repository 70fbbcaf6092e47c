"""The modules that `import torch` runs and no command uses, left out of it."""

import re
from importlib.util import find_spec
from pathlib import Path

from tilewhisper.engine.commands.deferred_import import defer

TORCH_VERSIONS = ("2.13", "2.14")
"""Those whose import was tested without `TORCH`; others are imported whole."""

TORCH: dict[str, tuple[str, ...]] = {
    "torch._higher_order_ops": ("cond", "while_loop"),
    "torch.func": ("vmap",),
} | dict.fromkeys(
    (
        # training, tracing and other devices
        "torch._meta_registrations",  # shape functions in Python, for tensors without memory
        "torch._native",  # kernels in Triton
        "torch.compiler",
        "torch.cpu",
        "torch.cuda.amp",
        "torch.cuda.tunable",
        "torch.distributed.config",
        "torch.distributions",
        "torch.export",
        "torch.fx.experimental._config",
        "torch.masked",
        "torch.multiprocessing",
        "torch.nested",
        "torch.nn.attention",
        "torch.nn.utils",
        "torch.optim",
        "torch.package.analyze",
        "torch.profiler",
        "torch.sparse",
        "torch.testing",
        "torch.utils.data",
        "torch.xpu",
        # old names of torch.ao.quantization's modules
        "torch.nn.intrinsic",
        "torch.nn.qat",
        "torch.nn.quantizable",
        "torch.nn.quantized",
        "torch.quantization",
        # what some of torch's modules import at their top and use in a function
        "ssl",
        "tarfile",
        "torchgen.model",
        "unittest",
        "unittest.mock",
        # docstrings of functions in C
        "torch._tensor_docs",
    ),
    (),
)
"""Half of the time of `import torch` (2.13), each with the functions that torch's own namespace has of it.

What does use them imports more of torch, as torch.compile does, or asks for one of their names, and so they are run
before it.
"""

_VERSION = re.compile(r"^__version__ = '(\d+\.\d+)", re.MULTILINE)


def leave_out() -> None:
    """Let a later import of torch not run these modules until something needs them."""
    if _torch_version() in TORCH_VERSIONS:
        defer("torch", TORCH)


def _torch_version() -> str | None:
    """The installed torch's major and minor version, without its import (or that of `importlib.metadata`, 7 ms)."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return None
    found = _VERSION.search(Path(torch.origin).with_name("version.py").read_text("utf-8"))
    return found and found[1]
