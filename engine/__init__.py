"""Whisper end to end: route, encode, decode, report. `WhisperModel` is the entrance; it is imported when first used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewhisper.engine.model import BatchedInferencePipeline, WhisperModel

__all__ = ["BatchedInferencePipeline", "WhisperModel"]


def __getattr__(name: str) -> Any:
    # Importing the model pulls in torch (2 s); `tilewhisper --help` and its errors should not wait for that.
    if name in __all__:
        from tilewhisper.engine import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
