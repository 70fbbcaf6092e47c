"""The errors of this room. Their text is for the user: what was wrong, what was expected, what to do.

ModelsError
├── AudioError          a file or array that is no usable audio
├── ModelNotFound       a model name that is nowhere to be had
├── CheckpointError     weights that are corrupt, incomplete, or not Whisper's
├── LanguageError       a language or task this model does not know
└── VadUnavailable      the voice activity detector is not installed
"""


class ModelsError(Exception):
    """Root of this room's errors."""


class AudioError(ModelsError):
    """A file or array that is no usable audio."""


class ModelNotFound(ModelsError):  # noqa: N818 (reads as the fact it states, like FileNotFoundError)
    """A model name that is nowhere to be had."""


class CheckpointError(ModelsError):
    """Weights that are corrupt, incomplete, or not Whisper's."""


class LanguageError(ModelsError):
    """A language or task this model does not know."""


class VadUnavailable(ModelsError):  # noqa: N818 (reads as the fact it states)
    """The voice activity detector is not installed."""
