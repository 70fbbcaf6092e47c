"""The arguments of `tilewhisper listen`."""

import argparse

from tilewhisper.engine.commands import flags
from tilewhisper.engine.commands.arguments import shared
from tilewhisper.engine.commands.hints import HintingParser
from tilewhisper.engine.commands.inputs import STDIN
from tilewhisper.engine.commands.listen_files import FORMATS, STEM, parse_formats
from tilewhisper.engine.commands.outputs import ALL


def add(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "listen",
        help="transcribe the microphone, or PCM on standard input, while it is spoken",
        epilog="Exit status: 0 the input has ended, or Ctrl-C; 2 the request cannot be met.",
    )
    p.add_argument(
        "input", nargs="?", metavar=STDIN, help=f"{STDIN} reads PCM (s16le) from standard input (default: microphone)"
    )
    p.add_argument("--input_device", metavar="NUMBER|NAME", help="of the microphone (default: the system's)")
    p.add_argument("--list_devices", action="store_true", help="list the input devices and exit")
    p.add_argument(
        "--rate", type=int, default=16_000, metavar="HZ", help="sample rate of standard input (default: %(default)s)"
    )
    p.add_argument(
        "--channels", type=int, default=1, metavar="N", help="channels of standard input (default: %(default)s)"
    )
    p.add_argument(
        "-f",
        "--output_format",
        action="extend",
        type=flags.checked(parse_formats),
        metavar="FORMAT[,FORMAT...]",
        help=f"formats of files that grow cue by cue: {', '.join(FORMATS)} or {ALL}; repeatable (default: {ALL} "
        "if --output_dir is given, else none)",
    )
    p.add_argument(
        "-o", "--output_dir", metavar="DIR", help=f"folder of the files, which are named {STEM} (default: .)"
    )
    shared.add_model(p)
    for name in ("language", "task", "initial_prompt"):
        flag = flags.FLAGS[name]
        flag.add_to(p, default=flag.field.default)
    shared.add_policy(p)
    shared.add_npu(p)
    shared.add_threads(p)
