"""Write subtitles for every audio or video file of a folder.

    python examples/subtitles_for_a_folder.py recordings --model base --format vtt

The files are decoded together. Each gets a subtitle file beside it; a file that fails is reported, the others go on.
"""

import argparse
import sys
from pathlib import Path

from tilewhisper import WhisperModel
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.output.writers import WRITERS

MEDIA = {".flac", ".m4a", ".mkv", ".mov", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm"}
LAYOUT = SubtitleOptions(max_line_width=42, max_line_count=2)


def main() -> int:
    args = parse_arguments()
    files = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in MEDIA)
    if not files:
        print(f"{args.folder} has no audio or video files", file=sys.stderr)
        return 2
    failed = 0
    with WhisperModel(args.model) as model:
        transcripts = model.transcribe_many(files, language=args.language, word_timestamps=True)
        for file, transcript in zip(files, transcripts, strict=True):
            if transcript.info is None:
                print(f"{file}: {transcript.error}", file=sys.stderr)
                failed += 1
                continue
            subtitles = file.with_suffix(f".{args.format}")
            text = WRITERS[args.format].render(transcript.segments, transcript.info, LAYOUT)
            subtitles.write_text(text, encoding="utf-8")
            print(f"{subtitles}: {len(transcript.segments)} segments, {transcript.info.duration:.1f} s")
    return 3 if failed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write subtitles for every audio or video file of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="(default: an installed multilingual model)")
    parser.add_argument("--language", help="code or English name (default: detected)")
    parser.add_argument("--format", default="srt", choices=("srt", "vtt"), help="(default: srt)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
