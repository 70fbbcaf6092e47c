"""Measure the peak memory of `tilewhisper transcribe` on a short and on a long recording.

    python scripts/memory.py ../shared/data/librispeech --model base --policy int8 --json memory.json

The recordings are the folder's clips, joined and repeated. Separate processes transcribe each, once sequentially (the
command's default) and once in batches of chunks cut at silences; the peak is read from the report. Exit status: 0 when
the long recording takes at most 100 MB more than the short one, either way, and in batches at most 100 MB more than
sequentially; 1 when it takes more; 2 after an error.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clips import Samples, join, read_clips
from rich.progress import track
from rich.table import Table

from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.models.audio import reader
from tilewhisper.models.constants import SAMPLE_RATE

MB = 10**6
TARGET_MB = 100
WAYS = {"one window after the other": (), "--batch_size 8": ("--batch_size", "8")}


@dataclass(frozen=True)
class Peak:
    """Peak resident memory of one process, including mapped weights and shared libraries."""

    model: str
    way: str
    audio_seconds: float
    peak_bytes: int
    rtf: float
    batch_size: int
    """The largest number of windows decoded together."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    screen = console()
    cases = [(model, way) for model in args.model or ["tiny.en"] for way in WAYS]
    lengths = args.seconds or [60.0, 3600.0]
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = _recordings(args.folder, lengths, Path(folder))
            runs = [(model, way, file) for model, way in cases for file in files]
            peaks = [
                measure(*run, args) for run in track(runs, console=console(stderr=True), transient=True, description="")
            ]
    except (*USER_ERRORS, OSError, ValueError) as e:
        print(f"memory: error: {e}", file=sys.stderr)
        return 2
    rows = [peaks[first : first + len(files)] for first in range(0, len(peaks), len(files))]
    screen.print(_table(rows))
    target = f"target: at most {TARGET_MB} MB more than the first recording, and than one window after the other"
    say(screen, f"{target}; {args.threads} threads, policy {args.policy}, language {args.language}")
    if args.json:
        write_whole(args.json, json.dumps([asdict(peak) for peak in peaks], indent=1) + "\n")
    return int(any(max(growth(row), above_sequential(row, rows)) > TARGET_MB * MB for row in rows))


def measure(model: str, way: str, file: Path, args: argparse.Namespace) -> Peak:
    """Transcribe a file in its own process. Raises ValueError with the last line of its stderr where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [str(Path(sys.executable).with_name("tilewhisper")), "transcribe", str(file), "--model", model]
        command += ["--language", args.language, "--threads", str(args.threads), "--policy", args.policy]
        command += ["--report", str(report), *WAYS[way]]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.splitlines() or ["no message"]
            raise ValueError(f"{file.name} {way}: exit status {done.returncode}: {lines[-1]}")
        run: dict[str, Any] = json.loads(report.read_text())["runs"][0]
    return Peak(model, way, run["audio_seconds"], run["peak_memory_bytes"], run["rtf"], run["batch_size"])


def growth(peaks: Sequence[Peak]) -> int:
    """Bytes by which the largest peak exceeds the first recording's."""
    return max(peak.peak_bytes for peak in peaks) - peaks[0].peak_bytes


def above_sequential(peaks: Sequence[Peak], rows: Sequence[Sequence[Peak]]) -> int:
    """Bytes by which the last recording's peak exceeds that of the model's first way."""
    first = next(row for row in rows if row[0].model == peaks[0].model)
    return peaks[-1].peak_bytes - first[-1].peak_bytes


def _recordings(clips: Path, lengths: Sequence[float], folder: Path) -> list[Path]:
    """Write one WAV file per length (seconds) into `folder`."""
    decoded = [reader.decode_audio(clip.file) for clip in read_clips(clips)]
    seconds = sum(len(samples) for samples in decoded) / SAMPLE_RATE
    files = []
    for length in lengths:
        joined, _ = join(decoded * (int(length / seconds) + 1), length)
        files.append(folder / f"{length:g}s.wav")
        _write(files[-1], joined)
    return files


def _write(path: Path, samples: Samples) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).round().astype(np.int16).tobytes())


def _table(rows: Sequence[Sequence[Peak]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("peak MB")
    for peak in rows[0]:
        table.add_column(f"{peak.audio_seconds:.0f} s", justify="right")
    for column in ("difference MB", "above sequential MB", "RTF"):
        table.add_column(column, justify="right")
    for row in rows:
        peaks = (f"{peak.peak_bytes / MB:.0f}" for peak in row)
        more = (f"{bytes_more / MB:+.0f}" for bytes_more in (growth(row), above_sequential(row, rows)))
        table.add_row(f"{row[0].model}, {row[0].way}", *peaks, *more, f"{row[-1].rtf:.4f}")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clips and their transcripts.tsv")
    parser.add_argument("--model", action="append", help="model to measure; repeatable (default: tiny.en)")
    parser.add_argument(
        "--seconds", action="append", type=float, help="length of a recording; repeatable (default: 60 and 3600)"
    )
    parser.add_argument("--policy", default="cpu", help="policy of all runs (default: cpu)")
    parser.add_argument("--language", default="en", help="language of the clips (default: en)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
