"""Text to Whisper's tokens and back, and the ids of its special tokens.

Every special id is read from the tokenizer by content: large-v3 has one language more, which shifts all that follow.
Timestamps are the ids from `timestamp_begin` up, 0.02 s apart; they need not be in the tokenizer's own tables.
Tokens become text by the vocabulary alone; only text that is to become tokens needs the library `tokenizers`.
Knows neither the model's weights nor how tokens are chosen.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING

from tilewhisper.models.constants import TIMESTAMPS
from tilewhisper.models.errors import CheckpointError, LanguageError
from tilewhisper.models.tokenizer.languages import ALIASES, LANGUAGES

if TYPE_CHECKING:
    import tokenizers

# English-only checkpoints have GPT-2's vocabulary, whose 50256 byte sequences come right before end-of-text;
# the multilingual one has more. Nothing in the special tokens themselves tells the two apart.
_GPT2_TOKENS = 50256

_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")

# Some tokenizer files still have Hebrew under the code it had before 1989.
_OLD_CODES = {"iw": "he"}

# What a transcript writes but nobody says: brackets, quotation and markup signs, alone or doubled ...
_WRITTEN_ONLY = [
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"),
    *("[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
]
# ... and signs of music, which may be several tokens: there the first one stands for all of them.
_MUSIC = "♩♪♫♬♭♮♯"


class Tokenizer:
    """One checkpoint's tokenizer.

    `vocabulary` has the id of every token's content, special ones included; `parse` gives the byte-pair encoding they
    belong to, when text is to be encoded. `n_vocab` is the number of the model's output classes. Raises CheckpointError
    when a special token is missing or the ids do not fit into `n_vocab`.
    """

    def __init__(self, vocabulary: Mapping[str, int], parse: Callable[[], tokenizers.Tokenizer], n_vocab: int) -> None:
        self.vocabulary = vocabulary
        self._parse = parse
        self.n_vocab = n_vocab
        self.eot = self._id("<|endoftext|>")
        self.sot = self._id("<|startoftranscript|>")
        self.sot_prev = self._id("<|startofprev|>")
        self.sot_lm = self._id("<|startoflm|>")
        self.no_speech = self._id("<|nospeech|>", "<|nocaptions|>")
        self.transcribe = self._id("<|transcribe|>")
        self.translate = self._id("<|translate|>")
        self.no_timestamps = self._id("<|notimestamps|>")
        self.timestamp_begin = self.no_timestamps + 1
        if self.timestamp_begin + TIMESTAMPS > n_vocab:
            raise CheckpointError(
                f"the tokenizer needs {self.timestamp_begin + TIMESTAMPS} tokens and the weights have {n_vocab}: "
                "they do not belong together; take both from the same checkpoint"
            )
        self.is_multilingual = self.eot > _GPT2_TOKENS
        self.languages: Mapping[str, int] = self._language_ids()

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer, n_vocab: int) -> Tokenizer:
        """The tokenizer around one that is there already. Raises CheckpointError as the class does."""
        return cls(tokenizer.get_vocab(with_added_tokens=True), lambda: tokenizer, n_vocab)

    def to_json(self) -> str:
        """The whole of it as a `tokenizer.json`."""
        return str(self._parse().to_str())

    @cached_property
    def _encoder(self) -> tokenizers.Tokenizer:
        return _without_added_tokens(self._parse())

    @cached_property
    def _contents(self) -> dict[int, str]:
        """The content of each text token, by id."""
        return {token: content for content, token in self.vocabulary.items() if token < self.eot}

    def _id(self, *contents: str) -> int:
        for content in contents:
            if (token := self.vocabulary.get(content)) is not None:
                return token
        raise CheckpointError(f"the tokenizer has no {contents[0]}: it is not Whisper's; take the checkpoint's own")

    def _language_ids(self) -> dict[str, int]:
        """Code -> id, by id. Bounded by the ids around them: plain text tokens may look like a language's."""
        last = min(self.translate, self.transcribe)
        found = {
            _OLD_CODES.get(match[1], match[1]): token
            for content, token in self.vocabulary.items()
            if self.sot < token < last and (match := _LANGUAGE_TOKEN.fullmatch(content))
        }
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def language_code(self, name_or_code: str) -> str:
        """ "English", "english" or "en" -> "en". Raises LanguageError, with near names, when this model has no such."""
        wanted = name_or_code.strip().lower().replace("_", " ")
        by_name = {name: code for code, name in LANGUAGES.items()} | dict(ALIASES)
        code = by_name.get(wanted, wanted)
        if code in self.languages:
            return code
        known = [*self.languages, *(name for name, code in by_name.items() if code in self.languages)]
        near = difflib.get_close_matches(wanted, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "use a code such as en, or an English name"
        raise LanguageError(f"unknown language {name_or_code!r} ({len(self.languages)} are known): {hint}")

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text; "<|en|>" and the like inside it are text too, never special tokens."""
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the tokens, specials and timestamps dropped; bytes that are no whole character become U+FFFD."""
        return b"".join(_bytes(self._contents.get(int(token), "")) for token in ids).decode("utf-8", "replace")

    def prompt(self, language: str | None, task: str, timestamps: bool) -> tuple[int, ...]:
        """The tokens a transcript starts with: start, language, task, and no_timestamps unless wanted.

        English-only models know neither language nor task tokens. Raises LanguageError for an unknown language or
        task, for a multilingual model without a language, and for anything but transcribing English on an
        English-only model.
        """
        if task not in ("transcribe", "translate"):
            raise LanguageError(f"unknown task {task!r}: use transcribe or translate")
        ending = () if timestamps else (self.no_timestamps,)
        if not self.is_multilingual:
            self._refuse_all_but_english(language, task)
            return (self.sot, *ending)
        if language is None:
            raise LanguageError("a multilingual model needs a language: name one, or detect it first")
        task_token = self.transcribe if task == "transcribe" else self.translate
        return (self.sot, self.languages[self.language_code(language)], task_token, *ending)

    def _refuse_all_but_english(self, language: str | None, task: str) -> None:
        what = None
        if language is not None and (code := self.language_code(language)) != "en":
            what = f"does not know {LANGUAGES.get(code, code)}"
        elif task == "translate":
            what = "cannot translate"
        if what:
            raise LanguageError(f"this model is English-only and {what}: use a multilingual one, such as base")

    def non_speech_tokens(self) -> tuple[int, ...]:
        """Ids, ascending, of what is written but not spoken, which Whisper suppresses; no special tokens."""
        found = {self.encode(" -")[0], self.encode(" '")[0]}  # inside a word both stay allowed
        for sign in (*_WRITTEN_ONLY, *_MUSIC):
            for tokens in (self.encode(sign), self.encode(f" {sign}")):
                if len(tokens) == 1 or sign in _MUSIC:
                    found.add(tokens[0])
        return tuple(sorted(found))


def _without_added_tokens(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same byte-pair encoding with no special tokens, so that no text can be taken for one."""
    import tokenizers

    text = tokenizers.Tokenizer(tokenizer.model)
    text.normalizer = tokenizer.normalizer
    text.pre_tokenizer = tokenizer.pre_tokenizer
    text.decoder = tokenizer.decoder
    return text


def _bytes(content: str) -> bytes:
    """What a text token's content stands for; one that is not written in byte letters stands for itself."""
    byte_of = _byte_of_letter()
    try:
        return bytes(byte_of[letter] for letter in content)
    except KeyError:
        return content.encode()


@cache
def _byte_of_letter() -> dict[str, int]:
    return {letter: byte for byte, letter in enumerate(byte_letters())}


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary: itself where Latin-1 prints it, else the next
    of U+0100 and up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]
