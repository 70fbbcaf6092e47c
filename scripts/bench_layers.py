"""Measure what each product of the encoder, alone on a backend, does to the states, and its time there.

    python scripts/bench_layers.py ../shared/data/jfk.flac --model base --backend int8 --backend bf16 --json layers.json

The figures behind `tilewhisper tune --map`, for the charts of docs/benchmarks.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.table import Table

from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console
from tilewhisper.engine.errors import USER_ERRORS, OptionError
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.tuning.evaluation import Trials
from tilewhisper.engine.tuning.sensitivity import Sensitivity, measure
from tilewhisper.models.audio import reader
from tilewhisper.models.audio.log_mel import log_mel, window
from tilewhisper.models.checkpoint import loader


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        found = _measured(args)
    except (*USER_ERRORS, OSError) as e:
        print(f"bench_layers: error: {e}", file=sys.stderr)
        return 2
    console().print(_table(found))
    if args.json:
        write_whole(args.json, json.dumps({"model": args.model, **asdict(found)}, indent=1) + "\n")
    return 0


def _measured(args: argparse.Namespace) -> Sensitivity:
    if min(args.rounds, args.threads) < 1:
        raise OptionError("--rounds and --threads must be >= 1")
    torch.set_num_threads(args.threads)
    model = loader.load(args.model).model
    mel = window(log_mel(reader.decode_audio(args.audio), model.config.num_mel_bins), 0)
    with Trials(model, [mel]) as trials:
        return measure(trials, None, args.backend or ["int8", "bf16"], args.rounds)


def _table(found: Sensitivity) -> Table:
    table = Table("product", "backend", box=None, pad_edge=False)
    for heading in ("error", "ms saved", ""):
        table.add_column(heading, justify="right")
    for effect in found.effects:
        cells = (f"{effect.error:.1e}", f"{1e3 * effect.seconds_saved:+.2f}", effect.exclusion)
        table.add_row(effect.site, effect.backend, *cells)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, help="recording whose first 30 s are encoded")
    parser.add_argument("--model", default="base", help="model to measure (default: %(default)s)")
    parser.add_argument("--backend", action="append", help="repeatable (default: int8 and bf16)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
