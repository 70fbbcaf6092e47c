"""`tilewhisper transcribe`: text on standard output, everything else on standard error."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tilewhisper.engine.commands import inputs, loading, outputs
from tilewhisper.engine.commands.files import check_writable, write
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, say, showing_warnings
from tilewhisper.engine.commands.transcribe_run import INCOMPLETE, Outcome, TranscribeRun
from tilewhisper.engine.commands.transcribe_task import TranscribeTask, task_from
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.models.audio.reader import check_file

if TYPE_CHECKING:
    from tilewhisper.engine.whisper_model import WhisperModel


def run(args: Namespace) -> int:
    """Raises USER_ERRORS that concern all files; the error of a single file is reported and the others go on."""
    out, err = console(), console(stderr=True)
    if out.is_terminal and err.is_terminal:
        err = out  # one console for the whole screen: a progress bar must know of every line printed above it
    # Report every error that can be found without torch before importing it (1 s).
    check_writable(args.report)
    task = task_from(args)
    load_policy(task.policy).with_overrides(task.backends)
    outcome = Outcome()
    files = _files(args.files, outcome, err)
    if note := loading.english_only_note(args, task.model):
        say(err, note)
    for warning in task.ignored_flags(files):
        say(err, f"tilewhisper: warning: {warning}")
    written = _outputs(files, args)

    if files:
        with showing_warnings(err), _load(task, args, err) as model:
            TranscribeRun(model, files, task, written, outcome, out, err).transcribe()
    if outcome.failures and outcome.status == INCOMPLETE:
        say(err, f"tilewhisper: failed: {', '.join(file for file, _ in outcome.failures)}")
    if outcome.damaged:
        say(err, f"tilewhisper: damaged, transcribed in part: {', '.join(outcome.damaged)}")
    if args.report:
        write(Path(args.report), json.dumps(outcome.to_json(), indent=1) + "\n")
    return outcome.status


def _files(arguments: Sequence[str], outcome: Outcome, err: Console) -> list[str]:
    """The files to transcribe, including those in folders, without duplicates and unreadable files."""
    found: dict[str, None] = {}
    for argument in arguments:
        with outcome.collecting_failure(argument, err):
            found |= dict.fromkeys(inputs.files_of(argument))
    usable = []
    for file in found:
        with outcome.collecting_failure(file, err):
            check_file(file)
            usable.append(file)
    return usable


def _outputs(files: Sequence[str], args: Namespace) -> dict[str, list[Path]]:
    """The output files of each input; empty if no flag requests files. Raises OptionError."""
    if args.output_dir is None and args.output_format is None and args.verbose is not False:
        return {}
    return outputs.plan(files, Path(args.output_dir or "."), args.output_format or "all")


def _load(task: TranscribeTask, args: Namespace, err: Console) -> "WhisperModel":
    from tilewhisper.engine.options import TranscriptionOptions
    from tilewhisper.engine.tuning.fingerprint import machine_warning
    from tilewhisper.engine.whisper_model import WhisperModel

    options = TranscriptionOptions(**task.options)
    model = WhisperModel(
        task.model,
        cpu_threads=args.threads,
        policy=task.policy,
        backends=task.backends,
        settings=settings(args),
    )
    model.check(options)
    if warning := machine_warning(model.policy):
        say(err, warning)
    return model
