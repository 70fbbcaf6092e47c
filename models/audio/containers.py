"""Read the audio track of what libav reads (m4a, mp4, webm, mkv, mp3, …), through PyAV: no ffmpeg executable.

The only file that imports `av`, and its errors end here. Samples come at the track's own rate; time starts with the
track's first sample, and gaps between timestamps are not filled. A packet that cannot be decoded is left out, which
the check for truncation counts as missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, BinaryIO

from tilewhisper.models.audio.recording import (
    TRUNCATION_SLACK_SECONDS,
    Block,
    Samples,
    refuse_truncated,
    to_float32,
    to_mono,
)
from tilewhisper.models.errors import AudioError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# Formats that date their packets: how far a file got is the last packet of any track (audio may end before video).
DATED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}


@dataclass
class _Track:
    """How far the decoding has come."""

    samples: int = 0  # at `rate`
    rate: int = 0  # Hz, as decoded: HE-AAC's containers state half of it
    latest_seconds: float = 0.0  # end of the last packet, whatever its track
    lost_seconds: float = 0.0  # audio packets that could not be decoded
    resampler: "av.AudioResampler | None" = None
    form: tuple[str, str] = ("", "")  # sample format and layout the resampler was made for


def blocks(handle: BinaryIO, name: str) -> Iterator[Block]:
    """Decode the best audio track of a seekable binary file, from the file's beginning.

    Raises `AudioError` for what libav cannot decode and a file without an audio track; after the last block, for a file
    whose header states clearly more audio than could be decoded.
    """
    import av  # late: wav and flac need no libav

    handle.seek(0)
    track = _Track()
    try:
        # A playlist must not make libav open other files or addresses: no protocol is allowed but the handle itself.
        options = {"protocol_whitelist": "none"}
        # Without its name, since libav believes an extension before the content: text named x.raw becomes a picture.
        nameless = SimpleNamespace(read=handle.read, seek=handle.seek, tell=handle.tell)
        with av.open(nameless, mode="r", metadata_errors="ignore", options=options) as container:
            for samples in _decode(container, track, name):
                track.samples += len(samples)
                yield Block(samples, track.rate)
            stated = _stated_seconds(container)
            dated = container.format.name in DATED_FORMATS
    except av.FFmpegError as error:
        raise AudioError(
            f"{name}: not audio, or damaged beyond decoding ({error.strerror}); "
            "expected a sound or video file such as wav, flac, mp3, m4a or webm"
        ) from error
    seconds = track.samples / max(track.rate, 1)
    if stated is not None:
        # Some packets (WavPack's) carry no duration: what was decoded counts too.
        reached = max(seconds, track.latest_seconds - track.lost_seconds) if dated else seconds
        refuse_truncated(name, stated, reached)
    if track.lost_seconds > TRUNCATION_SLACK_SECONDS:
        raise AudioError(
            f"{name}: damaged: {track.lost_seconds:.1f} s of its audio could not be decoded; "
            "copy or export the file again"
        )


def _decode(container: "InputContainer", track: _Track, name: str) -> Iterator[Samples]:
    import av

    stream = container.streams.best("audio")
    if stream is None and container.streams.audio:  # announced, but without so much as a rate
        raise AudioError(f"{name}: malformed: its audio track cannot be decoded; copy or export the file again")
    if stream is None:
        raise AudioError(f"{name}: has no audio track; expected a file with sound")
    for packet in container.demux():
        duration = float((packet.duration or 0) * packet.time_base)
        if packet.pts is not None:
            track.latest_seconds = max(track.latest_seconds, float(packet.pts * packet.time_base) + duration)
        if packet.stream.index != stream.index:
            continue
        try:
            frames = packet.decode()
        except av.FFmpegError:  # whatever its code: a damaged AAC packet even says "operation not permitted"
            track.lost_seconds += duration
            continue
        for frame in frames:
            yield from _converted(track, frame, name)  # type: ignore[arg-type]  # an audio packet yields audio frames


def _converted(track: _Track, frame: "av.AudioFrame", name: str) -> Iterator[Samples]:
    import av

    if track.rate not in (0, frame.sample_rate):
        raise AudioError(
            f"{name}: its sample rate changes from {track.rate} to {frame.sample_rate} Hz part-way; "
            "expected one rate, convert the file first"
        )
    track.rate = frame.sample_rate
    # Never `to_ndarray` on a planar frame of 8 channels: PyAV (18.1) looks for a ninth plane and the process dies.
    # Interleaved float32 has one plane; at an unchanged rate the resampler converts and holds nothing back.
    form = (frame.format.name, frame.layout.name)
    if track.resampler is None or track.form != form:
        track.resampler, track.form = av.AudioResampler(format="flt"), form
    for packed in track.resampler.resample(frame):
        interleaved = to_float32(packed.to_ndarray())  # (1, samples * channels)
        yield to_mono(interleaved.reshape(-1, packed.layout.nb_channels))


def _stated_seconds(container: "InputContainer") -> float | None:
    """The duration the header itself states; None where libav would only guess it from the bit rate."""
    import av

    stream = container.streams.best("audio")
    # For mp3, libav knows a start (the encoder's delay) only from the Xing/LAME header, which also states the length.
    from_header = container.format.name in DATED_FORMATS | {"flac"} or (
        container.format.name == "mp3" and stream is not None and bool(stream.start_time)
    )
    return container.duration / av.time_base if from_header and container.duration else None
