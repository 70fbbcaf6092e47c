"""`tilewhisper transcribe`: text on standard output, everything else on standard error."""

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tilewhisper.engine.commands import inputs, loading, outputs
from tilewhisper.engine.commands.files import check_separate, check_writable, write
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, say, showing_warnings
from tilewhisper.engine.commands.transcribe_run import INCOMPLETE, Outcome, TranscribeRun
from tilewhisper.engine.commands.transcribe_task import TranscribeTask, task_from
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.writers import WRITERS
from tilewhisper.engine.routing.policy import load_policy

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
    files = _files(args, outcome, err)
    if note := loading.english_only_note(args, task.model):
        say(err, note)
    for warning in task.ignored_flags(files):
        say(err, f"tilewhisper: warning: {warning}")
    for file in filter(inputs.may_wait, files):
        say(err, f"{file}: is a FIFO; waiting until another program has written the audio to it")
    written = _outputs(files, args)
    transcripts = (("the transcript", path) for paths in written.values() for path in paths)
    check_separate([*transcripts, ("--report", args.report)], (file for file in files if file != inputs.STDIN))

    if files:
        with showing_warnings(err), _load(task, args, err) as model:
            TranscribeRun(
                model, files, task, written, outcome, out, err, survives_lost_output=bool(written or args.report)
            ).transcribe()
    if outcome.failures and outcome.status == INCOMPLETE:
        say(err, f"tilewhisper: failed: {', '.join(inputs.shown(file) for file, _ in outcome.failures)}")
    if outcome.damaged:
        say(err, f"tilewhisper: damaged, transcribed in part: {', '.join(map(inputs.shown, outcome.damaged))}")
    if args.report:
        write(Path(args.report), json.dumps(outcome.to_json(), indent=1) + "\n")
    return outcome.status


def _files(args: Namespace, outcome: Outcome, err: Console) -> list[str]:
    """The inputs to transcribe, including files in folders, without duplicates and unreadable ones."""
    found: dict[str, str] = {}
    for argument in args.files:
        with outcome.collecting_failure(argument, err):
            files, errors = inputs.files_of(argument, recursive=bool(args.recursive))
            for error in errors:
                outcome.fail(argument, error, err)
            for file in files:
                found.setdefault(os.path.normpath(file), file)
    usable = []
    for file in found.values():
        with outcome.collecting_failure(file, err):
            inputs.check(file)
            usable.append(file)
    return usable


def _outputs(files: Sequence[str], args: Namespace) -> dict[str, list[Path]]:
    """The output files of each input; empty if no flag requests files. Raises OptionError."""
    flags = (args.output_dir, args.output_format, args.keep_folders, args.keep_extension)
    if not any(flags) and args.verbose is not False:
        return {}
    if args.output_dir == "-":
        raise OptionError("--output_dir must be a folder, got -: the text is printed anyway; ./- is a folder's name")
    naming = outputs.Naming(
        Path(args.output_dir or "."),
        args.output_format or list(WRITERS),
        inputs.common_folder(args.files),
        keep_folders=bool(args.keep_folders),
        keep_extension=bool(args.keep_extension),
    )
    return outputs.plan(files, naming)


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
