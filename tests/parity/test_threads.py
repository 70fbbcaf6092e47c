"""Eight threads on one model: texts, reports, cancellation and closing, with real weights and real speech."""

import threading
import time

import numpy as np
import pytest
import torch
from conftest import SAMPLE, require_weights

from tilewhisper import BatchedInferencePipeline, WhisperModel
from tilewhisper.engine.errors import ModelClosed

OPTIONS = (
    {"beam_size": 1},
    {"beam_size": 5},
    {"word_timestamps": True, "beam_size": 2},
    {"temperature": 0.7, "best_of": 3, "seed": 5},
    {"without_timestamps": True, "beam_size": 1},
    {"initial_prompt": "He said that", "beam_size": 3},
    {"suppress_tokens": (-1, 262, 290), "no_repeat_ngram_size": 3},
    {"repetition_penalty": 1.2, "max_new_tokens": 12, "temperature": 0},
)


@pytest.fixture(scope="module")
def model():
    with WhisperModel(require_weights("tiny.en")) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clips(shared):
    return sorted((shared / "librispeech").glob("*.flac"))[:8]


def outcome(model, clip, options):
    segments, _ = model.transcribe(clip, language="en", **options)
    found = list(segments)
    report = segments.report()
    texts = [(segment.start, segment.end, segment.text, segment.words) for segment in found]
    return texts, {site.site: site.used for site in report.sites}, report.windows, report.tokens


def in_threads(*works):
    results = [None] * len(works)

    def run(i):
        try:
            results[i] = works[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
        assert not thread.is_alive()
    return results


def test_eight_threads_get_the_texts_and_the_counts_of_one(model, clips):
    works = [
        lambda clip=clip, options=options: outcome(model, clip, options)
        for clip, options in zip(clips, OPTIONS, strict=True)
    ]
    alone = [work() for work in works]
    assert len({str(texts) for texts, *_ in alone}) == 8
    assert in_threads(*works) == alone


def test_a_cancelled_transcription_ends_within_two_steps_and_the_others_do_not_notice(model, clips, monkeypatch):
    alone = [outcome(model, clip, {})[0] for clip in clips[:3]]
    cancelled, _ = model.transcribe(clips[3], language="en", beam_size=1)
    batch = model._scheduler._batch
    steps, at_cancel, real_step = 0, None, batch.step

    def step():
        nonlocal steps, at_cancel
        steps += 1
        if steps == 6:
            at_cancel = steps
            cancelled.cancel()
        return real_step()

    monkeypatch.setattr(batch, "step", step)

    def follow():
        segments = list(cancelled)
        return segments, steps - at_cancel

    (rest, delay), *others = in_threads(follow, *(lambda clip=clip: outcome(model, clip, {})[0] for clip in clips[:3]))
    assert rest == [] and delay <= 2
    assert others == alone
    assert len(batch) == 0


def test_a_failing_file_is_its_own_affair(model, clips, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    transcripts = list(model.transcribe_many([clips[0], tmp_path / "broken.wav", clips[1]], language="en"))
    assert [transcript.error is None for transcript in transcripts] == [True, False, True]


def test_all_ways_of_transcribing_may_run_at_once(model, clips):
    pipeline = BatchedInferencePipeline(model)

    def many():
        return [[s.text for s in one.segments] for one in model.transcribe_many(clips[:4], 2, language="en")]

    def alone():
        return [s.text for s in model.transcribe(clips[5], language="en")[0]]

    def states():
        return model.encode(torch.zeros(1, 80, 3000)).sum().item()

    def chunks():
        pytest.importorskip("silero_vad")
        pytest.importorskip("onnxruntime")
        return [s.text for s in pipeline.transcribe(clips[6], batch_size=4, language="en")[0]]

    works = (many, alone, states, chunks)
    assert in_threads(*works) == [work() for work in works]


@pytest.mark.parametrize("policy", ["torch", "cpu"])
def test_encoding_from_threads_counts_each_calls_own_sites(policy):

    from tilewhisper.engine.routing.router import Counts

    def count(model):
        counts = Counts()
        model.encode(torch.zeros(1, 80, 3000), counts)
        return {name: count.calls.total() for name, count in counts.items()}

    with WhisperModel(require_weights("tiny.en"), policy=policy) as model:
        expected = dict.fromkeys((plan.route.site.name for plan in model.site_plans), 1)
        assert in_threads(*[lambda: count(model)] * 4) == [expected] * 4


def test_use_after_close_is_refused():
    model = WhisperModel(require_weights("tiny.en"))
    running, _ = model.transcribe(SAMPLE, language="en")
    fresh, _ = model.transcribe(SAMPLE, language="en")
    next(running)
    model.close()
    model.close()  # twice is once
    for use in (
        lambda: model.transcribe(SAMPLE, language="en"),
        lambda: list(model.transcribe_many([SAMPLE], language="en")),
        lambda: model.encode(torch.zeros(1, 80, 3000)),
        lambda: next(fresh),
    ):
        with pytest.raises(ModelClosed, match="this model is closed; load it again"):
            use()
    assert running.report().windows == 1


def test_closing_while_others_transcribe_ends_them(clips):
    model = WhisperModel(require_weights("tiny.en"))
    long = np.tile(np.random.default_rng(0).standard_normal(16000 * 30).astype(np.float32) * 0.1, 20)

    def work():
        with pytest.raises(ModelClosed):
            list(model.transcribe(long, language="en", no_speech_threshold=None, beam_size=1)[0])
        return "ended"

    def close():
        time.sleep(1)
        model.close()

    assert in_threads(work, work, close) == ["ended", "ended", None]
