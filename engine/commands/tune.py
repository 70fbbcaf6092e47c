"""`tilewhisper tune`: measure backends; write the fastest policy within an error bound, or what each product costs."""

import math
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tilewhisper.engine.commands import loading
from tilewhisper.engine.commands.files import check_separate, check_writable, write
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, plain, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.policy import DEFAULT_POLICY, load_policy, parse_policy
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Settings
from tilewhisper.models.audio.reader import check_file

if TYPE_CHECKING:
    from torch import Tensor

    from tilewhisper.engine.tuning.autotune import Measurement, Tuning
    from tilewhisper.engine.tuning.evaluation import Trials
    from tilewhisper.models.checkpoint.loader import Checkpoint

SYNTHETIC = "synthetic speech, no recording"

Row = tuple[str, ...]


def run(args: Namespace) -> int:
    _check(args)
    source = loading.model(args)
    candidates = _candidates(args.candidate, settings(args))

    import torch

    from tilewhisper.engine.tuning.evaluation import Trials
    from tilewhisper.models.checkpoint import loader

    if args.threads:
        torch.set_num_threads(args.threads)
    loaded = loader.load(source)
    mels = _windows(args.audio, loaded.model.config.num_mel_bins)
    create = partial(registry.create, settings=settings(args))
    with Trials(loaded.model, mels, create) as trials:
        if args.map:
            _write_map(args, loaded, trials, candidates)
        if args.output:
            _write_policy(args, loaded.name, trials, candidates)
    return 0


def _write_policy(args: Namespace, model: str, trials: "Trials", candidates: Sequence[str]) -> None:
    from tilewhisper.engine.tuning.autotune import tune

    screen = console(stderr=True)
    with screen.status("measuring") as status:
        tuning = tune(trials, candidates, args.bound, args.rounds, progress=lambda text: status.update(plain(text)))
    text = _policy_text(model, args.audio, tuning)
    parse_policy(text, args.output)  # the file must be readable as a policy
    _show(model, args.audio, tuning)
    _write(args.output, text)
    say(screen, f"{_description(model, tuning)}: written to {args.output}", "bold")


def _write_map(args: Namespace, loaded: "Checkpoint", trials: "Trials", candidates: Sequence[str]) -> None:
    from tilewhisper.engine.tuning.sensitivity import TextProbe, measure
    from tilewhisper.engine.tuning.sensitivity_page import page

    screen = console(stderr=True)
    with screen.status("measuring") as status:
        probe = TextProbe(replace(loaded, model=trials.twin()), trials.expected) if args.audio else None
        found = measure(trials, probe, candidates, args.rounds, progress=lambda text: status.update(plain(text)))
    setting = _conditions(loaded.name, args.audio)
    _write(args.map, page(loaded.name, found, f"{setting}; times: median of {args.rounds} rounds in turn"))
    worst = max((effect for effect in found.effects if not effect.exclusion), key=lambda effect: effect.error)
    say(screen, f"largest error: {worst.error:.1e}, {worst.site} on {worst.backend}; written to {args.map}", "bold")


def _write(file: str, text: str) -> None:
    try:
        write(Path(file), text)
    except OptionError:
        say(console(), text)  # it took minutes to measure
        raise


def _check(args: Namespace) -> None:
    """Check the arguments before torch is imported. Raises OptionError and AudioError."""
    if args.rounds < 1:
        raise OptionError(f"--rounds must be >= 1, got {args.rounds}")
    if args.threads < 0:
        raise OptionError(f"--threads must be >= 0, got {args.threads}; 0 leaves the number to torch")
    if not (math.isfinite(args.bound) and args.bound > 0):
        raise OptionError(f"--bound must be > 0 and finite, got {args.bound}; the default is 5e-3")
    if not (args.output or args.map):
        raise OptionError("nothing to write: give --output FILE for a policy, --map FILE for a page, or both")
    for file in (args.output, args.map):
        check_writable(file)
    check_separate([("--output", args.output), ("--map", args.map)], args.audio)
    for file in args.audio:
        check_file(file)


def _candidates(requested: Sequence[str] | None, chosen: Settings) -> list[str]:
    """The requested backends, or all fast ones that can run. Raises UnknownBackend and BackendUnavailable."""
    if requested is None:
        return [cls.name for cls in registry.all_classes() if cls.for_speed and not cls.why_unavailable(chosen)]
    for name in requested:
        registry.create(name, chosen).close()
    return list(requested)


def _windows(files: Sequence[str], n_mels: int) -> "list[Tensor]":
    """The first log-mel window (n_mels, 3000) of each file, or of synthetic speech if there are none."""
    from tilewhisper.engine.tuning.synthetic_speech import synthetic_speech
    from tilewhisper.models.audio import reader
    from tilewhisper.models.audio.log_mel import log_mel, window

    clips = [reader.decode_audio(file) for file in files] or [synthetic_speech()]
    return [window(log_mel(clip, n_mels), 0) for clip in clips]


def _policy_text(model: str, files: Sequence[str], tuning: "Tuning") -> str:
    from tilewhisper.engine.routing.policy_file import to_toml
    from tilewhisper.engine.tuning.fingerprint import fingerprint

    policy = replace(
        tuning.chosen.policy,
        description=_description(model, tuning),
        machine=fingerprint(),
        decoder=load_policy(DEFAULT_POLICY).decoder,  # not tuned: the default policy's is the fastest exact decoder
    )
    launches, policies = _aligned(_launch_rows(tuning)), _aligned(_policy_rows(tuning))
    return to_toml(policy, [*_setting(model, files, tuning), "", *launches, "", *policies, *_exclusions(tuning)])


def _show(model: str, files: Sequence[str], tuning: "Tuning") -> None:
    from tilewhisper.engine.commands import tables

    screen = console(stderr=True)
    for headings, *rows in (_launch_rows(tuning), _policy_rows(tuning)):
        screen.print(tables.plain_table(headings, rows))
        screen.print()
    for line in (*_exclusions(tuning), *_setting(model, files, tuning)):
        say(screen, line)


def _description(model: str, tuning: "Tuning") -> str:
    return f"fastest policy for {model} on this machine with encoder states within {tuning.bound:g} of float32"


def _setting(model: str, files: Sequence[str], tuning: "Tuning") -> tuple[str, ...]:
    """The conditions of the measurement, and how to read the tables."""
    from tilewhisper.engine.commands.tables import counted

    return (
        _conditions(model, files),
        f"ms: median of {counted(tuning.rounds, 'round')} in turn, one window of 30 s, all layers. error: relative, of "
        "the encoder states against float32; in the first table with all other launches in float32.",
    )


def _conditions(model: str, files: Sequence[str]) -> str:
    from tilewhisper.engine.commands.tables import counted
    from tilewhisper.engine.report import machine

    here = machine()
    versions = ", ".join(f"{name} {here.packages[name]}" for name in ("tilewhisper", "torch"))
    return (
        f"tilewhisper tune: model {model}; audio: {', '.join(files) or SYNTHETIC}; {versions}; "
        f"{counted(here.threads, 'thread')} of {here.cpu}"
    )


def _launch_rows(tuning: "Tuning") -> Iterator[Row]:
    names = list(next(iter(tuning.measurements.values())))
    yield ("launch", *(heading for name in names for heading in (f"{name} ms", "error")), "chosen")
    for kind, of_kind in tuning.measurements.items():
        chosen = Counter(tuning.choice[launch] for launch in kind.launches)
        cells = (cell for name in names for cell in _cells(of_kind[name]))
        yield kind.name, *cells, ", ".join(chosen if len(chosen) == 1 else (f"{n} x {b}" for b, n in chosen.items()))


def _cells(measurement: "Measurement") -> tuple[str, str]:
    return ("-", "-") if measurement.exclusion else (f"{measurement.seconds * 1e3:.2f}", f"{measurement.error:.1e}")


def _policy_rows(tuning: "Tuning") -> Iterator[Row]:
    yield "whole encoder", "ms", "error", ""
    for measured in tuning.policies:
        note = "chosen" if measured is tuning.chosen else "" if measured.error <= tuning.bound else "over the bound"
        yield measured.policy.name, f"{measured.seconds * 1e3:.2f}", f"{measured.error:.1e}", note


def _exclusions(tuning: "Tuning") -> Iterator[str]:
    for kind, of_kind in tuning.measurements.items():
        for name, measurement in of_kind.items():
            if measurement.exclusion:
                yield f"excluded: {name} on {kind.name}: {measurement.exclusion}"


def _aligned(rows: Iterator[Row]) -> list[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
