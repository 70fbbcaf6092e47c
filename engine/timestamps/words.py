"""Word timestamps of a window's segments, from the times of their tokens.

Tokens are grouped to words and punctuation is merged with its word. Alignment tends to stretch words over neighbouring
silence; openai-whisper's rules correct that by shortening words much longer than the window's others at the start and
end of sentences and segments. The rules only shorten words: words never overlap, are in order, and concatenate to their
segment's text.

Input times are seconds from the window's start, output times are seconds of the file. Knows nothing of attention; see
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
_MAX_TYPICAL_DURATION = 0.7
"""Seconds. Upper limit of the typical word duration, for windows with slow speech."""
_TIMESTAMP_MARGIN = 0.5
"""Seconds. A segment's timestamp overrides its first or last word if the word exceeds it by more than this."""


@dataclass(frozen=True)
class WordTokens:
    """The text and tokens of a word, or of part of it."""

    text: str
    tokens: tuple[int, ...]


def split_words(tokens: Sequence[int], tokenizer: Tokenizer, language: str) -> list[WordTokens]:
    """Split text tokens into words: at spaces and punctuation, or into characters for languages without spaces.

    The words have all tokens and concatenate to the whole text, even if it ends in an incomplete UTF-8 character.
    """
    characters = _split_characters(tokens, tokenizer)
    if language in _WITHOUT_SPACES:
        return characters
    words: list[WordTokens] = []
    for part in characters:
        if not words or part.text.startswith(" ") or part.text.strip() in string.punctuation:
            words.append(part)
        else:
            words[-1] = WordTokens(words[-1].text + part.text, words[-1].tokens + part.tokens)
    return words


def text_tokens(segment: Segment, tokenizer: Tokenizer) -> list[int]:
    """The segment's tokens without timestamps and other special tokens."""
    return [token for token in segment.tokens if token < tokenizer.eot]


def add_word_timestamps(
    segments: Sequence[Segment],
    times: Sequence[float],
    probabilities: Sequence[float],
    tokenizer: Tokenizer,
    language: str,
    *,
    last_speech: float,
    punctuation: Punctuation = PUNCTUATION,
) -> list[Segment]:
    """Add words to the segments of a window, and adjust the segments' starts and ends to them.

    `times` (text tokens of all segments + 1) come from `alignment.token_times`, `probabilities` (text tokens) from
    `alignment.token_probabilities`; `last_speech` is the end of the last word before this window, in seconds of the
    file.
    """
    if not segments:
        return []
    timed = _timed_words(segments, times, probabilities, tokenizer, language)
    typical = _typical_duration([word for words in timed for word in words])
    shortened = _shorten_at_sentences([word for words in timed for word in words], 2 * typical)
    offset = segments[0].seek / FRAMES_PER_SECOND
    result = []
    for segment, words in zip(segments, timed, strict=True):
        merged = _merge_punctuation(list(islice(shortened, len(words))), punctuation)
        shifted = [_shift(word, offset, last_speech) for word in merged if word.word]
        result.append(_fit(segment, shifted, typical, last_speech))
        if shifted:
            last_speech = result[-1].end
    return result


def _split_characters(tokens: Sequence[int], tokenizer: Tokenizer) -> list[WordTokens]:
    """The shortest runs of tokens that are whole characters: decoded alone, a run gives its part of the text."""
    text = tokenizer.decode(tokens)
    characters: list[WordTokens] = []
    done, pending = 0, list[int]()
    for token in tokens:
        pending.append(token)
        decoded = tokenizer.decode(pending)
        if text.startswith(decoded, done):
            characters.append(WordTokens(decoded, tuple(pending)))
            done += len(decoded)
            pending = []
    if pending:
        characters.append(WordTokens(text[done:], tuple(pending)))
    return characters


def _timed_words(
    segments: Sequence[Segment],
    times: Sequence[float],
    probabilities: Sequence[float],
    tokenizer: Tokenizer,
    language: str,
) -> list[list[Word]]:
    """Each segment's words, with punctuation as separate words; the probability is the mean over the tokens."""
    timed = []
    first = 0
    for segment in segments:
        words = []
        for word in split_words(text_tokens(segment, tokenizer), tokenizer, language):
            last = first + len(word.tokens)
            probability = sum(probabilities[first:last]) / len(word.tokens)
            words.append(Word(float(times[first]), float(times[last]), word.text, probability))
            first = last
        timed.append(words)
    return timed


def _typical_duration(words: Sequence[Word]) -> float:
    durations = [word.end - word.start for word in words if word.end > word.start]
    return min(_MAX_TYPICAL_DURATION, median(durations)) if durations else 0.0


def _shorten_at_sentences(words: Sequence[Word], longest: float) -> Iterator[Word]:
    """Remove the pause between sentences from the mark that ends a sentence, and from the word after it."""
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
    """Merge punctuation with its word, which keeps its times and probability."""
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
    """Convert the word's times to seconds of the file, rounded to 10 ms and at least `earliest`."""
    start, end = (max(round(offset + time, 2), earliest) for time in (word.start, word.end))
    return replace(word, start=start, end=end)


def _fit(segment: Segment, words: list[Word], typical: float, last_speech: float) -> Segment:
    """Add the words to the segment.

    The segment's start and end become those of its words; a first or last word that exceeds the segment's timestamps by
    far is shortened instead.
    """
    if not words:
        return replace(segment, words=words)
    _shorten_after_pause(words, typical, last_speech)
    start, end = segment.start, segment.end
    first = words[0]
    if first.start < start - _TIMESTAMP_MARGIN and start < first.end:
        words[0] = replace(first, start=max(first.start, min(start, first.end - typical)))
    else:
        start = first.start
    last = words[-1]
    if last.start < end and end + _TIMESTAMP_MARGIN < last.end:
        words[-1] = replace(last, end=min(last.end, max(end, last.start + typical)))
    else:
        end = last.end
    return replace(segment, start=start, end=end, words=words)


def _shorten_after_pause(words: list[Word], typical: float, last_speech: float) -> None:
    """Remove a pause from the start of the first two words after it, in place."""
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
