"""Word error rate of this engine and of transformers' `generate` over a folder of clips, and how often they agree.

    python scripts/accuracy.py ../shared/data/librispeech --model tiny.en --model base --language en

The folder holds audio files and a `transcripts.tsv` with the columns `file` and `reference`. Both decode greedily, with
timestamps, on the same weights; text is compared after Whisper's own English normalisation.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clips import Clip, read_clips
from quality import word_error_rate
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tilewhisper import WhisperModel
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper
from tilewhisper.models.audio import reader


@dataclass(frozen=True)
class Score:
    """Over all clips of up to 30 s; error rates in percent."""

    model: str
    policy: str
    clips: int
    word_error_rate: float
    transformers_word_error_rate: float
    same_tokens: int
    different: list[str]


def main() -> int:
    args = _parser().parse_args()
    console = Console(highlight=False)
    try:
        clips = read_clips(args.folder)
        scores = [score(name, args.policy, args.language, clips) for name in args.model or ["tiny.en"]]
    except (*USER_ERRORS, OSError, ValueError) as e:
        print(f"accuracy: error: {e}", file=sys.stderr)
        return 2
    console.print(_table(scores))
    for one in scores:
        for file in one.different:
            console.print(f"{one.model}: tokens differ on {file}")
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in scores], indent=1) + "\n")
    return 0


def score(name: str, policy: str, language: str | None, clips: Sequence[Clip]) -> Score:
    """Decode every clip both ways."""
    theirs = TransformersWhisper(name)
    options = TranscriptionOptions(language=language, beam_size=1, temperature=0)
    our_texts, their_texts, different = [], [], []
    with WhisperModel(name, policy=policy) as model:
        for clip in track(clips, description=name, console=Console(stderr=True), transient=True):
            samples = reader.decode_audio(clip.file)
            window = Encoded(model.encode(model.log_mel(samples)[None]))
            (decoded,) = model.decode([model.project_cross_kv(window)], options)
            generated = theirs.generate(samples, language)
            our_texts.append(model.checkpoint.tokenizer.decode(decoded.tokens))
            their_texts.append(generated.text)
            if decoded.tokens != generated.tokens:
                different.append(clip.file.name)
    references = [clip.reference for clip in clips]
    return Score(
        model=name,
        policy=policy,
        clips=len(clips),
        word_error_rate=word_error_rate(references, our_texts),
        transformers_word_error_rate=word_error_rate(references, their_texts),
        same_tokens=len(clips) - len(different),
        different=different,
    )


def _table(scores: Sequence[Score]) -> Table:
    table = Table("model", "policy", box=None, pad_edge=False)
    for heading in ("clips", "WER %", "transformers WER %", "same tokens"):
        table.add_column(heading, justify="right")
    for one in scores:
        rates = (f"{one.word_error_rate:.2f}", f"{one.transformers_word_error_rate:.2f}")
        table.add_row(one.model, one.policy, str(one.clips), *rates, f"{one.same_tokens}/{one.clips}")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", help="repeatable (default: tiny.en)")
    parser.add_argument("--policy", default="torch", help="(default: torch)")
    parser.add_argument("--language", default="en", help="(default: en)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
