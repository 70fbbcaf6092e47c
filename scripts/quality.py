"""What transcripts are judged by: error rates in percent over all texts, and timestamps that run backwards."""

import unicodedata
from collections.abc import Sequence

import jiwer

_TOLERANCE = 1e-3  # seconds; some peers' times are float32


def word_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """Of English, as Whisper normalises it."""
    from tilewhisper.engine.tuning.transformers_whisper import normalizer  # imports transformers

    normalize = normalizer()
    return 100 * jiwer.wer([normalize(text) for text in references], [normalize(text) for text in texts])


def character_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """Of any language; case, punctuation and Unicode's several forms of a character do not count."""
    return 100 * jiwer.cer([_plain(text) for text in references], [_plain(text) for text in texts])


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(" " if unicodedata.category(one)[0] in "PS" else one for one in letters).split())


def misplaced(spans: Sequence[tuple[float, float]]) -> int:
    """How many (start, end) are not after the one before, or end no later than they start."""
    before = 0.0
    faults = 0
    for start, end in spans:
        faults += start < before - _TOLERANCE or end <= start
        before = end
    return faults
