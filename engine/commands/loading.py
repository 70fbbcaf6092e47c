"""The model, policy and device that the flags of a command name, in openai-whisper's or our own spelling."""

from argparse import Namespace
from pathlib import Path

from tilewhisper.engine.compat import DEVICES, policy_of
from tilewhisper.engine.errors import OptionError
from tilewhisper.models.checkpoint import catalog, default
from tilewhisper.models.checkpoint.locate import HubUse, Source, locate
from tilewhisper.models.tokenizer.languages import code_of


def check_device(name: str | None) -> None:
    """Raises OptionError."""
    if name is not None and name not in DEVICES:
        raise OptionError(
            f"--device must be {' or '.join(DEVICES)}, got {name}: this engine computes on the CPU, and with "
            "--policy npu on an NPU"
        )


def model(args: Namespace) -> Source:
    """The weights of --model, else of the default that knows the language and the task.

    `transcribe` also has --model_dir and --local_files_only. Raises ModelsError.
    """
    folder, offline = getattr(args, "model_dir", None), getattr(args, "local_files_only", None)
    hub_use = HubUse(folder, offline=bool(offline))
    if args.model:
        return (_in_folder(folder, args.model) if folder else None) or locate(args.model, hub_use)
    multilingual = _needs_multilingual(args)
    found = (
        default.installed_default(multilingual=multilingual, find=lambda name: _in_folder(folder, name))
        if folder
        else None
    )
    return found or default.default_model(hub_use, multilingual=multilingual)


def english_only_note(args: Namespace, source: Source) -> str | None:
    """The note for a default model that knows only English, where no language is given."""
    if args.model or getattr(args, "language", None) or not catalog.is_english_only(source.name.removesuffix(".pt")):
        return None
    return f"tilewhisper: note: {default.english_only_note(source.name)} (--language en hides this note)"


def policy(args: Namespace) -> tuple[str, list[str]]:
    """A policy's name, and the overrides on top of it, the user's own last."""
    name, overrides = policy_of(args.compute_type or "default")
    return args.policy or name, [*overrides, *args.backend]


def _in_folder(folder: str, name: str) -> Source | None:
    """The weights of this name in the folder of --model_dir: OpenAI's file, or a folder."""
    size = catalog.official(name)
    candidates = (Path(folder, f"{size.name if size else name}.pt"), Path(folder, name))
    path = next((str(path) for path in candidates if path.exists()), None)
    return locate(path) if path else None


def _needs_multilingual(args: Namespace) -> bool:
    language = code_of(getattr(args, "language", None) or "en")  # None for an unknown one, which the model refuses
    translate = getattr(args, "task", None) == "translate"
    return translate or language not in ("en", None) or getattr(args, "multilingual", False)
