"""Real recordings in every container: each gives what is said in it, and one utterance the same from three of them."""

import pytest

from tilewhisper.models.audio import reader
from tilewhisper.models.errors import AudioError

# Of each file, words that tiny.en hears rightly.
SAID = {
    "1272-128104-0004-8k.wav": "gives his sitter a cheerful slap",
    "1272-141231-0002.flac": "chest is still dripping blood the ache of his overstrained eyes",
    "1272-141231-0002.mp3": "chest is still dripping blood the ache of his overstrained eyes",
    "1272-141231-0002.wav": "chest is still dripping blood the ache of his overstrained eyes",
    "eight_channels.m4a": "front left front right center",
    "jfk_44100.m4a": "what your country can do for you ask what you can do for your country",
    "junk_chunk_16k.wav": "this is a test for junk",
    "sample1.webm": "he'll have to put in an appearance at some place of worship on sunday morning",
    "sample1_dual.ogg": "he'll have to put in an appearance at some place of worship on sunday morning",
}


def plain(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c in " '").split())


def heard(model, file, language="en") -> str:
    return "".join(segment.text for segment in model.transcribe(file, language, beam_size=1, audio_context="full")[0])


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_is_heard(engine, shared, name):
    assert SAID[name] in plain(heard(engine("tiny.en"), shared / "formats" / name))


def test_all_files_of_the_folder_are_tried(shared):
    assert {path.name for path in (shared / "formats").iterdir()} == {*SAID, "malformed.flac"}


def test_a_malformed_file_is_refused(engine, shared):
    with pytest.raises(AudioError, match=r"malformed\.flac: not audio, or damaged"):
        engine("tiny.en").transcribe(shared / "formats" / "malformed.flac")


def test_one_utterance_in_two_lossless_containers_is_one_text(engine, shared):
    flac, wav, mp3 = (
        heard(engine("base"), shared / "formats" / f"1272-141231-0002.{ending}") for ending in ("flac", "wav", "mp3")
    )
    assert flac == wav
    assert mp3.startswith(" The cut on his chest is still dripping blood.")  # other sound, a word of it heard otherwise


def test_what_the_mp3_lost_is_the_encoders_and_not_ours(engine, oracle, shared):
    """mp3 is lossy (its samples are 21 dB from the flac's), and tiny.en takes "cut on his" for another word there.

    transformers, given the same samples, hears the same.
    """
    file = shared / "formats" / "1272-141231-0002.mp3"
    assert heard(engine("tiny.en"), file) == oracle("tiny.en").generate(reader.decode_audio(file), "en").text
    flac, wav = (heard(engine("tiny.en"), file.with_suffix(ending)) for ending in (".flac", ".wav"))
    assert flac == wav
