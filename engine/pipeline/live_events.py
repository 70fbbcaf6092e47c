"""What a live transcription reports, in the order of time. All times are in seconds of the stream."""

from dataclasses import dataclass

from tilewhisper.engine.results import Word


@dataclass(frozen=True)
class SpeechStarted:
    """A phrase begins."""

    time: float


@dataclass(frozen=True)
class Partial:
    """The words after the final ones, as they seem so far. Each replaces the one before; empty when none are left."""

    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Final:
    """More words of the phrase, which will not change; the texts of all Finals concatenate to the transcript."""

    text: str
    words: tuple[Word, ...]
    language: str

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end


@dataclass(frozen=True)
class SpeechStopped:
    """The phrase has ended at this time; all of its words are final."""

    time: float


Event = SpeechStarted | Partial | Final | SpeechStopped
