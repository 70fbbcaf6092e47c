"""Real recordings in every container: each transcript has the spoken words, and lossless copies give the same text."""

import pytest

from tilewhisper.models.audio import reader
from tilewhisper.models.errors import AudioError

# Words in each file that tiny.en transcribes correctly.
SPOKEN = {
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


def transcribed(model, file, language="en") -> str:
    return "".join(segment.text for segment in model.transcribe(file, language, beam_size=1, audio_context="full")[0])


@pytest.mark.parametrize("name", SPOKEN)
def test_the_transcript_has_the_spoken_words(engine, shared, name):
    assert SPOKEN[name] in plain(transcribed(engine("tiny.en"), shared / "formats" / name))


def test_all_files_of_the_folder_are_tested(shared):
    assert {path.name for path in (shared / "formats").iterdir()} == {*SPOKEN, "malformed.flac"}


def test_a_malformed_file_is_refused(engine, shared):
    with pytest.raises(AudioError, match=r"malformed\.flac: not audio, or too damaged"):
        engine("tiny.en").transcribe(shared / "formats" / "malformed.flac")


def test_an_utterance_gives_the_same_text_from_two_lossless_containers(engine, shared):
    flac, wav, mp3 = (
        transcribed(engine("base"), shared / "formats" / f"1272-141231-0002.{extension}")
        for extension in ("flac", "wav", "mp3")
    )
    assert flac == wav
    assert mp3.startswith(" The cut on his chest is still dripping blood.")  # other samples, another word later


def test_the_text_of_the_mp3_is_transformers_text(engine, oracle, shared):
    """mp3 is lossy (its samples are 21 dB from the flac's), and tiny.en transcribes "cut on his" differently there.

    transformers gives the same text from the same samples.
    """
    file = shared / "formats" / "1272-141231-0002.mp3"
    assert transcribed(engine("tiny.en"), file) == oracle("tiny.en").generate(reader.decode_audio(file), "en").text
    flac, wav = (transcribed(engine("tiny.en"), file.with_suffix(extension)) for extension in (".flac", ".wav"))
    assert flac == wav
