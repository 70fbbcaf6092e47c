"""`scripts/compare.py` without other engines: joining, scoring, and the process of a contender."""

import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def speech(seconds, value=0.5):
    return np.full(round(seconds * 16_000), value, np.float32)


def test_whole_recordings_are_joined_with_gaps_up_to_the_given_length():
    from clips import join

    joined, used = join([speech(2), speech(3), speech(1)], seconds=6)
    assert used == 2
    assert len(joined) == round(5.5 * 16_000)
    assert not joined[32_000:40_000].any()
    assert joined[:32_000].all()
    assert joined[40_000:].all()


def test_end_of_speech_excludes_the_silence_after_it():
    from clips import end_of_speech

    assert end_of_speech(np.concatenate([speech(2), speech(1, value=0.001)])) == pytest.approx(2.0)


def answer(seconds, text, spans=()):
    from peers.base import Transcript
    from peers.contender import Answer

    return Answer(Transcript(text, list(spans), tokens=10, decode_seconds=seconds / 2), seconds)


def test_ratios_are_to_the_first_contender_and_word_errors_over_all_recordings():
    from comparison import Recording, score

    recordings = [
        Recording("a", Path("a"), seconds=10.0, reference="red green blue white", end_of_speech=9.5, longest=10.0),
        Recording("b", Path("b"), seconds=30.0, reference="black", end_of_speech=30.0, longest=30.0),
    ]
    ours = [[answer(9, "-"), answer(1, "-"), answer(2, "Red, green, blue white!", [(0, 9.0)])], [answer(2, "Black.")]]
    theirs = [[answer(4, "red green blue")], [answer(12, "grey")]]
    first, second = score(["ours", "theirs"], [ours, theirs], recordings)
    assert (first.rtf, first.ratio, first.word_error_rate) == (0.1, 1.0, 0.0)
    assert (first.rtf_min, first.rtf_max) == (3 / 40, 11 / 40)
    assert first.end_error == -0.5
    assert first.token_seconds == pytest.approx(14 / 2 / 40)
    assert (second.rtf, second.ratio, second.median_ratio) == (0.4, 4.0, 4.0)
    assert second.word_error_rate == pytest.approx(40)
    assert second.end_error is None


def test_a_wrong_text_has_no_times():
    from comparison import Recording, score

    recording = Recording("a", Path("a"), seconds=10.0, reference="red green", end_of_speech=9.5, longest=10.0)
    answers = [[[answer(seconds, text)]] for seconds, text in ((2, "red green"), (4, "red green"), (1, "Thank you."))]
    good, peer, wrong = score(["ours", "peer", "wrong"], answers, [recording])
    assert not good.wrong
    assert peer.ratio == 2.0
    assert wrong.wrong
    assert (wrong.rtf, wrong.ratio, wrong.token_seconds, wrong.seconds) == (None, None, None, [])
    good, peer, wrong = score(["wrong", "peer", "ours"], answers[::-1], [recording])
    assert (wrong.rtf, wrong.ratio, peer.ratio) == (0.2, None, None)


def test_lengths_are_of_whole_clips_repeated_where_they_are_too_few():
    from comparison_audio import Speech, of_lengths

    clips = [Speech(word, speech(seconds), word) for word, seconds in (("red", 2), ("green", 4))]
    short, long = of_lengths(clips, (3.5, 21))
    assert short.reference == "green"
    assert long.reference == "red green red green red green"
    assert long.seconds == pytest.approx(20.5)


def test_of_every_peer_those_that_cannot_run_are_left_out_with_the_reason(monkeypatch):
    import argparse

    import compare
    from comparison import Recording
    from peers.catalog import Kind

    peers = {
        "absent": Kind("Absent", "peers.absent", ("no-such-package",), "as it is", install="no-such-package>=1"),
        "short": Kind("Short", "peers.short", (), "as it is", longest=30.0),
        "multilingual": Kind("Multilingual", "peers.multilingual", (), "as it is", only_multilingual=True),
        "present": Kind("Present", "peers.present", (), "as it is"),
    }
    monkeypatch.setattr(compare, "PEERS", peers)
    recordings = [Recording("a", Path("a"), 60.0, "", 60.0, longest=60.0)]
    args = argparse.Namespace(every_peer=True, command="clips", policy=["cpu"], ours=[])
    left_out = {}
    kinds = compare._kinds(args, "tiny.en", recordings, left_out)
    assert [kind.label for kind in kinds] == ["tilewhisper policy=cpu", "Present"]
    assert left_out == {
        "Absent": "no-such-package is not installed: pip install no-such-package>=1",
        "Short": "takes recordings of up to 30 s",
        "Multilingual": "takes multilingual models only",
    }
    assert "Multilingual" in [kind.label for kind in compare._kinds(args, "tiny", recordings, {})]


def test_a_segment_that_overlaps_or_has_no_length_is_misplaced():
    from quality import count_misplaced

    assert count_misplaced([(0.0, 1.0), (1.0, 2.0), (2.5, 3.0)]) == 0
    assert count_misplaced([(0.0, 1.0), (0.9, 2.0), (2.0, 2.0)]) == 2


PEER = """
import os
from peers.base import Transcript

class Peer:
    def __init__(self, setup):
        self.word = setup.options["word"]
    def transcribe(self, samples):
        print("output of a library")
        if self.word == "fault":
            raise RuntimeError("out of memory")
        if self.word == "crash":
            os.write(2, b"Illegal instruction\\n")
            os._exit(4)
        return Transcript(f"{self.word} {len(samples)}", [(0.0, 1.5)])
"""


@pytest.fixture
def contender(tmp_path, monkeypatch):
    from peers.base import Setup
    from peers.contender import Contender

    (tmp_path / "fake_peer.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.save(tmp_path / "samples.npy", speech(1))
    return lambda word: Contender("fake peer", Setup("fake_peer", "", 1, "en", {"word": word}))


def state(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_contender_answers_from_its_own_process_which_is_stopped_between_turns(contender, tmp_path):
    with contender("word") as opened:
        answers = [opened.transcribe(tmp_path / "samples.npy") for _ in range(2)]
        if sys.platform == "linux":
            assert state(opened._process) == "T"
    assert [answer.transcript.text for answer in answers] == ["word 16000"] * 2
    assert opened._process.poll() is not None


@pytest.mark.parametrize(
    ("word", "message"), [("fault", "RuntimeError: out of memory"), ("crash", "Illegal instruction")]
)
def test_the_error_of_a_contender_is_reported(contender, tmp_path, word, message):
    from peers.base import PeerError

    with contender(word) as opened, pytest.raises(PeerError, match=f"fake peer.*{message}"):
        opened.transcribe(tmp_path / "samples.npy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clips", "/nowhere"), "/nowhere/transcripts.tsv"),
        (("clips", "/nowhere", "--peer", "nobody"), "nobody"),
        (("long", "/nowhere", "--ours", "audio_context"), "NAME=VALUE"),
        (("token", "/nowhere", "--threads", "0"), "--threads"),
    ],
)
def test_bad_input_is_reported_in_one_line(arguments, message, monkeypatch, capsys):
    import compare

    monkeypatch.setattr(compare, "versions", lambda kind: {})  # with or without the peers installed
    try:
        status = compare.main(arguments)
    except SystemExit as e:  # raised by argparse
        status = e.code
    assert status == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_peer_that_is_not_installed_is_named():
    from peers.base import PeerError
    from peers.catalog import Kind, versions

    with pytest.raises(PeerError, match="no-such-package is not installed: pip install"):
        versions(Kind("nobody", "nobody", ("no-such-package",), "as it is"))


def test_a_peer_that_only_decodes_greedily_refuses_beams():
    from peers.base import PeerError, Setup
    from peers.transformers_generate import Peer

    with pytest.raises(PeerError, match="decodes greedily here, not with beams"):
        Peer(Setup("peers.transformers_generate", "tiny.en", 1, "en", {}, beam_size=5))


@pytest.mark.parametrize(("options", "beams"), [({}, 5), ({"beam_size": 2}, 2)])
def test_this_engine_decodes_with_the_beams_of_the_comparison(options, beams):
    """An option of this engine alone takes precedence."""
    from conftest import require_weights
    from peers.base import Setup
    from peers.ours import Peer

    weights = str(require_weights("tiny.en"))
    peer = Peer(Setup("peers.ours", weights, 1, "en", {"policy": "torch", "max_new_tokens": 3, **options}, beam_size=5))
    rows = []
    step = peer._model.runtime.decoder.step
    peer._model.runtime.decoder.step = lambda tokens, state: rows.append(len(tokens)) or step(tokens, state)
    peer.transcribe(speech(1))
    assert max(rows) == beams
