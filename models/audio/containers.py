"""Decode the audio track of any file libav reads (m4a, mp4, webm, mkv, mp3, …) with PyAV; needs no ffmpeg executable.

The only file that imports `av`; libav's errors become `AudioError` here. Samples keep the track's own rate; time 0 is
the track's first sample, and gaps between timestamps are not filled. Packets that cannot be decoded are skipped, and
the truncation check counts them as missing.
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

# Formats whose packets carry timestamps. The last packet of any track shows how far the file reaches, since audio may
# end before video.
TIMESTAMPED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}


@dataclass
class _Track:
    """Decoding progress of one track."""

    samples: int = 0  # at `rate`
    rate: int = 0  # Hz, as decoded: HE-AAC's containers state half of it
    latest_seconds: float = 0.0  # end of the last packet of any track
    lost_seconds: float = 0.0  # total duration of audio packets that could not be decoded
    resampler: "av.AudioResampler | None" = None
    format: tuple[str, str] = ("", "")  # the resampler's input: sample format and channel layout


def blocks(handle: BinaryIO, name: str) -> Iterator[Block]:
    """Decode the best audio track of a seekable binary file, from the file's beginning.

    Raises `AudioError` when libav cannot decode the file or finds no audio track; after the last block, when the header
    states clearly more audio than could be decoded.
    """
    import av  # late: wav and flac need no libav

    handle.seek(0)
    track = _Track()
    try:
        # A playlist must not make libav open other files or URLs: only the handle itself may be read.
        options = {"protocol_whitelist": "none"}
        # The name is hidden because libav trusts an extension over the content: text named x.raw becomes a picture.
        nameless = SimpleNamespace(read=handle.read, seek=handle.seek, tell=handle.tell)
        with av.open(nameless, mode="r", metadata_errors="ignore", options=options) as container:
            for samples in _decode(container, track, name):
                track.samples += len(samples)
                yield Block(samples, track.rate)
            stated = _stated_seconds(container)
            timestamped = container.format.name in TIMESTAMPED_FORMATS
    except av.FFmpegError as error:
        raise AudioError(
            f"{name}: not audio, or too damaged to decode ({error.strerror}); "
            "expected an audio or video file such as wav, flac, mp3, m4a or webm"
        ) from error
    seconds = track.samples / max(track.rate, 1)
    if stated is not None:
        # Some packets (WavPack's) carry no duration, so the decoded samples count too.
        reached = max(seconds, track.latest_seconds - track.lost_seconds) if timestamped else seconds
        refuse_truncated(name, stated, reached)
    if track.lost_seconds > TRUNCATION_SLACK_SECONDS:
        raise AudioError(
            f"{name}: damaged: {track.lost_seconds:.1f} s of its audio could not be decoded; "
            "copy or export the file again"
        )


def _decode(container: "InputContainer", track: _Track, name: str) -> Iterator[Samples]:
    import av

    stream = container.streams.best("audio")
    if stream is None and container.streams.audio:  # declared in the header, but without even a sample rate
        raise AudioError(f"{name}: malformed: its audio track cannot be decoded; copy or export the file again")
    if stream is None:
        raise AudioError(f"{name}: has no audio track; expected an audio file, or a video file with sound")
    for packet in container.demux():
        duration = float((packet.duration or 0) * packet.time_base)
        if packet.pts is not None:
            track.latest_seconds = max(track.latest_seconds, float(packet.pts * packet.time_base) + duration)
        if packet.stream.index != stream.index:
            continue
        try:
            frames = packet.decode()
        except av.FFmpegError:  # any code: a damaged AAC packet may report even "operation not permitted"
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
    # Never call `to_ndarray` on a planar frame of 8 channels: PyAV (18.1) looks for a ninth plane and crashes the
    # process. Interleaved float32 has one plane; at an unchanged rate the resampler converts without buffering.
    source_format = (frame.format.name, frame.layout.name)
    if track.resampler is None or track.format != source_format:
        track.resampler, track.format = av.AudioResampler(format="flt"), source_format
    for packed in track.resampler.resample(frame):
        interleaved = to_float32(packed.to_ndarray())  # (1, samples * channels)
        yield to_mono(interleaved.reshape(-1, packed.layout.nb_channels))


def _stated_seconds(container: "InputContainer") -> float | None:
    """The duration stated in the header; None where libav would only estimate it from the bit rate."""
    import av

    stream = container.streams.best("audio")
    # For mp3, libav knows a start (the encoder's delay) only from the Xing/LAME header, which also states the length.
    from_header = container.format.name in TIMESTAMPED_FORMATS | {"flac"} or (
        container.format.name == "mp3" and stream is not None and bool(stream.start_time)
    )
    return container.duration / av.time_base if from_header and container.duration else None
