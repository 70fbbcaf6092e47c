"""How a source was read: its track, its length by the header and by decoding, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

# Encoder delay and padding make headers and decoders disagree by a codec frame or two: the longest in use, HE-AAC's
# 2048 samples at 16 kHz, is 0.128 s.
SLACK_SECONDS = 0.25
LONG_SILENCE_SECONDS = 3.0  # shorter ones are pauses of the speech: Opus sends no packets while nobody speaks
MOST_NAMED = 5  # gaps in a message


@dataclass(frozen=True)
class Gap:
    """A part of the file without audio, in seconds of the file."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start:.1f}-{self.end:.1f} s"


@dataclass(frozen=True)
class AudioFacts:
    """How a source was read. All times are in seconds of the file."""

    track: str
    """Number of the audio track, with its language, codec and title where the file states them."""
    decoded_seconds: float
    """Without the silence that stands in for audio."""
    stated_seconds: float | None
    """By the file's header; None where it states no length."""
    silence_seconds: float
    """Silence put where the file has a gap, or where the track starts later than the file."""
    silences: tuple[Gap, ...]
    """The parts of this silence that are at least 3 s long; they are not transcribed."""
    gaps: tuple[Gap, ...]
    """Parts that could not be decoded; silence stands in for them, except at the end."""
    timestamp_jumps: int
    """How often the file's timestamps jumped by hours or back to an earlier time, and were not followed."""
    damage: str | None
    """What is missing, in one sentence; None where nothing is."""


@dataclass
class AudioLog:
    """Facts about a source, collected while it is decoded."""

    track: str = "1"
    seconds: float = 0.0
    """Audio and silence so far."""
    silence_seconds: float = 0.0
    silences: list[Gap] = field(default_factory=list)
    stated_seconds: float | None = None
    missing_seconds: float = 0.0
    """Stated by the header, but not there."""
    gaps: list[Gap] = field(default_factory=list)
    timestamp_jumps: int = 0
    problems: list[str] = field(default_factory=list)
    """Other damage, each as words that follow the file's name."""

    def add_gap(self, start: float, seconds: float) -> None:
        """Record a part that could not be decoded; it extends the last gap if it follows it."""
        if self.gaps and start <= self.gaps[-1].end:
            start, seconds = self.gaps[-1].start, start + seconds - self.gaps[-1].start
            del self.gaps[-1]
        self.gaps.append(Gap(start, start + seconds))

    def add_silence(self, start: float, seconds: float) -> None:
        """Record silence that stands in for audio."""
        self.silence_seconds += seconds
        if seconds >= LONG_SILENCE_SECONDS:
            self.silences.append(Gap(start, start + seconds))

    def compare(self, stated: float, reached: float) -> None:
        """Record the header's length, and how far the audio reaches; both in seconds."""
        self.stated_seconds = stated
        if stated - reached > SLACK_SECONDS:
            self.missing_seconds = stated - reached

    def append(self, part: "AudioLog") -> None:
        """Add the log of the part of the file that follows."""
        for mine, others in ((self.gaps, part.gaps), (self.silences, part.silences)):
            mine += [Gap(self.seconds + gap.start, self.seconds + gap.end) for gap in others]
        if part.stated_seconds is not None:
            self.stated_seconds = (self.stated_seconds or 0.0) + part.stated_seconds
        self.track = part.track
        self.seconds += part.seconds
        self.silence_seconds += part.silence_seconds
        self.missing_seconds += part.missing_seconds
        self.timestamp_jumps += part.timestamp_jumps
        self.problems += [problem for problem in part.problems if problem not in self.problems]

    def facts(self) -> AudioFacts:
        """What is known so far; complete after the last block."""
        return AudioFacts(
            track=self.track,
            decoded_seconds=self.seconds - self.silence_seconds,
            stated_seconds=self.stated_seconds,
            silence_seconds=self.silence_seconds,
            silences=tuple(self.silences),
            gaps=tuple(self.gaps),
            timestamp_jumps=self.timestamp_jumps,
            damage=self._damage(),
        )

    def _damage(self) -> str | None:
        lost = sum(gap.seconds for gap in self.gaps)
        gone = lost + self.missing_seconds
        problems = [*self.problems]
        if self.stated_seconds is not None and gone > SLACK_SECONDS:
            read = max(0.0, self.stated_seconds - gone)
            problems.insert(0, f"its header states {self.stated_seconds:.1f} s, but only {read:.1f} s could be read")
        elif lost > SLACK_SECONDS:
            problems.insert(0, f"{lost:.1f} s of its audio could not be decoded")
        if not problems:
            return None
        filled = [gap for gap in self.gaps if gap.end < self.seconds + SLACK_SECONDS and gap.seconds > SLACK_SECONDS]
        if filled:
            problems.append(f"silence stands in for {_named(filled)}")
        return (
            f"{'truncated or damaged' if self.missing_seconds or self.problems else 'damaged'}: {'; '.join(problems)}"
        )


def _named(gaps: Sequence[Gap]) -> str:
    names = [str(gap) for gap in gaps[:MOST_NAMED]]
    return ", ".join(names) + (f" and {len(gaps) - MOST_NAMED} more" if len(gaps) > MOST_NAMED else "")
