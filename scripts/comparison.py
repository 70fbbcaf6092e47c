"""Run contenders in alternation over the same recordings, and score speed, word errors and timestamps.

A ratio is a contender's time / the first contender's time: how many times faster the first contender is.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peers.base import total
from peers.contender import Answer, Contender
from quality import count_misplaced, word_error_rate


@dataclass(frozen=True)
class Recording:
    """`samples` is a .npy file of float32 (n,) at 16 kHz, or a folder of such files, which are submitted at once."""

    name: str
    samples: Path
    seconds: float
    reference: str
    end_of_speech: float


Answers = list[list[Answer]]
"""One contender's answers, by recording and then by run."""


def run_alternating(
    contenders: Sequence[Contender],
    recordings: Sequence[Recording],
    runs: int,
    track: Callable[[range], Iterable[int]] = iter,
) -> list[Answers]:
    """Warm up every contender on the first recording, then let all transcribe each recording in alternation.

    Every second turn reverses their order, so that a change of clock speed affects all alike and none is always first.
    """
    for contender in contenders:
        contender.transcribe(recordings[0].samples)
    answers: list[Answers] = [[[] for _ in recordings] for _ in contenders]
    for turn in track(range(runs * len(recordings))):
        number = turn % len(recordings)
        order = range(len(contenders))
        for index in reversed(order) if turn % 2 else order:
            answers[index][number].append(contenders[index].transcribe(recordings[number].samples))
    return answers


@dataclass(frozen=True)
class Row:
    """The results of one contender."""

    name: str
    rtf: float
    """Total time / total audio, with the median run of each recording."""
    ratio: float
    """Total time / the first contender's total time."""
    median_ratio: float
    """The median of the recordings' ratios."""
    word_error_rate: float
    """Percent."""
    misplaced: int
    """Segments that have no length or start before the previous segment's end."""
    end_error: float | None
    """Seconds from the end of speech to the last segment's end, the largest in magnitude; None without segments."""
    tokens: int | None
    token_seconds: float | None
    """All time after the encoder / tokens. None where the contender does not report it."""
    step_seconds: float | None
    """The time per output token: the same without prompts and cross-attention K/V."""
    seconds: list[list[float]]
    texts: list[str]


def score(names: Sequence[str], answers: Sequence[Answers], recordings: Sequence[Recording]) -> list[Row]:
    """Return one row per contender; texts (normalized as by Whisper) and timestamps are those of the last run."""
    first = _medians(answers[0])
    return [_row(name, own, first, recordings) for name, own in zip(names, answers, strict=True)]


def _row(name: str, answers: Answers, first: Sequence[float], recordings: Sequence[Recording]) -> Row:
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
        median_ratio=statistics.median(own / other for own, other in zip(medians, first, strict=True)),
        word_error_rate=word_error_rate([recording.reference for recording in recordings], texts),
        misplaced=sum(count_misplaced(transcript.spans) for transcript in last),
        end_error=max(ends, key=abs, default=None),
        tokens=total(transcript.tokens for transcript in last),
        token_seconds=_quotient(total(each.decode_seconds for each in every), tokens),
        step_seconds=_quotient(total(each.step_seconds for each in every), tokens),
        seconds=[[answer.seconds for answer in runs] for runs in answers],
        texts=texts,
    )


def _medians(answers: Answers) -> list[float]:
    return [statistics.median(answer.seconds for answer in runs) for runs in answers]


def _quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
