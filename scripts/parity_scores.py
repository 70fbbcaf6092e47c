"""Score this engine's transcriptions against openai-whisper's: tokens, word times, error rates, order of segments."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from openai_whisper import Transcription
from quality import count_misplaced, word_error_rate

NEAR = 0.06  # seconds


@dataclass(frozen=True)
class Recording:
    """Samples at 16 kHz, with the reference text where it is known."""

    name: str
    samples: npt.NDArray[np.float32]
    reference: str | None


@dataclass(frozen=True)
class Row:
    """One decoding of some recordings under one setting, by both engines. Rates in percent."""

    model: str
    setting: str
    decoding: str
    what: str
    """The recordings."""
    recordings: int
    different: list[str]
    """Names of recordings whose tokens differ."""
    near: float | None
    """Share of word times within `NEAR` of openai-whisper's; None without words."""
    difference: float
    """Word error rate with openai-whisper's text as the reference."""
    word_error_rate: float | None
    their_word_error_rate: float | None
    disordered: int
    """Segments that start before the previous segment's end or have no length."""
    their_disordered: int

    @property
    def same_tokens(self) -> int:
        """Number of recordings with the same tokens."""
        return self.recordings - len(self.different)


def score(
    model: str,
    setting: str,
    decoding: str,
    what: str,
    recordings: Sequence[Recording],
    pairs: Sequence[tuple[Transcription, Transcription]],
) -> Row:
    """Compare the pairs (ours, theirs), one for each recording."""
    our_texts, their_texts = [ours.text for ours, _ in pairs], [theirs.text for _, theirs in pairs]
    references = [recording.reference for recording in recordings if recording.reference is not None]
    has_references = len(references) == len(recordings)
    return Row(
        model=model,
        setting=setting,
        decoding=decoding,
        what=what,
        recordings=len(recordings),
        different=[
            recording.name
            for recording, (ours, theirs) in zip(recordings, pairs, strict=True)
            if ours.tokens != theirs.tokens
        ],
        near=near(pairs),
        difference=word_error_rate(their_texts, our_texts),
        word_error_rate=word_error_rate(references, our_texts) if has_references else None,
        their_word_error_rate=word_error_rate(references, their_texts) if has_references else None,
        disordered=sum(count_misplaced(ours.spans) for ours, _ in pairs),
        their_disordered=sum(count_misplaced(theirs.spans) for _, theirs in pairs),
    )


def near(pairs: Sequence[tuple[Transcription, Transcription]]) -> float | None:
    """Percentage of word starts and ends within `NEAR` of theirs, over recordings with the same words."""
    within = [
        abs(our_time - their_time) <= NEAR + 1e-6  # times are binary approximations of multiples of 10 ms
        for ours, theirs in pairs
        if [word for word, *_ in ours.words] == [word for word, *_ in theirs.words]
        for (_, *our_times), (_, *their_times) in zip(ours.words, theirs.words, strict=True)
        for our_time, their_time in zip(our_times, their_times, strict=True)
    ]
    return 100 * sum(within) / len(within) if within else None
