"""Decode an audio track of any file libav reads (m4a, mp4, webm, mkv, mp3, …) with PyAV; needs no ffmpeg executable.

The only file that imports `av`; libav's errors become `AudioError` here. Samples keep the track's own rate. Time 0 is
the start of the file, in whichever track that is, and silence stands in for audio that is not there (`track_clock`).
"""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from tilewhisper.models.audio import mpeg, tracks
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.recording import Block, Samples, silence, to_float32, to_mono
from tilewhisper.models.audio.sections import section
from tilewhisper.models.audio.stated_size import stated_size
from tilewhisper.models.audio.track_clock import TrackClock
from tilewhisper.models.errors import AudioError

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

# Formats whose packets carry times. libav only counts the packets of others, and the count is off after damage or a
# change of the rate.
TIMESTAMPED_FORMATS = {
    "asf",
    "flac",
    "flv",
    "matroska,webm",
    "mov,mp4,m4a,3gp,3g2,mj2",
    "mpeg",
    "mpegts",
    "mxf",
    "nut",
    "ogg",
    "rm",
    "wtv",
}
# Formats that lie in the order of their times: bytes that are skipped at a gap are damage.
SEQUENTIAL_FORMATS = {"asf", "flv", "matroska,webm"}
# Formats whose headers state the length. For others libav estimates it, from the bit rate and the file's size.
STATED_FORMATS = {"flac", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "ogg"}
# Formats whose headers state the size of the file; their lengths are often wrong (31 s for 11 s of ADPCM in avi).
SIZED_FORMATS = {"asf", "avi", "caf", "wav"}


def blocks(
    handle: BinaryIO, name: str, log: AudioLog, track: int | str | None = None, *, gapless: bool = False
) -> Iterator[Block]:
    """Decode an audio track of a seekable binary file, from the file's beginning, and record what is missing.

    `track` is a number from 1 on or a language code; None takes the track that libav prefers. With `gapless`, every
    gap between timestamps is recorded as damage. Raises `AudioError` when libav cannot decode the file, or it has no
    such track.
    """
    import av  # late: wav and flac need no libav

    whole, stated_bytes = mpeg.is_whole(handle), stated_size(handle)
    size = handle.seek(0, os.SEEK_END)
    handle = section(handle, 0, size)
    # A playlist must not make libav open other files or URLs: only the handle itself may be read.
    options = {"protocol_whitelist": "none"}
    # The name is hidden because libav trusts an extension over the content: text named x.raw becomes a picture.
    nameless = SimpleNamespace(read=handle.read, seek=handle.seek, tell=handle.tell)
    try:
        with av.open(nameless, mode="r", options=options, **_escaped_tags(av.__version__)) as container:
            stream = _stream(container, name, track)
            tracks.check(stream, name)
            log.track = tracks.label(stream, container.streams.audio.index(stream) + 1)
            decoder = _Decoder(container, stream, log, gapless or container.format.name == "flac")
            yield from decoder.blocks()
            if decoder.broke_off and handle.tell() < size:
                decoder.clock.break_off()
            if not decoder.decoded and decoder.error:
                raise decoder.error
            stated = None if whole else _stated_seconds(container, stream)
            if container.format.name in SIZED_FORMATS and stated_bytes:
                stated = decoder.clock.reached * max(1.0, stated_bytes / size)
    except av.FFmpegError as error:
        raise AudioError(
            f"{name}: not audio, or too damaged to decode ({error.strerror}); "
            "expected an audio or video file such as wav, flac, mp3, m4a or webm"
        ) from error
    if stated is not None:
        log.compare(stated, decoder.clock.reached)


class _Decoder:
    """Decodes one track."""

    def __init__(self, container: "InputContainer", stream: "AudioStream", log: AudioLog, gapless: bool) -> None:
        self._container, self._stream = container, stream
        self.clock = TrackClock(
            log,
            timestamped=container.format.name in TIMESTAMPED_FORMATS,
            sequential=container.format.name in SEQUENTIAL_FORMATS,
            gapless=gapless,
        )
        self.decoded = False
        self.error: av.FFmpegError | None = None
        """The last error of a packet."""
        self.broke_off = False
        """Whether libav found no way to go on."""
        self._resampler: av.AudioResampler | None = None
        self._resampled = ("", "", 0)
        """The sample format, channel layout and rate that the resampler takes."""

    def blocks(self) -> Iterator[Block]:
        import av

        start = (self._container.start_time or 0) / av.time_base
        for packet in self._packets():
            duration = float((packet.duration or 0) * packet.time_base)
            time = None if packet.pts is None else float(packet.pts * packet.time_base) - start
            self.clock.read_packet(time, duration, packet.pos, packet.size)
            if packet.stream.index != self._stream.index:
                continue
            try:
                frames = packet.decode()
            except av.FFmpegError as error:  # any code: a damaged AAC packet may report "operation not permitted"
                self.error = error
                self.clock.lose_packet(bytes(packet), duration)
                continue
            self.clock.keep_packet(bytes(packet), duration)
            for frame in cast("list[av.AudioFrame]", frames):  # of a packet of an audio track
                rate = frame.sample_rate  # HE-AAC's containers state half of it
                missing = self.clock.silence_before(None if frame.time is None else frame.time - start)
                yield from silence(round(missing * rate), rate)
                for samples in self._converted(frame):
                    self.decoded = True
                    self.clock.advance(len(samples) / rate)
                    yield Block(samples, rate)
        self.clock.finish()

    def _packets(self) -> "Iterator[Packet[Any]]":
        """The packets of all tracks, up to the end or to damage that libav cannot skip."""
        import av

        try:
            yield from self._container.demux()
        except av.FFmpegError as error:
            self.error = error
            self.broke_off = True

    def _converted(self, frame: "av.AudioFrame") -> Iterator[Samples]:
        import av

        # Never call `to_ndarray` on a planar frame of 8 channels: PyAV (18.1) looks for a ninth plane and crashes the
        # process. Interleaved float32 has one plane; at an unchanged rate the resampler converts without buffering.
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or self._resampled != source:
            self._resampler, self._resampled = av.AudioResampler(format="flt"), source
        for packed in self._resampler.resample(frame):
            interleaved = to_float32(packed.to_ndarray())  # (1, samples * channels)
            yield to_mono(interleaved.reshape(-1, packed.layout.nb_channels))


def _escaped_tags(version: str) -> dict[str, Any]:
    """Arguments with which `av.open` escapes the bytes of tags that are not UTF-8, by the version of PyAV.

    19 always does, and takes no such argument; earlier ones would refuse the file.
    """
    return {} if int(version.partition(".")[0]) >= 19 else {"metadata_errors": "surrogateescape"}


def _stream(container: "InputContainer", name: str, track: int | str | None) -> "AudioStream":
    best = container.streams.best("audio")
    if not container.streams.audio:
        raise AudioError(f"{name}: has no audio track; expected an audio file, or a video file with sound")
    if track is not None:
        return tracks.choose(container.streams.audio, track, name)
    if best is None:  # declared in the header, but without even a sample rate
        raise AudioError(f"{name}: malformed: its audio track cannot be decoded; copy or export the file again")
    return best  # type: ignore[return-value]  # an audio stream, as was asked for


def _stated_seconds(container: "InputContainer", stream: "AudioStream") -> float | None:
    """The length that the header states; None where it states none."""
    import av

    # For mp3, libav knows a start (the encoder's delay) only from the Xing header, which also states the length.
    stated = container.format.name in STATED_FORMATS or (container.format.name == "mp3" and bool(stream.start_time))
    return container.duration / av.time_base if stated and container.duration else None
