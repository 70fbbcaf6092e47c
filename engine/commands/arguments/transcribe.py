"""The arguments of `tilewhisper transcribe`."""

import argparse

from tilewhisper.engine.commands import flags
from tilewhisper.engine.commands.arguments import shared
from tilewhisper.engine.commands.hints import HintingParser
from tilewhisper.engine.commands.inputs import STDIN
from tilewhisper.engine.commands.outputs import ALL, STDIN_STEM, parse_formats
from tilewhisper.engine.compat import COMPUTE_TYPES, NEAREST
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.output.writers import WRITERS
from tilewhisper.models.option_fields import option_fields

DEFAULT_BATCH_SIZE = 8
"""Chunks of a file that are decoded together."""
_ABOUT = (
    "The text goes to standard output, figures and errors to standard error. Files are written if --output_format, "
    "--output_dir, --keep_folders, --keep_extension or --verbose False is given, in openai-whisper's formats. Flags "
    "may be spelled with underscores or dashes."
)
_STATUSES = (
    "Exit status: 0 all done, 2 the request cannot be met, 3 some of several files failed or a file is damaged and was "
    "transcribed in part, 130 interrupted."
)


def add(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "transcribe",
        help="transcribe audio files and report the real-time factor",
        usage="tilewhisper transcribe FILE [FILE ...] [options]",
        description=_ABOUT,
        epilog=_STATUSES,
    )
    p.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=f"audio or video files, folders of them, or {STDIN} for standard input (its files are named {STDIN_STEM})",
    )
    shared.add_truth(p, "recursive", "include the folders inside the given folders (default: False)")
    _add_output(p.add_argument_group("output"))
    for title, members in flags.GROUPS.items():
        group = p.add_argument_group(title)
        for member in members:
            member.add_to(group)
    _add_weights(p.add_argument_group("model"))
    _add_machine(p.add_argument_group("machine"))


def _add_output(p: argparse._ArgumentGroup) -> None:
    p.add_argument(
        "-f",
        "--output_format",
        action="extend",
        type=flags.checked(parse_formats),
        metavar="FORMAT[,FORMAT...]",
        help=f"formats of the files: {', '.join(WRITERS)} or {ALL}; repeatable (default: {ALL})",
    )
    p.add_argument("-o", "--output_dir", metavar="DIR", help="folder of the files, created if missing (default: .)")
    shared.add_truth(
        p,
        "keep_folders",
        "repeat the inputs' folders in the output folder, below the folder that all inputs share (default: False)",
    )
    shared.add_truth(p, "keep_extension", "name files talk.mp3.srt instead of talk.srt (default: False)")
    p.add_argument(
        "--verbose",
        type=flags.truth,
        metavar="True|False",
        help="True prints times with the text; False prints neither text nor figures and writes files (default: text "
        "without times)",
    )
    p.add_argument("--report", metavar="FILE", help="write times, memory and the backend of each product as JSON")


def _add_weights(p: argparse._ArgumentGroup) -> None:
    p.add_argument(
        "--model",
        metavar="NAME|PATH",
        help=shared.MODEL,
    )
    p.add_argument("--model_dir", metavar="DIR", help="folder searched first for weights; downloads go there too")
    shared.add_truth(p, "local_files_only", "never download from the hub (default: False)")


def _add_machine(p: argparse._ArgumentGroup) -> None:
    which = p.add_mutually_exclusive_group()
    which.add_argument("--policy", metavar="NAME|FILE", help=shared.POLICY)
    which.add_argument(
        "--compute_type",
        choices=(*COMPUTE_TYPES, *NEAREST),
        help=f"CTranslate2's name of a policy: {_compute_types()}",
    )
    shared.add_backend(p)
    shared.add_npu(p)
    shared.add_threads(p)
    shared.add_truth(
        p,
        "batched",
        "cut each file at silences and decode its chunks together (default: False, or True for one file with "
        "--batch_size); if False, several files are decoded together, each with the text it has alone",
    )
    batch_size = option_fields(TranscriptionOptions)["batch_size"]
    p.add_argument(
        "--batch_size",
        type=flags.checked(batch_size.parse),
        metavar=batch_size.metavar,
        help="most files, or chunks of one file, decoded together; 1 decodes files one after the other "
        f"(default: {DEFAULT_BATCH_SIZE} chunks; for files it depends on cores and memory)",
    )
    p.add_argument("--device", metavar="NAME", help="cpu (default) or auto; use --policy npu for an NPU")
    shared.add_truth(p, "fp16", "accepted for openai-whisper's sake, without effect: --policy decides the precision")


def _compute_types() -> str:
    """Each compute type with its policy."""
    by_policy: dict[str, list[str]] = {}
    for name, (policy, _) in COMPUTE_TYPES.items():
        by_policy.setdefault(policy, []).append(name)
    return "; ".join(f"{', '.join(names)} = {policy}" for policy, names in by_policy.items())
