"""The language of a file: which windows are looked at, and which of them decides."""

from collections.abc import Iterable, Iterator, Sequence

from tilewhisper.engine.decoding.language import DetectedLanguage
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.quality import may_be_silence
from tilewhisper.engine.pipeline.segmenter import Clip
from tilewhisper.models.constants import FRAMES_PER_WINDOW


def windows_of(clips: Sequence[Clip], frames: int) -> Iterator[Clip]:
    """Windows of up to 30 s from the start of each clip on, without overlap, in audio of `frames` frames; at least one.

    A window may reach beyond a short clip: more speech makes the detection surer.
    """
    reached = first = clips[0].first if clips else 0
    for clip in clips:
        for seek in range(max(reached, clip.first), clip.last, FRAMES_PER_WINDOW):
            reached = min(seek + FRAMES_PER_WINDOW, frames)
            yield Clip(seek, reached)
    if reached == first:
        yield Clip(first, max(first, min(first + FRAMES_PER_WINDOW, frames)))


def choose_language(windows: Iterable[DetectedLanguage], options: TranscriptionOptions) -> DetectedLanguage:
    """The window that decides the language; `windows` are detected only as far as they are needed.

    It is the first whose language is as probable as `language_detection_threshold`, else of the first
    `language_detection_segments`, the surest for the language that most of them name. Windows that may hold no speech
    are passed over: 30 s of white noise are "Nynorsk" with a probability of 0.6, and silence is English. Where no
    window holds speech, the language is a guess: that of the window whose no-speech probability is lowest.
    """
    spoken: list[DetectedLanguage] = []
    silent: list[DetectedLanguage] = []
    threshold = options.language_detection_threshold
    for window in windows:
        if may_be_silence(window.no_speech_prob, options):
            silent.append(window)
            continue
        if threshold is None or window.probability >= threshold:
            return window
        spoken.append(window)
        if len(spoken) == options.language_detection_segments:
            break
    if not spoken:
        return min(silent, key=lambda window: window.no_speech_prob)
    codes = [window.code for window in spoken]
    most = max(codes, key=codes.count)
    return max((window for window in spoken if window.code == most), key=lambda window: window.probability)
