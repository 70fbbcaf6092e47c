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

NO_SECOND_FILE = "the header states where the samples end; ffmpeg takes the second file's bytes for samples"
NO_NUMBERS = "the second file's bytes, decoded as samples, are no numbers; such audio is refused"
NO_DECODER = "PyAV's libraries are built without this decoder; the message says that the codec is the cause"
NO_SETTINGS = "ffmpeg's nut writer leaves out a setting that newer libraries than ffmpeg 5.1 need to decode it"
NO_PACKETS = "ffmpeg reads 0.04 of the 11 s as well: its wav writer does not keep the packets apart"

REASONS: tuple[Reason, ...] = (
    Reason("au", "*", "joined", NO_SECOND_FILE),
    Reason("codec2", "*", "*", NO_DECODER),
    Reason("nut", "pcm_f*", "joined", NO_NUMBERS),
    Reason("nut", "adpcm_ima_wav", "*", NO_SETTINGS),
    Reason("wav", "libspeex", "*", NO_PACKETS),
)


def reason_for(container: str, codec: str, variant: str, *, readable: bool) -> str | None:
    """The reason why a case need not pass, None without one; `readable` says whether ffmpeg reads it."""
    if not readable:
        return UNREADABLE
    for one in REASONS:
        if fnmatch(container, one.container) and fnmatch(codec, one.codec) and fnmatch(variant, one.variant):
            return one.reason
    return None
