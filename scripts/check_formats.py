"""Check reading of every container and codec that ffmpeg can write, against ffmpeg's own decoding.

    python scripts/check_formats.py ../shared/data/jfk.flac --json formats.json

Each file is read whole, cut at 60 %, joined to a file of another rate and channel count, and with junk before and
after. A case passes if

    - the decoded seconds (silence in place of gaps not counted) are within 50 ms of ffmpeg's. Of joined files ffmpeg
      may stop at the join: any length from its to the sum of both is right, and the part that it has is compared
    - and the transcript is that of ffmpeg's samples, up to 10 % of the words. Where the samples themselves are ffmpeg's
      (correlation 0.99), so is the transcript.

A case that does not pass needs a stated reason, in format_check/reasons.py. Exit status: 0 if all cases have one of
both, 1 if not, 2 if the check cannot run.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from format_check import ffmpeg, variants
from format_check.reasons import reason_for
from quality import word_error_rate
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tilewhisper import WhisperModel
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.models.audio import reader
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.recording import join
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError

TOLERANCE_SECONDS = 0.05
TOLERATED_WORDS = 10.0  # percent of the words
SAME_SOUND = 0.99  # correlation


@dataclass(frozen=True)
class Case:
    """One variant of one encoded file."""

    container: str
    codec: str
    variant: str
    seconds: float | None
    """Decoded by tilewhisper, without silence in place of gaps; None where it refused the file."""
    ffmpeg_seconds: float | None
    """Decoded by ffmpeg; None where it found no audio."""
    damage: str | None
    """tilewhisper's report of damage, or its error."""
    words: float | None
    """Word error rate, in percent, against the transcript of ffmpeg's samples; None where it was not needed."""
    problem: str | None
    """Why the case does not pass; None where it does."""
    reason: str | None
    """The stated reason of the problem."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        pairs = [pair for pair in ffmpeg.encodings() if fnmatch(" ".join(pair), args.only)]
        with WhisperModel(args.model) as model, tempfile.TemporaryDirectory() as folder:
            checker = Checker(model, args.audio, Path(folder))
            cases = [
                case for pair in track(pairs, "formats", console=Console(stderr=True)) for case in checker.check(*pair)
            ]
    except FileNotFoundError as e:
        print(f"check_formats: error: {e.filename} is missing: install ffmpeg, pass an audio file", file=sys.stderr)
        return 2
    except USER_ERRORS as e:
        print(f"check_formats: error: {e}", file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")
    console.print(_table(cases))
    failed = [case for case in cases if case.problem and not case.reason]
    for case in failed:
        console.print(f"{case.container} {case.codec}, {case.variant}: {case.problem}")
    console.print(f"{len(cases)} cases, {len(failed)} without a pass or a reason")
    return 1 if failed or not cases else 0


class Checker:
    """Checks the variants of one file after the other."""

    def __init__(self, model: WhisperModel, source: Path, folder: Path) -> None:
        """Raises AudioError for a source that cannot be read."""
        self._model, self._source, self._folder = model, source, folder
        self._source_seconds = len(reader.decode_audio(source)) / SAMPLE_RATE

    def check(self, container: str, codec: str) -> Iterator[Case]:
        """The cases of a container and a codec; none where ffmpeg cannot write them."""
        file, other = self._folder / "file", self._folder / "other"
        used = ffmpeg.encode(self._source, container, codec, ffmpeg.SETTINGS, file)
        if used is None:
            return
        others = [settings for settings in ffmpeg.SETTINGS[1:] if settings != used]
        joinable = ffmpeg.encode(self._source, container, codec, others, other)
        for variant in variants.VARIANTS:
            if variant != variants.JOINED or joinable:
                yield self._case(container, codec, variant, file, other)

    def _case(self, container: str, codec: str, variant: str, file: Path, other: Path) -> Case:
        path = variants.write(variant, file, other, self._folder / "variant")
        log = AudioLog()
        error = samples = None
        try:
            samples = join(reader.stream(path, log))
        except AudioError as e:
            error = str(e).removeprefix(f"{path}: ")
        except Exception as e:  # a fault, which must not end the check of the others
            error = f"crashed: {e!r}"
        seconds = None if samples is None else log.facts().decoded_seconds
        theirs = ffmpeg.decode(path)
        references = [] if theirs is None else [theirs]
        if variant == variants.JOINED:
            parts = [part for part in (ffmpeg.decode(file), ffmpeg.decode(other)) if part is not None]
            references += [np.concatenate(parts)] if len(parts) == 2 else []
        problem, words = self._problem(samples, seconds, references, whole=variant != "cut")
        problem = problem and (f"{problem}; {error}" if error else problem)
        crashed = error is not None and error.startswith("crashed")
        reason = None if crashed else problem and reason_for(container, codec, variant, readable=bool(references))
        damage = error or log.facts().damage
        theirs_seconds = None if theirs is None else len(theirs) / SAMPLE_RATE
        return Case(container, codec, variant, seconds, theirs_seconds, damage, words, problem, reason)

    def _problem(
        self, samples: ffmpeg.Samples | None, seconds: float | None, references: Sequence[ffmpeg.Samples], whole: bool
    ) -> tuple[str | None, float | None]:
        """(why the samples are not right, word error rate)."""
        if samples is None or seconds is None:
            return "not read", None
        if not references:
            # Without a reference, a file that holds all of the source must have its length.
            right = not whole or abs(seconds - self._source_seconds) <= 2 * TOLERANCE_SECONDS
            return (None if right else f"{seconds:.2f} s, and ffmpeg cannot read it"), None
        lengths = [len(one) / SAMPLE_RATE for one in references]
        if not min(lengths) - TOLERANCE_SECONDS <= seconds <= max(lengths) + TOLERANCE_SECONDS:
            return f"{seconds:.2f} s, expected {' to '.join(f'{length:.2f}' for length in lengths)} s", None
        reference = max((one for one in references if len(one) / SAMPLE_RATE <= seconds + TOLERANCE_SECONDS), key=len)
        samples = samples[: len(reference) + round(TOLERANCE_SECONDS * SAMPLE_RATE)]
        if _correlation(reference, samples) >= SAME_SOUND:
            return None, None
        words = word_error_rate([self._text(reference) or "nothing"], [self._text(samples) or "nothing"])
        return (f"{words:.0f} % of the words differ" if words > TOLERATED_WORDS else None), words

    def _text(self, samples: ffmpeg.Samples) -> str:
        segments, _ = self._model.transcribe(samples, language="en", beam_size=1, temperature=0.0)
        return "".join(segment.text for segment in segments)


def _correlation(one: ffmpeg.Samples, other: ffmpeg.Samples) -> float:
    """The largest normalized cross-correlation, at any lag."""
    size = 2 ** int(len(one) + len(other)).bit_length()
    spectrum = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    power = np.sqrt(np.sum(one**2, dtype=float) * np.sum(other**2, dtype=float))
    return float(np.fft.irfft(spectrum, size).max() / power) if power else float(not one.any() and not other.any())


def _table(cases: Sequence[Case]) -> Table:
    table = Table("variant", box=None, pad_edge=False)
    for heading in ("cases", "passed", "with a reason", "failed"):
        table.add_column(heading, justify="right")
    for variant in variants.VARIANTS:
        counts = Counter(_outcome(case) for case in cases if case.variant == variant)
        outcomes = (counts[outcome] for outcome in ("passed", "reason", "failed"))
        table.add_row(variant, str(counts.total()), *map(str, outcomes))
    return table


def _outcome(case: Case) -> str:
    if case.problem is None:
        return "passed"
    return "failed" if case.reason is None else "reason"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, help="a recording of English speech, such as jfk.flac")
    parser.add_argument("--model", default="tiny.en", help="default: tiny.en")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="'CONTAINER CODEC', with wildcards")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every case as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
