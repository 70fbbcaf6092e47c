"""Words and when they were said: from the segments of a window and the times of their tokens.

Tokens become words, punctuation goes with the word it stands at, and what alignment is known to get wrong is put right
by openai-whisper's rules: it stretches words over the silence beside them, so a word that is far longer than the
window's others is cut back where a sentence or a segment begins or ends. The rules only ever cut: words never overlap,
never run backwards, and put together they are their segment's text.

Times going in are seconds from the window's start, coming out seconds of the file. Knows nothing of attention; see
`alignment`.
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from statistics import median

from tilewhisper.engine.results import Segment, Word
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION, Punctuation
from tilewhisper.models.constants import FRAMES_PER_SECOND
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_SENTENCE_ENDS = ".。!！?？"
_LONGEST_TYPICAL = 0.7
"""Seconds; what a typical word takes at most, however slow the others of the window are."""
_TRUSTED = 0.5
"""Seconds; a segment's timestamp is trusted over its words' when it says that much less."""


@dataclass(frozen=True)
class Piece:
    """Tokens that only make sense together, and their text."""

    text: str
    tokens: tuple[int, ...]


def split_words(tokens: Sequence[int], tokenizer: Tokenizer, language: str) -> list[Piece]:
    """Text tokens as words: at spaces and punctuation, or at every character in a language written without spaces.

    The pieces hold all the tokens, and put together all the text, even where its bytes are no whole characters.
    """
    characters = _split_characters(tokens, tokenizer)
    if language in _WITHOUT_SPACES:
        return characters
    words: list[Piece] = []
    for piece in characters:
        if not words or piece.text.startswith(" ") or piece.text.strip() in string.punctuation:
            words.append(piece)
        else:
            words[-1] = Piece(words[-1].text + piece.text, words[-1].tokens + piece.tokens)
    return words


def text_tokens(segment: Segment, tokenizer: Tokenizer) -> list[int]:
    """The tokens whose times are to be known, without timestamps and other specials."""
    return [token for token in segment.tokens if token < tokenizer.eot]


def with_words(
    segments: Sequence[Segment],
    times: Sequence[float],
    probabilities: Sequence[float],
    tokenizer: Tokenizer,
    language: str,
    *,
    last_speech: float,
    punctuation: Punctuation = PUNCTUATION,
) -> list[Segment]:
    """The segments of one window with their words, and with starts and ends that agree with them.

    `times` (text tokens of all segments + 1) are those of `alignment.token_times`, `probabilities` (text tokens) each
    token's; `last_speech` is the end of the last word before this window, in seconds of the file.
    """
    if not segments:
        return []
    spoken = _time(segments, times, probabilities, tokenizer, language)
    typical = _typical_duration([word for words in spoken for word in words])
    cut = _cut_at_sentences([word for words in spoken for word in words], 2 * typical)
    offset = segments[0].seek / FRAMES_PER_SECOND
    done = []
    for segment, words in zip(segments, spoken, strict=True):
        merged = _merge_punctuation(list(islice(cut, len(words))), punctuation)
        placed = [_shift(word, offset, last_speech) for word in merged if word.word]
        done.append(_fit(segment, placed, typical, last_speech))
        if placed:
            last_speech = done[-1].end
    return done


def _split_characters(tokens: Sequence[int], tokenizer: Tokenizer) -> list[Piece]:
    """The shortest runs of tokens that are whole characters: what they say alone is what they say in the text."""
    text = tokenizer.decode(tokens)
    pieces: list[Piece] = []
    done, waiting = 0, list[int]()
    for token in tokens:
        waiting.append(token)
        said = tokenizer.decode(waiting)
        if text.startswith(said, done):
            pieces.append(Piece(said, tuple(waiting)))
            done += len(said)
            waiting = []
    if waiting:
        pieces.append(Piece(text[done:], tuple(waiting)))
    return pieces


def _time(
    segments: Sequence[Segment],
    times: Sequence[float],
    probabilities: Sequence[float],
    tokenizer: Tokenizer,
    language: str,
) -> list[list[Word]]:
    """Each segment's words, punctuation apart. Probability is the mean of the tokens'."""
    spoken = []
    first = 0
    for segment in segments:
        words = []
        for piece in split_words(text_tokens(segment, tokenizer), tokenizer, language):
            last = first + len(piece.tokens)
            probability = sum(probabilities[first:last]) / len(piece.tokens)
            words.append(Word(float(times[first]), float(times[last]), piece.text, probability))
            first = last
        spoken.append(words)
    return spoken


def _typical_duration(words: Sequence[Word]) -> float:
    durations = [word.end - word.start for word in words if word.end > word.start]
    return min(_LONGEST_TYPICAL, median(durations)) if durations else 0.0


def _cut_at_sentences(words: Sequence[Word], longest: float) -> Iterator[Word]:
    """A mark that ends a sentence, and the word after it, take in the pause between sentences: cut it off."""
    yield from words[:1]
    for before, word in pairwise(words):
        if word.end - word.start <= longest:
            yield word
        elif word.word in _SENTENCE_ENDS:
            yield replace(word, end=word.start + longest)
        elif before.word in _SENTENCE_ENDS:
            yield replace(word, start=word.end - longest)
        else:
            yield word


def _merge_punctuation(words: Sequence[Word], punctuation: Punctuation) -> list[Word]:
    """Marks joined to the word they go with, which keeps its times and probability."""
    backwards: list[Word] = []
    for word in reversed(words):
        if backwards and word.word.startswith(" ") and word.word.strip() in punctuation.prepended:
            backwards[-1] = replace(backwards[-1], word=word.word + backwards[-1].word)
        else:
            backwards.append(word)
    merged: list[Word] = []
    for word in reversed(backwards):
        if merged and not merged[-1].word.endswith(" ") and word.word in punctuation.appended:
            merged[-1] = replace(merged[-1], word=merged[-1].word + word.word)
        else:
            merged.append(word)
    return merged


def _shift(word: Word, offset: float, earliest: float) -> Word:
    """The word in seconds of the file, to 10 ms, and not before `earliest`."""
    start, end = (max(round(offset + time, 2), earliest) for time in (word.start, word.end))
    return replace(word, start=start, end=end)


def _fit(segment: Segment, words: list[Word], typical: float, last_speech: float) -> Segment:
    """The segment with its words: its timestamps cut a far longer first or last word, else the words time it."""
    if not words:
        return replace(segment, words=words)
    _cut_after_pause(words, typical, last_speech)
    start, end = segment.start, segment.end
    first = words[0]
    if first.start < start - _TRUSTED and start < first.end:
        words[0] = replace(first, start=max(first.start, min(start, first.end - typical)))
    else:
        start = first.start
    last = words[-1]
    if last.start < end and end + _TRUSTED < last.end:
        words[-1] = replace(last, end=min(last.end, max(end, last.start + typical)))
    else:
        end = last.end
    return replace(segment, start=start, end=end, words=words)


def _cut_after_pause(words: list[Word], typical: float, last_speech: float) -> None:
    """The first two words after a pause take it in: cut them from the front, in place."""
    longest = 2 * typical
    first, second = words[0], words[1] if len(words) > 1 else None
    if first.end - last_speech <= 2 * longest:
        return
    if first.end - first.start <= longest and (second is None or second.end - first.start <= 2 * longest):
        return
    if second is not None and second.end - second.start > longest:
        boundary = second.end - longest
        first, words[1] = replace(first, end=boundary), replace(second, start=boundary)
    words[0] = replace(first, start=max(first.start, first.end - longest))
