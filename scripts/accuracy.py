"""Compare the word error rate and the tokens of this engine with those of transformers' `generate`.

    python scripts/accuracy.py ../shared/data/librispeech --model tiny.en --model base --language en

The folder holds clips of up to 30 s and their `transcripts.tsv` (see clips.py). Both engines decode greedily, with
timestamps, from the same weights. Texts are scored after Whisper's English normalization.
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
from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper
from tilewhisper.models.audio import reader


@dataclass(frozen=True)
class Score:
    """One model over all clips; error rates in percent."""

    model: str
    policy: str
    clips: int
    word_error_rate: float
    transformers_word_error_rate: float
    same_tokens: int
    different: list[str]
    """Files on which the tokens differ."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        clips = read_clips(args.folder)
        scores = [score(name, args.policy, args.language, clips) for name in args.model or ["tiny.en"]]
    except (*USER_ERRORS, OSError, ValueError) as e:
        print(f"accuracy: error: {e}", file=sys.stderr)
        return 2
    console.print(_table(scores))
    for result in scores:
        for file in result.different:
            console.print(f"{result.model}: tokens differ on {file}")
    if args.json:
        write_whole(args.json, json.dumps([asdict(result) for result in scores], indent=1) + "\n")
    return 0


def score(name: str, policy: str, language: str | None, clips: Sequence[Clip]) -> Score:
    """Decode every clip with both engines."""
    oracle = TransformersWhisper(name)
    options = TranscriptionOptions(language=language, beam_size=1, temperature=0)
    our_texts, their_texts, different = [], [], []
    with WhisperModel(name, policy=policy) as model:
        for clip in track(clips, description=name, console=Console(stderr=True), transient=True):
            samples = reader.decode_audio(clip.file)
            window = Encoded(model.encode(model.log_mel(samples)[None]))
            (decoded,) = model.runtime.decode([model.runtime.project_cross_kv(window)], options)
            generated = oracle.generate(samples, language)
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
    for result in scores:
        rates = (f"{result.word_error_rate:.2f}", f"{result.transformers_word_error_rate:.2f}")
        same_tokens = f"{result.same_tokens}/{result.clips}"
        table.add_row(result.model, result.policy, str(result.clips), *rates, same_tokens)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clips and their transcripts.tsv")
    parser.add_argument("--model", action="append", help="model to score; repeatable (default: tiny.en)")
    parser.add_argument("--policy", default="torch", help="policy of this engine (default: torch)")
    parser.add_argument("--language", default="en", help="language of the clips (default: en)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
