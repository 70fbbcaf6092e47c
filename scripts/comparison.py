"""Contenders over the same recordings by turns, and what came of it: speed as ratios, word errors, timestamps.

A ratio is another's time over that of the first contender: how many times faster the first one is.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peers.base import total
from peers.contender import Answer, Contender
from quality import misplaced, word_error_rate


@dataclass(frozen=True)
class Recording:
    """`samples` is a .npy file of float32 (n,) at 16 kHz, or a folder of them, which are given all at once."""

    name: str
    samples: Path
    seconds: float
    reference: str
    end_of_speech: float


Turns = list[list[Answer]]
"""One contender's answers, by recording and then by run."""


def take_turns(
    contenders: Sequence[Contender],
    recordings: Sequence[Recording],
    runs: int,
    track: Callable[[range], Iterable[int]] = iter,
) -> list[Turns]:
    """Warm every contender up on the first recording; then each recording in turn by all of them, first forth and
    next back, so that a machine that slows down slows them alike, and nobody always comes first."""
    for contender in contenders:
        contender.transcribe(recordings[0].samples)
    answers: list[Turns] = [[[] for _ in recordings] for _ in contenders]
    for turn in track(range(runs * len(recordings))):
        number = turn % len(recordings)
        order = range(len(contenders))
        for index in reversed(order) if turn % 2 else order:
            answers[index][number].append(contenders[index].transcribe(recordings[number].samples))
    return answers


@dataclass(frozen=True)
class Row:
    """One contender's figures."""

    name: str
    rtf: float
    """Total time / total audio, each recording with the median of its runs."""
    ratio: float
    """Of total times."""
    median_ratio: float
    """The median of the recordings' ratios."""
    word_error_rate: float
    """Percent."""
    misplaced: int
    """Segments that end before they start or start before the last one's end."""
    end_error: float | None
    """Seconds from the end of speech to the last segment's end, the largest in magnitude; None without segments."""
    tokens: int | None
    token_seconds: float | None
    """All that comes after the encoder, by the token. None where the contender does not tell."""
    step_seconds: float | None
    """The same without prompts and keys and values: the time per output token."""
    seconds: list[list[float]]
    texts: list[str]


def score(names: Sequence[str], turns: Sequence[Turns], recordings: Sequence[Recording]) -> list[Row]:
    """A row a contender; texts and timestamps are those of the last run, texts compared as Whisper normalises them."""
    first = _medians(turns[0])
    return [_row(name, answers, first, recordings) for name, answers in zip(names, turns, strict=True)]


def _row(name: str, answers: Turns, first: Sequence[float], recordings: Sequence[Recording]) -> Row:
    medians = _medians(answers)
    last = [runs[-1].transcript for runs in answers]
    every = [answer.transcript for runs in answers for answer in runs]
    texts = [transcript.text for transcript in last]
    tokens = total(each.tokens for each in every)
    ends = [
        transcript.spans[-1][1] - recording.end_of_speech
        for transcript, recording in zip(last, recordings, strict=True)
        if transcript.spans
    ]
    return Row(
        name=name,
        rtf=sum(medians) / sum(recording.seconds for recording in recordings),
        ratio=sum(medians) / sum(first),
        median_ratio=statistics.median(mine / theirs for mine, theirs in zip(medians, first, strict=True)),
        word_error_rate=word_error_rate([recording.reference for recording in recordings], texts),
        misplaced=sum(misplaced(transcript.spans) for transcript in last),
        end_error=max(ends, key=abs, default=None),
        tokens=total(transcript.tokens for transcript in last),
        token_seconds=_quotient(total(each.decode_seconds for each in every), tokens),
        step_seconds=_quotient(total(each.step_seconds for each in every), tokens),
        seconds=[[answer.seconds for answer in runs] for runs in answers],
        texts=texts,
    )


def _medians(answers: Turns) -> list[float]:
    return [statistics.median(answer.seconds for answer in runs) for runs in answers]


def _quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
