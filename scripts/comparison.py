"""Run contenders in alternation over the same recordings, and score speed, word errors and timestamps.

A ratio is a contender's time / the first contender's time: how many times faster the first contender is. A contender
whose word error rate is far above the others' has a wrong text, and no times.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peers.base import total
from peers.contender import Answer, Contender
from quality import count_misplaced, word_error_rate

WRONG_ABOVE = 20.0
"""Percentage points of word errors above the median of all contenders, from which a text is wrong."""


@dataclass(frozen=True)
class Recording:
    """`samples` is a .npy file of float32 (n,) at 16 kHz, or a folder of such files, which are submitted at once."""

    name: str
    samples: Path
    seconds: float
    reference: str
    end_of_speech: float
    longest: float
    """Seconds of the longest file."""


Answers = list[list[Answer]]
"""One contender's answers, by recording and then by run."""


def run_alternating(
    contenders: Sequence[Contender],
    recordings: Sequence[Recording],
    runs: int,
    track: Callable[[range], Iterable[int]] = iter,
) -> list[Answers]:
    """Let all contenders transcribe each recording in alternation, after a warm-up of each.

    Every second turn reverses their order, so that a change of clock speed affects all alike and none is always first.
    """
    answers: list[Answers] = [[[] for _ in recordings] for _ in contenders]
    for turn in track(range(runs * len(recordings))):
        number = turn % len(recordings)
        order = range(len(contenders))
        for index in reversed(order) if turn % 2 else order:
            answers[index][number].append(contenders[index].transcribe(recordings[number].samples))
    return answers


@dataclass(frozen=True)
class Row:
    """The results of one contender. One with a wrong text has no times."""

    name: str
    rtf: float | None
    """Total time / total audio, with the median run of each recording."""
    rtf_min: float | None
    """The same with the fastest run of each recording."""
    rtf_max: float | None
    """The same with the slowest."""
    ratio: float | None
    """Total time / the first contender's total time; None where the first is wrong."""
    median_ratio: float | None
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
    token_seconds_min: float | None
    """Of the fastest round."""
    token_seconds_max: float | None
    step_seconds: float | None
    """The time per output token: the same without prompts and cross-attention K/V."""
    seconds: list[list[float]]
    texts: list[str]

    @property
    def wrong(self) -> bool:
        """Whether the text is wrong, so that its times would mean nothing."""
        return self.rtf is None


def score(names: Sequence[str], answers: Sequence[Answers], recordings: Sequence[Recording]) -> list[Row]:
    """Return one row per contender; texts (normalized as by Whisper) and timestamps are those of the last run."""
    first = _medians(answers[0])
    return judged([_row(name, own, first, recordings) for name, own in zip(names, answers, strict=True)])


def judged(rows: Sequence[Row]) -> list[Row]:
    """Take the times from rows with a wrong text, and the ratios from all where the first is wrong."""
    limit = statistics.median(row.word_error_rate for row in rows) + WRONG_ABOVE
    if rows[0].word_error_rate > limit:
        rows = [replace(row, ratio=None, median_ratio=None) for row in rows]
    return [_untimed(row) if row.word_error_rate > limit else row for row in rows]


def _untimed(row: Row) -> Row:
    no_rtf = replace(row, rtf=None, rtf_min=None, rtf_max=None, ratio=None, median_ratio=None, seconds=[])
    return replace(no_rtf, token_seconds=None, token_seconds_min=None, token_seconds_max=None, step_seconds=None)


def _row(name: str, answers: Answers, first: Sequence[float], recordings: Sequence[Recording]) -> Row:
    medians = _medians(answers)
    last = [runs[-1].transcript for runs in answers]
    every = [answer.transcript for runs in answers for answer in runs]
    texts = [transcript.text for transcript in last]
    tokens = total(each.tokens for each in every)
    audio = sum(recording.seconds for recording in recordings)
    seconds = [[answer.seconds for answer in runs] for runs in answers]
    token_rounds = [_quotient(*_sums(each)) for each in zip(*answers, strict=False)]
    per_token = [seconds for seconds in token_rounds if seconds is not None]
    ends = [
        transcript.spans[-1][1] - recording.end_of_speech
        for transcript, recording in zip(last, recordings, strict=True)
        if transcript.spans
    ]
    return Row(
        name=name,
        rtf=sum(medians) / audio,
        rtf_min=sum(map(min, seconds)) / audio,
        rtf_max=sum(map(max, seconds)) / audio,
        ratio=sum(medians) / sum(first),
        median_ratio=statistics.median(own / other for own, other in zip(medians, first, strict=True)),
        word_error_rate=word_error_rate([recording.reference for recording in recordings], texts),
        misplaced=sum(count_misplaced(transcript.spans) for transcript in last),
        end_error=max(ends, key=abs, default=None),
        tokens=total(transcript.tokens for transcript in last),
        token_seconds=_quotient(total(each.decode_seconds for each in every), tokens),
        token_seconds_min=min(per_token, default=None),
        token_seconds_max=max(per_token, default=None),
        step_seconds=_quotient(total(each.step_seconds for each in every), tokens),
        seconds=seconds,
        texts=texts,
    )


def _sums(answers: Sequence[Answer]) -> tuple[float | None, int | None]:
    """Seconds after the encoder, and tokens, of all the answers."""
    transcripts = [answer.transcript for answer in answers]
    return total(each.decode_seconds for each in transcripts), total(each.tokens for each in transcripts)


def _medians(answers: Answers) -> list[float]:
    return [statistics.median(answer.seconds for answer in runs) for runs in answers]


def _quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
