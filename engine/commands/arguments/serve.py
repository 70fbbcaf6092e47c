"""The arguments of `tilewhisper serve`."""

import argparse

from tilewhisper.engine.commands import flags
from tilewhisper.engine.commands.arguments import shared
from tilewhisper.engine.commands.hints import HintingParser
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.option_fields import Range, option_fields


def add(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "serve",
        help="serve OpenAI's HTTP API, live transcription, Wyoming and a web page",
        epilog="Exit status: 0 stopped by SIGINT or SIGTERM, 2 the request cannot be met.",
    )
    models = p.add_argument_group("models")
    models.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help=f"{shared.MODEL}; repeatable: the first is loaded at the start, and official names stand for it",
    )
    shared.add_policy(models)
    shared.add_npu(models)
    shared.add_threads(models)
    beam_size = option_fields(TranscriptionOptions)["beam_size"]
    models.add_argument(
        "--beam_size",
        type=flags.checked(beam_size.parse),
        default=1,
        metavar=beam_size.metavar,
        help="hypotheses followed where a request does not say; 5 is more exact and slower (default: %(default)s)",
    )
    _add_number(models, "unload_after", "SECONDS", "unload a model that was not used for so long (default: never)")
    _add_number(models, "memory_limit", "MB", "most memory of all models' weights together (default: no limit)")
    network = p.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    network.add_argument(
        "--port", type=flags.checked(_port), default=8000, help="0 is any free port (default: %(default)s)"
    )
    network.add_argument("--api_key_file", metavar="FILE", help="one key a line; without it, no key is asked for")
    network.add_argument(
        "--cors_origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="origin such as https://example.com whose pages may read answers; repeatable (default: none)",
    )
    network.add_argument("--wyoming", metavar="URI", help="speak Wyoming too, such as at tcp://127.0.0.1:10300")
    limits = p.add_argument_group("limits")
    _add_number(limits, "max_upload_mb", "MB", "largest file (default: %(default)g)", 25)
    _add_number(limits, "max_audio_minutes", "MINUTES", "longest audio (default: %(default)g)", 240)
    limits.add_argument(
        "--max_waiting",
        type=flags.count(least=0),
        default=64,
        metavar="N",
        help="requests that may wait; one more is answered with 429 (default: %(default)s)",
    )
    _add_number(limits, "request_timeout", "SECONDS", "time limit of a request (default: %(default)g)", 600)


def _add_number(p: argparse._ActionsContainer, name: str, unit: str, help: str, default: float | None = None) -> None:
    p.add_argument(f"--{name}", type=flags.checked(_above_zero), default=default, metavar=unit, help=help)


def _above_zero(word: str) -> float:
    number = float(word)
    if number not in Range(0, above=True):
        raise ValueError(f"must be a number > 0, got {word}")
    return number


def _port(word: str) -> int:
    if not word.isdecimal() or int(word) > 65535:
        raise ValueError(f"must be a port from 0 to 65535, got {word!r}")
    return int(word)
