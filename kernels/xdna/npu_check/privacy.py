"""Remove private data from a report that a user sends: names of user and computer, home folders, serial numbers."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilewhisper.kernels.xdna import probe

_PUBLIC_NAMES = {"root", "user", "localhost"}
_SERIALS = (
    *(f"sys/class/dmi/id/{item}" for item in ("product_serial", "board_serial", "chassis_serial", "product_uuid")),
    "etc/machine-id",
)
_PATTERNS = (
    (re.compile(r"/(?:home|Users)/[^/\s:;,'\"]+"), "~"),
    (re.compile(r"[A-Za-z]:\\Users\\[^\\\s:;,'\"]+", re.IGNORECASE), "~"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE), "<mac>"),
    (re.compile(r"(?i)(\bserial(?: ?(?:number|no\.?))?\s*[:=]?\s*)(?=\S*\d)\S+"), r"\1<serial>"),
)
"""Home folders of others, UUIDs, network addresses, and whatever is called a serial number."""


def without_private_data(value: Any) -> Any:
    """A JSON value with every text in it cleaned."""
    return _cleaned(value, tuple(_private_texts()))


def _cleaned(value: Any, private: tuple[tuple[re.Pattern[str], str], ...]) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(item, private) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, private) for item in value]
    if isinstance(value, str):
        for pattern, replacement in (*private, *_PATTERNS):
            value = pattern.sub(replacement, value)
    return value


def _private_texts() -> Iterator[tuple[re.Pattern[str], str]]:
    """This machine's own names and numbers, the paths first, because they contain the names."""
    for home in sorted({path.rstrip("/\\") for path in _homes()}, key=len, reverse=True):
        if home:
            yield re.compile(rf"{re.escape(home)}(?![\w.-])", re.IGNORECASE), "~"
    for names, replacement in ((_users(), "<user>"), (_hosts(), "<host>"), (_serials(), "<serial>")):
        for name in sorted({name for name in names if name}, key=len, reverse=True):
            if len(name) > 1 and name.casefold() not in _PUBLIC_NAMES:
                yield re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE), replacement


def _homes() -> Iterator[str]:
    for text in (os.environ.get("HOME"), os.environ.get("USERPROFILE"), os.path.expanduser("~")):  # noqa: PTH111
        if text and text != "~":
            yield from (text, os.path.realpath(text))


def _users() -> Iterator[str]:
    yield from (os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER"))
    try:
        yield getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as in containers
        return


def _hosts() -> Iterator[str]:
    host = socket.gethostname()
    yield from (host, host.partition(".")[0], os.environ.get("HOSTNAME", ""), os.environ.get("COMPUTERNAME", ""))


def _serials() -> Iterator[str]:
    for name in _SERIALS:
        try:
            yield Path(probe.ROOT / name).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
