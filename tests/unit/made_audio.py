"""Audio generated for the tests: files of any container and codec, and the signal they should decode to."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/data/sample.flac"
SAMPLE_COUNT = soundfile.info(SAMPLE).frames
FORMATS = ROOT.parent / "shared/data/formats"
needs_formats = pytest.mark.skipif(not FORMATS.is_dir(), reason="the shared data (formats/) is missing")


def speech() -> np.ndarray:
    return soundfile.read(SAMPLE, dtype="float32")[0]


def snr(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-noise ratio in decibels of two arrays of the same length, at lag 0."""
    reference, other = reference.astype(np.float64), other.astype(np.float64)
    return float(10 * np.log10(np.sum(reference**2) / max(np.sum((reference - other) ** 2), 1e-30)))


def tones(rate: int, seconds: float = 1.0) -> np.ndarray:
    """Sample the same band-limited signal (all below 3.4 kHz) at any rate, from its formula."""
    rng = np.random.default_rng(2)
    time = np.arange(round(seconds * rate)) / rate
    waves = [rng.uniform(0.02, 0.1) * np.sin(2 * np.pi * rng.uniform(80, 3400) * time + i) for i in range(8)]
    return np.sum(waves, axis=0).astype(np.float32)


def piped(codec: str, samples: np.ndarray, rate: int, container: str) -> bytes:
    """What `encode` writes into a pipe, where libav cannot go back to write lengths and sizes into the header."""
    pipe = Pipe()
    write(pipe, codec, samples, rate, container)
    return pipe.data


def encode(path: Path, codec: str, samples: np.ndarray, rate: int, container: str, video: bool = False) -> Path:
    """Write (samples,) float32 with libav; `video` adds a black picture of the same length."""
    write(str(path), codec, samples, rate, container, video)
    return path


def write(
    target: "str | Pipe", codec: str, samples: np.ndarray, rate: int, container: str, video: bool = False
) -> None:
    options = {"movflags": "faststart"} if container in ("mp4", "ipod") else {}
    with av.open(target, "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        if video:
            picture = out.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
            black = np.zeros((64, 64, 3), np.uint8)
            frames = [av.VideoFrame.from_ndarray(black, format="rgb24") for _ in range(10 * len(samples) // rate)]
            for frame in [*frames, None]:
                out.mux(picture.encode(frame))
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        context = stream.codec_context
        fit = av.AudioResampler(context.format, "mono", rate, frame_size=context.frame_size or 1024)
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            out.mux(stream.encode(piece))


class Pipe:
    """A file that can only be written on."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += bytes(data)
        return len(data)


def retimed(path: Path, out: Path, container: str, time_of: Callable[[float], float | None]) -> Path:
    """Copy the packets of `path`; `time_of` maps each time of an audio packet, in seconds, to its new one or to None,
    which leaves the packet out."""
    with av.open(str(path)) as source, av.open(str(out), "w", format=container) as sink:
        streams = {stream.index: sink.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.pts is None:
                continue
            if packet.stream.type == "audio":
                time = time_of(float(packet.pts * packet.time_base))
                if time is None:
                    continue
                packet.pts = packet.dts = round(time / packet.time_base)
            packet.stream = streams[packet.stream.index]
            sink.mux(packet)
    return out


def with_hole(path: Path, start: float, length: float, content: bytes = b"\0") -> Path:
    """Overwrite a part of the file, given in fractions of its size, with `content`, repeated."""
    data = bytearray(path.read_bytes())
    first, last = int(start * len(data)), int((start + length) * len(data))
    data[first:last] = (content * (last - first))[: last - first]
    path.write_bytes(data)
    return path


def silent_film(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as out:
        picture = out.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
    return path


def half(path: Path) -> Path:
    cut = path.with_name("half_" + path.name)
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return cut
