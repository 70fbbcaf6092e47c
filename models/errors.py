"""Errors of the models package. Each text is for the user: what was wrong, what is allowed, what to do.

ModelsError
├── AudioError          a file or array that is not usable audio
├── ModelNotFound       a model name or path that does not exist
├── CheckpointError     weights that are corrupt, incomplete, or not Whisper's
├── ExportError         a checkpoint that cannot be written in another format
├── LanguageError       a language or task the model does not support
└── VadUnavailable      the voice activity detector is not installed
"""


class ModelsError(Exception):
    """Base class of the models package's errors."""


class AudioError(ModelsError):
    """A file or array that is not usable audio."""


class ModelNotFound(ModelsError):  # noqa: N818 (named like FileNotFoundError's condition)
    """A model name or path that does not exist."""


class CheckpointError(ModelsError):
    """Weights that are corrupt, incomplete, or not Whisper's."""


class ExportError(ModelsError):
    """A checkpoint that cannot be written in another format."""


class LanguageError(ModelsError):
    """A language or task the model does not support."""


class VadUnavailable(ModelsError):  # noqa: N818 (names the condition, as ModelNotFound does)
    """The voice activity detector is not installed."""
