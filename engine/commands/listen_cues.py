"""Cues of live subtitles: final words grouped by phrase, sentence and length."""

from collections.abc import Iterator, Sequence

from tilewhisper.engine.pipeline.live_events import Event, Final, SpeechStopped
from tilewhisper.engine.results import Segment, Word

LONGEST_SECONDS = 7.0
LONGEST_CHARACTERS = 84
"""Two lines of 42 characters."""
SENTENCE_SECONDS = 2.0
"""A sentence of at least this length ends a cue."""
_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")


class Cues:
    """Collects the words of a stream."""

    def __init__(self) -> None:
        self._words: list[Word] = []
        self._count = 0

    def take(self, event: Event) -> Iterator[Segment]:
        """The cues that are complete with this event."""
        if isinstance(event, Final):
            for word in event.words:
                if self._words and _is_full([*self._words, word]):
                    yield self._cue()
                self._words.append(word)
                if word.word.endswith(_SENTENCE_ENDS) and word.end - self._words[0].start >= SENTENCE_SECONDS:
                    yield self._cue()
        elif isinstance(event, SpeechStopped) and self._words:
            yield self._cue()

    def _cue(self) -> Segment:
        words, self._words = self._words, []
        self._count += 1
        return Segment(
            id=self._count - 1,
            seek=0,
            start=words[0].start,
            end=words[-1].end,
            text="".join(word.word for word in words),
            tokens=[],
            avg_logprob=0.0,
            compression_ratio=1.0,
            no_speech_prob=0.0,
            words=words,
            temperature=0.0,
        )


def _is_full(words: Sequence[Word]) -> bool:
    characters = sum(len(word.word) for word in words)
    return characters > LONGEST_CHARACTERS or words[-1].end - words[0].start > LONGEST_SECONDS
