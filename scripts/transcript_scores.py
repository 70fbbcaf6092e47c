"""Score the transcripts of one setting against reference texts and against the transcripts of another setting."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from clips import Clip
from quality import character_error_rate, count_misplaced, word_error_rate

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.routing.policy import load_policy


@dataclass(frozen=True)
class Setting:
    """A policy (name or file) and an audio context."""

    policy: str
    audio_context: str

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """Parse POLICY/AUDIO_CONTEXT. Raises OptionError and PolicyError."""
        policy, _, context = text.rpartition("/")
        if not policy:
            raise OptionError(f"a setting must be POLICY/AUDIO_CONTEXT, such as cpu/sparse:4, got {text!r}")
        load_policy(policy)
        TranscriptionOptions(audio_context=context)
        return cls(policy, context)

    def __str__(self) -> str:
        return f"{self.policy}/{self.audio_context}"


@dataclass(frozen=True)
class Outcome:
    """The transcript of one clip under one setting, and its costs."""

    text: str
    spans: list[tuple[float, float]]
    """(start, end) of each segment, in seconds."""
    loops: bool
    """Whether a segment repeats itself."""
    again_in_full: int
    """Windows that were encoded again with the full audio context."""
    audio_seconds: float
    encode_seconds: float
    decode_seconds: float
    seconds: float
    """Of the whole transcription."""


@dataclass(frozen=True)
class Difference:
    """A clip whose text differs from the first setting's."""

    file: str
    reference: str
    first: str
    text: str


@dataclass(frozen=True)
class Row:
    """One setting over one folder."""

    model: str
    folder: str
    setting: str
    clips: int
    measure: str
    """WER or CER."""
    error_rate: float
    """Percent."""
    end_mean: float | None
    """Seconds, like all times here; None where no clip's segments are comparable."""
    end_max: float | None
    ends_compared: int
    disordered: int
    again_in_full: int
    loops: int
    audio_seconds: float
    encode_seconds: float
    decode_seconds: float
    rtf: float
    different: list[Difference] = field(repr=False)

    @property
    def same_text(self) -> int:
        """Number of clips whose text is the first setting's."""
        return self.clips - len(self.different)


def score(
    model: str, folder: str, setting: str, clips: Sequence[Clip], outcomes: Sequence[Outcome], first: Sequence[Outcome]
) -> Row:
    """Compare the outcomes of the clips with their references and with the `first` setting's outcomes."""
    is_english = all(clip.language == "en" for clip in clips)
    error_rate = word_error_rate if is_english else character_error_rate
    ends = _end_differences(outcomes, first)
    seconds = sum(outcome.audio_seconds for outcome in outcomes)
    return Row(
        model=model,
        folder=folder,
        setting=setting,
        clips=len(clips),
        measure="WER" if is_english else "CER",
        error_rate=error_rate([clip.reference for clip in clips], [outcome.text for outcome in outcomes]),
        end_mean=statistics.fmean(ends) if ends else None,
        end_max=max(ends, default=None),
        ends_compared=len(ends),
        disordered=sum(count_misplaced(outcome.spans) for outcome in outcomes),
        again_in_full=sum(outcome.again_in_full for outcome in outcomes),
        loops=sum(outcome.loops for outcome in outcomes),
        audio_seconds=seconds,
        encode_seconds=sum(outcome.encode_seconds for outcome in outcomes),
        decode_seconds=sum(outcome.decode_seconds for outcome in outcomes),
        rtf=sum(outcome.seconds for outcome in outcomes) / seconds,
        different=[
            Difference(clip.file.name, clip.reference, theirs.text, own.text)
            for clip, own, theirs in zip(clips, outcomes, first, strict=True)
            if own.text != theirs.text
        ],
    )


def _end_differences(outcomes: Sequence[Outcome], first: Sequence[Outcome]) -> list[float]:
    """Differences of segment ends, in seconds, over clips with the same text and number of segments."""
    return [
        abs(end - their_end)
        for own, theirs in zip(outcomes, first, strict=True)
        if own.text == theirs.text and len(own.spans) == len(theirs.spans)
        for (_, end), (_, their_end) in zip(own.spans, theirs.spans, strict=True)
    ]
