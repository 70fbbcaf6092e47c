"""Quality of transcripts: error rates in percent over all texts, and segments out of order."""

import unicodedata
from collections.abc import Sequence

import jiwer

_TOLERANCE = 1e-3  # seconds; some engines' times are float32


def word_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """Word error rate of English texts after Whisper's normalization."""
    from tilewhisper.engine.tuning.transformers_whisper import normalizer  # imports transformers

    normalize = normalizer()
    return 100 * jiwer.wer([normalize(text) for text in references], [normalize(text) for text in texts])


def character_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """Character error rate in any language, ignoring case, punctuation and Unicode normalization forms."""
    return 100 * jiwer.cer([_normalize(text) for text in references], [_normalize(text) for text in texts])


def _normalize(text: str) -> str:
    characters = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(" " if unicodedata.category(c)[0] in "PS" else c for c in characters).split())


def count_misplaced(spans: Sequence[tuple[float, float]]) -> int:
    """Count segments (start, end), in seconds, that start before the previous segment's end or have no length."""
    previous_end = 0.0
    count = 0
    for start, end in spans:
        count += start < previous_end - _TOLERANCE or end <= start
        previous_end = end
    return count
