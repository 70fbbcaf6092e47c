"""Stated reasons: cases in which another result than ffmpeg's, or none, is right or accepted."""

from fnmatch import fnmatch
from typing import NamedTuple


class Reason(NamedTuple):
    """Patterns of the container, the codec and the variant, and the reason."""

    container: str
    codec: str
    variant: str
    reason: str


UNREADABLE = "ffmpeg cannot read it either"

REASONS: tuple[Reason, ...] = ()


def reason_for(container: str, codec: str, variant: str, *, readable: bool) -> str | None:
    """The reason why a case need not pass, None without one; `readable` says whether ffmpeg reads it."""
    if not readable:
        return UNREADABLE
    for one in REASONS:
        if fnmatch(container, one.container) and fnmatch(codec, one.codec) and fnmatch(variant, one.variant):
            return one.reason
    return None
