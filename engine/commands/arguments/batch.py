"""The arguments of `tilewhisper batch`."""

import argparse

from tilewhisper.engine.bulk.formats import FORMATS, JSONL
from tilewhisper.engine.commands import flags
from tilewhisper.engine.commands.arguments import shared
from tilewhisper.engine.commands.hints import HintingParser
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.option_fields import option_fields

_ABOUT = (
    "Transcribe many recordings into a folder with a row for each. The same command continues a job that was ended, "
    "and skips what is done. INPUT: a recording, a folder, a pattern such as 'talks/**/*.mp3', or a manifest: a .jsonl "
    "or .parquet file with a column path and, where a row needs them, language, task, prompt, start and end. Each may "
    "be a URL such as s3://bucket/talks, whose fsspec package must be installed."
)
_STATUSES = (
    "Exit status: 0 all done, 2 the request cannot be met, 3 some rows are errors, 130 interrupted: the same command "
    "goes on."
)


def add(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "batch",
        help="transcribe many recordings, resumable, with several workers or a Ray cluster",
        usage="tilewhisper batch INPUT [INPUT ...] --output DIR [options]",
        description=_ABOUT,
        epilog=_STATUSES,
    )
    p.add_argument("inputs", nargs="+", metavar="INPUT", help="recordings, folders, patterns or manifests")
    p.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the rows, created if missing")
    p.add_argument(
        "-f",
        "--format",
        action="extend",
        type=flags.checked(_formats),
        metavar="FORMAT[,FORMAT...]",
        help=f"of the rows: {', '.join(FORMATS)}; files is all of openai-whisper's formats; rows.jsonl is always "
        f"written (default: {JSONL})",
    )
    shared.add_truth(p, "retry_errors", "try rows again that were errors (default: False)")
    workers = p.add_argument_group("workers")
    workers.add_argument(
        "--workers",
        type=flags.count(least=1),
        default=0,
        metavar="N",
        help="processes with a model each (default: 1, or with --address as many as the cluster has room for)",
    )
    workers.add_argument(
        "--threads",
        type=flags.count(least=1),
        default=0,
        metavar="N",
        help="CPU threads of a worker (default: this machine's CPUs shared among its workers)",
    )
    workers.add_argument(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster: auto, HOST:PORT, ray://HOST:PORT, or local to start Ray here; without it, this machine's "
        "processes do the work",
    )
    batch_size = option_fields(TranscriptionOptions)["batch_size"]
    workers.add_argument(
        "--batch_size",
        type=flags.checked(batch_size.parse),
        metavar=batch_size.metavar,
        help="most recordings that a worker decodes together (default: by cores and memory)",
    )
    shared.add_npu(workers)
    for title, members in flags.GROUPS.items():
        group = p.add_argument_group(title)
        for member in members:
            member.add_to(group)
    model = p.add_argument_group("model")
    shared.add_model(model)
    shared.add_policy(model)


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"unknown format {name!r}; choose from {', '.join(FORMATS)}")
    return names
