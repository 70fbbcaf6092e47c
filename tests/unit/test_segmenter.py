"""The seek loop without a model: requested windows, made-up results, returned segments.

Text tokens 1 to 9 are their digits, timestamp token 100 is 0.00 s; one step is 0.02 s, two frames.
"""

from types import SimpleNamespace

import pytest

from tilewhisper.engine.decoding.batch import DecodedWindow
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.segmenter import Clip, Segmenter, WindowResult, clips_between, clips_of
from tilewhisper.engine.timestamps.alignment import TokenTimes
from tilewhisper.models.audio.facts import Gap

BEGIN = 100
TOKENIZER = SimpleNamespace(
    eot=50,
    sot_prev=60,
    timestamp_begin=BEGIN,
    encode=lambda text: [int(t) for t in text.split()],
    decode=lambda tokens: "".join(" !"[t > 9] + str(t) if t < 9 else "." for t in tokens if t < 50),
)


def decoded(*tokens, no_speech=0.0, logprob=-0.1, temperature=0.0):
    return DecodedWindow(tokens, logprob, (logprob,) * len(tokens), logprob, no_speech, temperature, 1.0)


def run(content, *windows, align=None, clips=None, cuts=(), **fields):
    """(seek, frames, text before) of each requested window, and all segments."""
    options = TranscriptionOptions(**fields)
    segmenter = Segmenter(clips or clips_of(options, content), content, options, TOKENIZER, 448, cuts=cuts)
    requests, segments, results = [], [], iter(windows)
    while request := segmenter.request:
        assert segmenter.position == request.seek
        requests.append((request.seek, request.frames, request.prompt.before[1:]))
        segments += segmenter.accept(WindowResult(next(results), "en", align))
    assert next(results, None) is None
    return requests, segments


def test_windows_follow_the_timestamps_and_see_the_text_before():
    first = decoded(100, 1, 200, 200, 2, 1100, 1100, 3)  # 3 is cut off in the middle
    requested, segments = run(4000, first, decoded(100, 3, 200))
    assert requested == [(0, 3000, ()), (2000, 2000, (100, 1, 200, 200, 2, 1100))]
    assert [(s.seek, s.start, s.end, s.text) for s in segments] == [
        (0, 0.0, 2.0, " 1"),
        (0, 2.0, 20.0, " 2"),
        (2000, 20.0, 22.0, " 3"),
    ]


def test_silence_is_skipped_and_the_text_before_it_stays():
    speech, silent = decoded(100, 1, 1600), decoded(100, 2, 200, no_speech=0.9, logprob=-2.0)
    requested, segments = run(7000, speech, silent, decoded(100, 3, 200))
    assert [seek for seek, *_ in requested] == [0, 3000, 6000]
    assert requested[2][2] == (100, 1, 1600)
    assert [s.text for s in segments] == [" 1", " 3"]


def test_text_that_the_audio_does_not_speak_for_is_skipped():
    options = TranscriptionOptions()
    segmenter = Segmenter(clips_of(options, 4000), 4000, options, TOKENIZER, 448)
    assert segmenter.accept(WindowResult(decoded(100, 1, 200), "en", None, supported=False)) == ()
    assert (segmenter.request.seek, segmenter.request.prompt.before) == (3000, ())


def test_punctuation_alone_is_no_text():
    assert run(3000, decoded(100, 9, 200, 200, 9, 300, 300))[1] == []
    assert run(2000, decoded(100, 9, 1100), no_speech_threshold=None)[1][0].text == "."


def test_empty_segments_are_dropped_from_the_prompt_too():
    requested, segments = run(4000, decoded(100, 1, 200, 200, 2, 200, 200, 3, 1600, 1600), decoded(100, 4, 200))
    assert [s.text for s in segments] == [" 1", " 3", " 4"]
    assert requested[1][2] == (100, 1, 200, 200, 3, 1600)


def test_segments_end_with_the_audio():
    _, (segment,) = run(2000, decoded(100, 1, 1600))
    assert (segment.start, segment.end) == (0.0, 20.0)


def test_clips_are_transcribed_in_order():
    requested, segments = run(9000, *[decoded(100, n, 150) for n in (1, 2, 3)], clip_timestamps="5,40,60")
    assert [(seek, frames) for seek, frames, _ in requested] == [(500, 3000), (3500, 500), (6000, 3000)]
    assert [s.start for s in segments] == [5.0, 35.0, 60.0]


def test_clips_may_overlap_and_go_back():
    windows = [decoded(100, n, 1600) for n in (1, 2, 3, 4)]
    requested, segments = run(9000, *windows, clip_timestamps="20,55,10,25,0,5")
    assert [(seek, frames) for seek, frames, _ in requested] == [(2000, 3000), (5000, 500), (1000, 1500), (0, 500)]
    assert [(s.start, s.end) for s in segments] == [(20.0, 50.0), (50.0, 55.0), (10.0, 25.0), (0.0, 5.0)]


def test_words_of_a_clip_that_goes_back_do_not_wait_for_the_speech_of_the_clip_before():
    windows = [decoded(100, 1, 2, 150), decoded(100, 3, 4, 150)]
    _, segments = run(9000, *windows, align=aligned, clip_timestamps="20,25,10,15", word_timestamps=True)
    assert [(word.start, word.end) for s in segments for word in s.words] == [
        (20, 21),
        (21, 21.5),
        (10, 11),
        (11, 11.5),
    ]


def test_text_that_the_model_ends_after_its_clip_ends_with_the_clip():
    windows = [decoded(100, 1, 110, 110, 2, 1000, 1000, 3, 1600, 1600), decoded(100, 4, 1000)]
    requested, segments = run(9000, *windows, clip_timestamps="2,3,5,6")
    assert [(seek, frames) for seek, frames, _ in requested] == [(200, 100), (500, 100)]
    assert [(s.start, s.end, s.text) for s in segments] == [(2.0, 2.2, " 1"), (2.2, 3.0, " 2"), (5.0, 6.0, " 4")]


def test_segments_of_short_windows_do_not_overlap():
    windows = [decoded(100, 1, 200, 200, 2, 300, 300)] * 4
    requested, segments = run(400, *windows, chunk_length=1)
    assert [seek for seek, *_ in requested] == [0, 100, 200, 300]
    assert [(s.start, s.end) for s in segments] == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize(
    ("given", "found"),
    [("0", [(0, 900)]), ("2,4,6", [(200, 400), (600, 900)]), ("2,99", [(200, 900)]), ("99", [(900, 900)])],
)
def test_clips_lie_in_the_audio(given, found):
    assert clips_of(TranscriptionOptions(clip_timestamps=given), 900) == [Clip(*clip) for clip in found]


def test_a_chunk_length_shortens_the_windows():
    requested, _ = run(2500, *[decoded(100, 1, 150)] * 3, chunk_length=10)
    assert [(seek, frames) for seek, frames, _ in requested] == [(0, 1000), (1000, 1000), (2000, 500)]


def test_a_remainder_below_a_tenth_of_a_second_gets_no_window():
    assert run(9) == ([], [])
    assert len(run(10, decoded(100, 1, 105))[0]) == 1


def aligned(text):
    """One word per second; the last one lasts half a second."""
    starts = [float(i) for i in range(len(text))]
    return TokenTimes([*starts, len(text) - 0.5], [start + 0.1 for start in starts]), [0.9] * len(text)


def test_words_time_their_segments_and_the_next_window():
    first = decoded(100, 1, 2, 200, 200, 3, 300, 300)
    requested, segments = run(3200, first, decoded(100, 4, 150), align=aligned, word_timestamps=True)
    assert [(w.word, w.start, w.end) for w in segments[0].words] == [(" 1", 0.0, 1.0), (" 2", 1.0, 2.0)]
    assert (segments[1].start, segments[1].end) == (2.0, 2.5)
    assert requested[1][0] == 250  # where the last word ended, not at the timestamp of 4 s


def test_a_hallucination_after_silence_is_skipped():
    def improbable(text):
        times, _ = aligned(text)
        return TokenTimes([t + 10 for t in times.starts], [t + 10 for t in times.peaks]), [0.01] * len(text)

    hallucinated = decoded(600, 1, 650, 650)
    requested, segments = run(
        3000,
        hallucinated,
        decoded(100, 2, 150),
        align=lambda text: improbable(text) if text == [1] else aligned(text),
        word_timestamps=True,
        hallucination_silence_threshold=2.0,
    )
    assert [seek for seek, *_ in requested] == [0, 1000]
    assert [s.text for s in segments] == [" 2"]


@pytest.mark.parametrize("words", [False, True])
def test_a_segment_across_a_cut_is_split_by_its_words(words):
    window = decoded(100, 1, 2, 3, 200, 200, 4, 300)  # 0 to 2 s and 2 to 4 s; a word every second
    _, segments = run(1000, window, align=aligned, cuts=(1.05, 3.9), word_timestamps=words)
    assert [(s.text, s.tokens) for s in segments] == [(" 1", [100, 1]), (" 2 3", [2, 3, 200]), (" 4", [200, 4, 300])]
    if words:
        assert [[(w.start, w.end) for w in s.words] for s in segments] == [
            [(0.0, 1.0)],
            [(1.05, 2.0), (2.0, 3.0)],
            [(3.0, 3.5)],
        ]
    else:
        assert [(s.start, s.end, s.words) for s in segments] == [(0, 1.05, None), (1.05, 2, None), (2, 3.9, None)]


def test_words_are_found_only_where_a_segment_crosses_a_cut():
    def never(text):
        raise AssertionError(text)

    _, segments = run(1000, decoded(100, 1, 200, 200, 2, 300), align=never, cuts=(2.0, 9.0))
    assert [(s.start, s.end) for s in segments] == [(0, 2), (2, 4)]


def test_long_silence_that_stands_in_for_audio_is_between_clips():
    silences = [Gap(0.0, 5.0), Gap(12.0, 30.004)]
    assert clips_between(silences, 4300) == [Clip(0, 0), Clip(500, 1200), Clip(3000, 4300)]
    assert clips_between([Gap(3.0, 9.0)], 900) == [Clip(0, 300), Clip(900, 900)]
    assert clips_between([], 900) == [Clip(0, 900)]
