"""Whisper transcription with every encoder matmul routed, layer by layer, to the backend you choose.

The exports are imported when first used: `import tilewhisper` loads neither torch nor numpy.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewhisper.engine.output.writers import format_timestamp
    from tilewhisper.engine.pipeline.live import LiveTranscriber
    from tilewhisper.engine.pipeline.live_events import Final, Partial, SpeechStarted, SpeechStopped
    from tilewhisper.engine.pipeline.live_options import LiveOptions
    from tilewhisper.engine.whisper_model import BatchedInferencePipeline, WhisperModel
    from tilewhisper.models.audio.reader import decode_audio
    from tilewhisper.models.checkpoint.catalog import available_models

__version__ = "0.1.0"

__all__ = [
    "BatchedInferencePipeline",
    "Final",
    "LiveOptions",
    "LiveTranscriber",
    "Partial",
    "SpeechStarted",
    "SpeechStopped",
    "WhisperModel",
    "__version__",
    "available_models",
    "decode_audio",
    "format_timestamp",
]

_EXPORTS = {
    "BatchedInferencePipeline": "tilewhisper.engine.whisper_model",
    "Final": "tilewhisper.engine.pipeline.live_events",
    "LiveOptions": "tilewhisper.engine.pipeline.live_options",
    "LiveTranscriber": "tilewhisper.engine.pipeline.live",
    "Partial": "tilewhisper.engine.pipeline.live_events",
    "SpeechStarted": "tilewhisper.engine.pipeline.live_events",
    "SpeechStopped": "tilewhisper.engine.pipeline.live_events",
    "WhisperModel": "tilewhisper.engine.whisper_model",
    "available_models": "tilewhisper.models.checkpoint.catalog",
    "decode_audio": "tilewhisper.models.audio.reader",
    "format_timestamp": "tilewhisper.engine.output.writers",
}

# Installed, engine/, kernels/ and models/ lie inside this folder; in a checkout they lie beside it.
if not (_here := Path(__file__).parent).joinpath("engine").is_dir():
    __path__.append(str(_here.parent))


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
