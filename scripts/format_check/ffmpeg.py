"""The ffmpeg executable: what it can write, and its own decoding as the reference."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilewhisper.models.constants import SAMPLE_RATE

SECONDS = 60  # for one run
COMMON_CONTAINERS = ("wav", "mov", "matroska", "ogg", "avi", "mpegts", "caf", "nut")
"""Containers that are tried with every codec; the others are with their default codec."""
NO_FILES = {
    *("alsa", "oss", "pulse", "sdl", "sdl2", "caca", "xv", "opengl", "fbdev", "v4l2", "video4linux2"),  # devices
    *("rtp", "rtp_mpegts", "rtsp", "sap", "hds", "hls", "dash", "smoothstreaming"),  # network, many files
    *("segment", "stream_segment", "ssegment", "tee", "fifo", "fifo_test", "webm_chunk", "webm_dash_manifest"),
    *("crc", "framecrc", "framehash", "framemd5", "hash", "md5", "streamhash", "uncodedframecrc", "chromaprint"),
    *("null", "ffmetadata", "mkvtimestamp_v2"),  # no audio
}
"""Outputs that are no files with sound."""
SETTINGS = ((), ("-ar", "8000", "-ac", "1"), ("-ar", "48000", "-ac", "2"), ("-ar", "16000", "-ac", "1"))
"""Rates and channels: the input's own, then those that some codecs insist on."""

Settings = tuple[str, ...]
Samples = npt.NDArray[np.float32]


def encodings() -> Iterator[tuple[str, str]]:
    """(container, codec) of everything to try. Raises FileNotFoundError without ffmpeg."""
    codecs = re.findall(r"^ A\S{5} (\w+)", _listing("-encoders"), re.MULTILINE)
    names = re.findall(r"^  E (\S+)", _listing("-muxers"), re.MULTILINE)
    for container in (name for names_of_one in names for name in names_of_one.split(",")):
        if container in NO_FILES:
            continue
        default = re.search(r"Default audio codec: (\w+)", _listing("-h", f"muxer={container}"))
        if container in COMMON_CONTAINERS:
            yield from ((container, codec) for codec in codecs)
        elif default:
            yield container, ""


def encode(source: Path, container: str, codec: str, tried: Iterable[Settings], out: Path) -> Settings | None:
    """Write `source` to `out` with the first settings that ffmpeg accepts, and return them; None where it cannot.

    An empty `codec` is the container's default.
    """
    chosen = ("-c:a", codec) if codec else ()
    for settings in tried:
        run = _run("-y", "-i", source, "-map", "0:a", "-strict", "-2", *chosen, *settings, "-f", container, out)
        if run and run.returncode == 0 and out.stat().st_size:
            return settings
        if not run or not re.search(b"rate|channel|layout|open encoder", run.stderr):
            return None  # other settings would not help
    return None


def decode(file: Path) -> Samples | None:
    """A file as 16 kHz mono; None where ffmpeg finds no audio in it."""
    run = _run("-i", file, "-map", "0:a:0", "-f", "f32le", "-ac", "1", "-ar", str(SAMPLE_RATE), "-")
    return np.frombuffer(run.stdout[: len(run.stdout) // 4 * 4], np.float32) if run and run.stdout else None


def _listing(*arguments: str) -> str:
    return subprocess.run(["ffmpeg", "-hide_banner", *arguments], capture_output=True, text=True, check=True).stdout


def _run(*arguments: str | Path) -> "subprocess.CompletedProcess[bytes] | None":
    command = ["ffmpeg", "-nostdin", "-v", "error", *map(str, arguments)]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None
