"""`tilewhisper tune`: measure backends on this machine, and write the fastest policy within an error bound."""

import math
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tilewhisper.engine.commands.files import check_writable, write
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.policy import DEFAULT_POLICY, load_policy, parse_policy
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Settings
from tilewhisper.models.audio.reader import check_file
from tilewhisper.models.checkpoint.locate import locate

if TYPE_CHECKING:
    from torch import Tensor

    from tilewhisper.engine.tuning.autotune import Figure, Tuning

SYNTHETIC = "synthetic speech, no recording"


def run(args: Namespace) -> int:
    _check(args)
    candidates = _candidates(args.candidate, settings(args))

    import torch

    from tilewhisper.engine.commands import tables
    from tilewhisper.engine.tuning.autotune import tune
    from tilewhisper.engine.tuning.evaluation import Trials
    from tilewhisper.models.checkpoint import loader

    if args.threads:
        torch.set_num_threads(args.threads)
    screen = console(stderr=True)
    loaded = loader.load(args.model)
    mels = _windows(args.audio, loaded.model.config.num_mel_bins)
    create = partial(registry.create, settings=settings(args))
    with screen.status("measuring") as status, Trials(loaded.model, mels, create) as trials:
        tuning = tune(trials, candidates, args.bound, args.rounds, progress=status.update)
    text = _policy_text(loaded.name, args.audio, tuning)
    parse_policy(text, args.output)  # what is written can be read
    write(Path(args.output), text)
    headings, *rows = _figure_rows(tuning)
    screen.print(tables.plain_table(headings, rows))
    screen.print()
    headings, *rows = _whole_rows(tuning)
    screen.print(tables.plain_table(headings, rows))
    screen.print()
    for line in (*_left_out(tuning), *_setting(loaded.name, args.audio, tuning)):
        say(screen, line)
    say(screen, f"{_description(loaded.name, tuning)}: written to {args.output}", "bold")
    return 0


def _check(args: Namespace) -> None:
    """All that can be wrong without torch."""
    if args.rounds < 1:
        raise OptionError(f"--rounds must be at least 1, not {args.rounds}")
    if args.threads < 0:
        raise OptionError(f"the number of threads must not be negative, not {args.threads}")
    if not (math.isfinite(args.bound) and args.bound > 0):
        raise OptionError(f"--bound must be above 0, not {args.bound}; 5e-3 changed one transcript of 60")
    check_writable(args.output)
    for file in args.audio:
        check_file(file)
    locate(args.model)


def _candidates(asked: Sequence[str] | None, chosen: Settings) -> list[str]:
    """Raises UnknownBackend and BackendUnavailable for what was asked for by name."""
    if asked is None:
        return [cls.name for cls in registry.all_classes() if cls.for_speed and not cls.why_unavailable(chosen)]
    for name in asked:
        registry.create(name, chosen).close()
    return list(asked)


def _windows(files: Sequence[str], n_mels: int) -> "list[Tensor]":
    """The first window (n_mels, 3000) of each file, or of a synthetic sound."""
    from tilewhisper.engine.tuning.synthetic_speech import synthetic_speech
    from tilewhisper.models.audio import reader
    from tilewhisper.models.audio.log_mel import log_mel, window

    sounds = [reader.decode_audio(file) for file in files] or [synthetic_speech()]
    return [window(log_mel(sound, n_mels), 0) for sound in sounds]


def _policy_text(model: str, files: Sequence[str], tuning: "Tuning") -> str:
    from tilewhisper.engine.routing.policy_file import to_toml
    from tilewhisper.engine.tuning.fingerprint import fingerprint

    policy = replace(
        tuning.chosen.policy,
        description=_description(model, tuning),
        machine=fingerprint(),
        decoder=load_policy(DEFAULT_POLICY).decoder,  # it is not tuned: the default's is the fastest that is exact
    )
    figures, wholes = _aligned(_figure_rows(tuning)), _aligned(_whole_rows(tuning))
    return to_toml(policy, [*_setting(model, files, tuning), "", *figures, "", *wholes, *_left_out(tuning)])


def _description(model: str, tuning: "Tuning") -> str:
    return f"the fastest for {model} on this machine within {tuning.bound:g} of float32 states"


def _setting(model: str, files: Sequence[str], tuning: "Tuning") -> tuple[str, ...]:
    """What made the figures."""
    from tilewhisper.engine.report import machine

    here = machine()
    versions = ", ".join(f"{name} {here.packages[name]}" for name in ("tilewhisper", "torch"))
    return (
        f"tilewhisper tune: model {model}; audio: {', '.join(files) or SYNTHETIC}; {versions}; "
        f"{here.threads} threads of {here.cpu}",
        f"ms of one window of 30 s, all layers: medians of {tuning.rounds} rounds in turn. The error is relative, of "
        "the encoder's states against float32: in the first table what a backend brings there alone.",
    )


def _figure_rows(tuning: "Tuning") -> Iterator[tuple[str, ...]]:
    names = list(next(iter(tuning.figures.values())))
    yield ("launch", *(heading for name in names for heading in (f"{name} ms", "error")), "chosen")
    for kind, of_kind in tuning.figures.items():
        chosen = Counter(tuning.choice[launch] for launch in kind.launches)
        cells = (cell for name in names for cell in _cells(of_kind[name]))
        yield kind.name, *cells, ", ".join(chosen if len(chosen) == 1 else (f"{n} x {b}" for b, n in chosen.items()))


def _cells(figure: "Figure") -> tuple[str, str]:
    return ("-", "-") if figure.why_not else (f"{figure.seconds * 1e3:.2f}", f"{figure.error:.1e}")


def _whole_rows(tuning: "Tuning") -> Iterator[tuple[str, ...]]:
    yield "whole encoder", "ms", "error", ""
    for whole in tuning.wholes:
        word = "chosen" if whole is tuning.chosen else "" if whole.error <= tuning.bound else "over the bound"
        yield whole.policy.name, f"{whole.seconds * 1e3:.2f}", f"{whole.error:.1e}", word


def _left_out(tuning: "Tuning") -> Iterator[str]:
    for kind, of_kind in tuning.figures.items():
        for name, figure in of_kind.items():
            if figure.why_not:
                yield f"left out: {name} on {kind.name}: {figure.why_not}"


def _aligned(rows: Iterator[tuple[str, ...]]) -> list[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
