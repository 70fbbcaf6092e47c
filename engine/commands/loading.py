"""The model, policy and device that the flags of `transcribe` name, in openai-whisper's or our own spelling."""

from argparse import Namespace
from pathlib import Path

from tilewhisper.engine.compat import DEVICES, policy_of
from tilewhisper.engine.errors import OptionError
from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.checkpoint.catalog import DEFAULT_MODEL
from tilewhisper.models.checkpoint.locate import HubUse

MULTILINGUAL_MODEL = "base"
"""The default for other languages and translation, because DEFAULT_MODEL knows only English; pip can install it too."""


def check_device(name: str | None) -> None:
    """Raises OptionError."""
    if name is not None and name not in DEVICES:
        raise OptionError(
            f"--device must be {' or '.join(DEVICES)}, got {name}: this engine computes on the CPU, and with "
            "--policy npu on an NPU"
        )


def model(args: Namespace) -> str:
    """The name or path of the weights."""
    name = args.model or _default_model(getattr(args, "language", None), getattr(args, "task", None))
    if not args.model_dir:
        return name
    size = catalog.official(name)
    openai_file = Path(args.model_dir, f"{size.name if size else name}.pt")
    candidates = (openai_file, Path(args.model_dir, name))
    return next((str(path) for path in candidates if path.exists()), name)


def hub_use(args: Namespace) -> HubUse:
    return HubUse(args.model_dir, offline=bool(args.local_files_only))


def policy(args: Namespace) -> tuple[str, list[str]]:
    """A policy's name, and the overrides on top of it, the user's own last."""
    name, overrides = policy_of(args.compute_type or "default")
    return args.policy or name, [*overrides, *args.backend]


def _default_model(language: str | None, task: str | None) -> str:
    english = (language or "en").lower() in ("en", "english") and task != "translate"
    return DEFAULT_MODEL if english else MULTILINGUAL_MODEL
