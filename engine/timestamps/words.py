"""Word timestamps of a window's segments, from the times of their tokens.

Tokens are grouped to words and punctuation is merged with its word. Alignment tends to stretch words over neighbouring
silence and music. openai-whisper's rules shorten words much longer than the window's others at the start and end of
sentences and segments; words that are longer than `LONGEST_WORD` even then are shortened, too. The rules only shorten
words: words never overlap, are in order, and concatenate to their segment's text.

Input times are seconds from the window's start, output times are seconds of the file. Knows nothing of attention; see
`alignment`.
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from statistics import median

from tilewhisper.engine.results import Segment, Word
from tilewhisper.engine.timestamps.alignment import TokenTimes
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION, Punctuation
from tilewhisper.models.constants import FRAMES_PER_SECOND
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_SENTENCE_ENDS = ".。!！?？"
_MAX_TYPICAL_DURATION = 0.7
"""Seconds. Upper limit of the typical word duration, for windows with slow speech."""
LONGEST_WORD = 1.5
"""Seconds. Of 1,044 words of 60 LibriSpeech clips (tiny.en), the longest without a pause in it has 1.24 s."""
_TIMESTAMP_MARGIN = 0.5
"""Seconds. A segment's timestamp overrides its first or last word if the word exceeds it by more than this."""


@dataclass(frozen=True)
class WordTokens:
    """The text and tokens of a word, or of part of it."""

    text: str
    tokens: tuple[int, ...]


@dataclass
class _TimedWord(Word):
    """A word whose times are not final; it knows where the model attends to it most."""

    peak: float


def split_words(tokens: Sequence[int], tokenizer: Tokenizer, language: str) -> list[WordTokens]:
    """Split text tokens into words: at spaces and punctuation, or into characters for languages without spaces.

    The words have all tokens and concatenate to the whole text, even if it ends in an incomplete UTF-8 character.
    """
    characters = _split_characters(tokens, tokenizer)
    if language in WITHOUT_SPACES:
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
    times: TokenTimes,
    probabilities: Sequence[float],
    tokenizer: Tokenizer,
    language: str,
    *,
    last_speech: float,
    punctuation: Punctuation = PUNCTUATION,
    cuts: Sequence[float] = (),
) -> list[Segment]:
    """Add words to the segments of a window, and adjust the segments' starts and ends to them.

    `times` and `probabilities` are those of the text tokens of all segments, from `alignment`; `last_speech` is the end
    of the last word before this window, and no word reaches over one of the `cuts`, all in seconds of the file.
    """
    if not segments:
        return []
    offset = segments[0].seek / FRAMES_PER_SECOND
    groups = [split_words(text_tokens(segment, tokenizer), tokenizer, language) for segment in segments]
    words = _timed_words(
        [word for group in groups for word in group], times, probabilities, cuts=[cut - offset for cut in cuts]
    )
    typical = _typical_duration(words)
    shortened = _shorten_at_sentences(words, 2 * typical)
    result = []
    for segment, group in zip(segments, groups, strict=True):
        merged = _merge_punctuation(list(islice(shortened, len(group))), punctuation)
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
    words: Sequence[WordTokens], times: TokenTimes, probabilities: Sequence[float], cuts: Sequence[float]
) -> list[_TimedWord]:
    """The words, with punctuation as separate words, in seconds of the window.

    The probability is the mean over the tokens, the peak that of the longest. A word across a cut lies on the side of
    its peak.
    """
    timed = []
    first = 0
    for word in words:
        last = first + len(word.tokens)
        longest = max(range(first, last), key=lambda token: times.starts[token + 1] - times.starts[token])
        start, end, peak = times.starts[first], times.starts[last], times.peaks[longest]
        for cut in cuts:
            if start < cut < end:
                start, end = (start, cut) if peak < cut else (cut, end)
        probability = sum(probabilities[first:last]) / len(word.tokens)
        timed.append(_TimedWord(start, end, word.text, probability, peak))
        first = last
    return timed


def _typical_duration(words: Sequence[_TimedWord]) -> float:
    durations = [word.end - word.start for word in words if word.end > word.start]
    return min(_MAX_TYPICAL_DURATION, median(durations)) if durations else 0.0


def _shorten_at_sentences(words: Sequence[_TimedWord], longest: float) -> Iterator[_TimedWord]:
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


def _merge_punctuation(words: Sequence[_TimedWord], punctuation: Punctuation) -> list[_TimedWord]:
    """Merge punctuation with its word, which keeps its times and probability."""
    backwards: list[_TimedWord] = []
    for word in reversed(words):
        if backwards and word.word.startswith(" ") and word.word.strip() in punctuation.prepended:
            backwards[-1] = replace(backwards[-1], word=word.word + backwards[-1].word)
        else:
            backwards.append(word)
    merged: list[_TimedWord] = []
    for word in reversed(backwards):
        if merged and not merged[-1].word.endswith(" ") and word.word in punctuation.appended:
            merged[-1] = replace(merged[-1], word=merged[-1].word + word.word)
        else:
            merged.append(word)
    return merged


def _shift(word: _TimedWord, offset: float, earliest: float) -> _TimedWord:
    """Convert the word's times to seconds of the file, rounded to 10 ms and at least `earliest`."""
    start, end, peak = (max(round(offset + time, 2), earliest) for time in (word.start, word.end, word.peak))
    return replace(word, start=start, end=end, peak=peak)


def _fit(segment: Segment, words: list[_TimedWord], typical: float, last_speech: float) -> Segment:
    """Add the words to the segment.

    The segment's start and end become those of its words; a first or last word that exceeds the segment's timestamps by
    far is shortened instead.
    """
    if not words:
        return replace(segment, words=[])
    _shorten_after_pause(words, typical, last_speech)
    first = words[0]
    if first.start < segment.start - _TIMESTAMP_MARGIN and segment.start < first.end:
        words[0] = replace(first, start=max(first.start, min(segment.start, first.end - typical)))
    last = words[-1]
    if last.start < segment.end and segment.end + _TIMESTAMP_MARGIN < last.end:
        words[-1] = replace(last, end=min(last.end, max(segment.end, last.start + typical)))
    bounded = [_bounded(word, 2 * typical) for word in words]
    return replace(segment, start=bounded[0].start, end=bounded[-1].end, words=bounded)


def _bounded(word: _TimedWord, longest: float) -> Word:
    """The word; if it is longer than `LONGEST_WORD`, it reaches over a pause and is shortened around its peak."""
    start, end = word.start, word.end
    if end - start > LONGEST_WORD:
        start = round(min(max(start, word.peak - longest / 2), end - longest), 2)
        end = min(round(start + longest, 2), end)
    return Word(start, end, word.word, word.probability)


def _shorten_after_pause(words: list[_TimedWord], typical: float, last_speech: float) -> None:
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
