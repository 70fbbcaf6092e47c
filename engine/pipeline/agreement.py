"""LocalAgreement: which words of a growing window's hypotheses are final (Macháček et al., whisper_streaming).

A word is final when two successive hypotheses agree on it and on all words before it. Case and punctuation may differ:
they depend on the words that follow.
"""

from collections.abc import Sequence

from tilewhisper.engine.results import Word


def agreed(before: Sequence[Word], now: Sequence[Word]) -> int:
    """How many of the first words of two hypotheses of the same audio are the same."""
    count = 0
    for first, second in zip(before, now, strict=False):
        if _letters(first.word) != _letters(second.word):
            break
        count += 1
    return count


def revisions(before: Sequence[Word], now: Sequence[Word]) -> int:
    """How many words that were shown have changed or vanished."""
    return len(before) - agreed(before, now)


def _letters(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum()) or word.strip()
