"""Encode text to Whisper's tokens and decode tokens to text; the ids of the special tokens.

Special ids are looked up by content, because large-v3 has one language more, which shifts all ids after it.
Timestamp tokens are the ids from `timestamp_begin` up, 0.02 s apart; they may be missing in the tokenizer's own tables.
Decoding needs only the vocabulary; encoding imports the library `tokenizers`.
Knows neither the model's weights nor how tokens are chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING

from tilewhisper.models.constants import TIMESTAMPS
from tilewhisper.models.errors import CheckpointError, LanguageError
from tilewhisper.models.tokenizer.languages import LANGUAGES, code_of, similar

if TYPE_CHECKING:
    import tokenizers

# English-only checkpoints have GPT-2's vocabulary: 50256 text tokens, then end-of-text. The multilingual vocabulary has
# more text tokens. The special tokens themselves are the same in both.
_GPT2_TOKENS = 50256

_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")

# Some tokenizer files still have Hebrew under the code it had before 1989.
_OLD_CODES = {"iw": "he"}

# Characters that are written but not spoken: brackets, quotation marks and markup, single or repeated ...
_NON_SPEECH = [
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"),
    *("[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
]
# ... and musical symbols. A symbol of several tokens is suppressed by its first.
_MUSIC = "♩♪♫♬♭♮♯"


class Tokenizer:
    """A checkpoint's tokenizer.

    `vocabulary` maps each token's content, special tokens included, to its id. `load_encoder` returns the byte-pair
    encoding; it is called when text is first encoded. `n_vocab` is the number of tokens of the weights; those after the
    last timestamp are not used, and the attribute `n_vocab` does not count them. Raises CheckpointError when a special
    token is missing or the ids exceed `n_vocab`.
    """

    def __init__(
        self, vocabulary: Mapping[str, int], load_encoder: Callable[[], tokenizers.Tokenizer], n_vocab: int
    ) -> None:
        self.vocabulary = vocabulary
        self._load_encoder = load_encoder
        self.eot = self._id("<|endoftext|>")
        self.sot = self._id("<|startoftranscript|>")
        self.sot_prev = self._id("<|startofprev|>")
        self.sot_lm = self._id("<|startoflm|>")
        self.no_speech = self._id("<|nospeech|>", "<|nocaptions|>")
        self.transcribe = self._id("<|transcribe|>")
        self.translate = self._id("<|translate|>")
        self.no_timestamps = self._id("<|notimestamps|>")
        self.timestamp_begin = self.no_timestamps + 1
        self.n_vocab = self.timestamp_begin + TIMESTAMPS
        if self.n_vocab > n_vocab:
            raise CheckpointError(
                f"the tokenizer has {self.n_vocab} tokens and the weights have {n_vocab}: "
                "they do not belong together; take both from the same checkpoint"
            )
        special = {token: name for name, token in vocabulary.items() if token > self.eot}
        timestamps = (special.get(token, "<|") for token in range(self.timestamp_begin, self.n_vocab))
        if other := next((name for name in timestamps if name[:2] != "<|"), None):
            raise CheckpointError(
                f"the tokenizer has {other!r} in the place of a timestamp: tokens were added to a tokenizer without "
                "timestamps; such models are not supported"
            )
        self.is_multilingual = self.eot > _GPT2_TOKENS
        self.languages: Mapping[str, int] = self._language_ids(special)

    @classmethod
    def wrap(cls, tokenizer: tokenizers.Tokenizer, n_vocab: int) -> Tokenizer:
        """Wrap a loaded tokenizer. Raises CheckpointError as the class does."""
        return cls(tokenizer.get_vocab(with_added_tokens=True), lambda: tokenizer, n_vocab)

    def to_json(self) -> str:
        """Serialise the tokenizer as the content of a `tokenizer.json`."""
        return str(self._load_encoder().to_str())

    @cached_property
    def _encoder(self) -> tokenizers.Tokenizer:
        return _without_added_tokens(self._load_encoder())

    @cached_property
    def _contents(self) -> dict[int, str]:
        """Id -> content, of the text tokens."""
        return {token: content for content, token in self.vocabulary.items() if token < self.eot}

    def _id(self, *contents: str) -> int:
        for content in contents:
            if (token := self.vocabulary.get(content)) is not None:
                return token
        raise CheckpointError(
            f"the tokenizer has no {contents[0]}: it is not Whisper's; use the tokenizer of the checkpoint"
        )

    def _language_ids(self, special: Mapping[int, str]) -> dict[str, int]:
        """Code -> id, in the order of ids. They are in their usual place, as other tokens may look like a language."""
        return {
            _OLD_CODES.get(match[1], match[1]): token
            for token in range(self.sot + 1, min(self.translate, self.transcribe))
            if (match := _LANGUAGE_TOKEN.fullmatch(special.get(token, "")))
        }

    def language_code(self, language: str) -> str:
        """The code of a language the model supports: its code, English name or tag, such as "en-US" (see `code_of`).

        Raises LanguageError, which suggests similar names, for a language the model does not support.
        """
        own = language.strip().lower()
        code = own if own in self.languages else code_of(language)
        if code is not None and code in self.languages:
            return code
        if code is not None:
            raise LanguageError(f"the model does not support {LANGUAGES[code]} ({code}): use another model or language")
        near = similar(language)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise LanguageError(
            f"unknown language {language!r}: {hint}Allowed: a code such as de, an English name such as German, or auto"
        )

    def encode(self, text: str) -> list[int]:
        """Encode plain text; "<|en|>" and the like in it are encoded as text, never as special tokens."""
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Decode tokens; special tokens and timestamps are dropped, incomplete UTF-8 characters become U+FFFD."""
        return b"".join(self.bytes_of(int(token)) for token in ids).decode("utf-8", "replace")

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a text token, which may be a part of a UTF-8 character; none of a special token."""
        return _bytes(self._contents.get(token, ""))

    def prompt(self, language: str | None, task: str, timestamps: bool) -> tuple[int, ...]:
        """The start of a transcript: start-of-transcript, language, task, and no_timestamps unless `timestamps`.

        English-only models have no language and task in their prompt. Raises LanguageError for an unknown language or
        task, for a multilingual model without a language, and for an English-only model with another language or task
        than transcribing English.
        """
        if task not in ("transcribe", "translate"):
            raise LanguageError(f"unknown task {task!r}: use transcribe or translate")
        ending = () if timestamps else (self.no_timestamps,)
        if not self.is_multilingual:
            self._require_english(language, task)
            return (self.sot, *ending)
        if language is None:
            raise LanguageError("a multilingual model needs a language: pass one, or detect it first")
        task_token = self.transcribe if task == "transcribe" else self.translate
        return (self.sot, self.languages[self.language_code(language)], task_token, *ending)

    def _require_english(self, language: str | None, task: str) -> None:
        reason = None
        if language is not None and (code := self.language_code(language)) != "en":
            reason = f"does not support {LANGUAGES.get(code, code)}"
        elif task == "translate":
            reason = "cannot translate"
        if reason:
            raise LanguageError(f"this model is English-only and {reason}: use a multilingual model, such as base")

    def non_speech_tokens(self) -> tuple[int, ...]:
        """The ids, ascending, of text that is written but not spoken, which Whisper suppresses; no special tokens."""
        found = {self.encode(" -")[0], self.encode(" '")[0]}  # both remain allowed inside a word
        for symbol in (*_NON_SPEECH, *_MUSIC):
            for tokens in (self.encode(symbol), self.encode(f" {symbol}")):
                if len(tokens) == 1 or symbol in _MUSIC:
                    found.add(tokens[0])
        return tuple(sorted(found))


def _without_added_tokens(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same byte-pair encoding without special tokens, so that no text is encoded as one."""
    import tokenizers

    text = tokenizers.Tokenizer(tokenizer.model)
    text.normalizer = tokenizer.normalizer
    text.pre_tokenizer = tokenizer.pre_tokenizer
    text.decoder = tokenizer.decoder
    return text


def _bytes(content: str) -> bytes:
    """The bytes of a text token; content that is not in the byte alphabet is encoded as UTF-8."""
    byte_of = _byte_of_letter()
    try:
        return bytes(byte_of[letter] for letter in content)
    except KeyError:
        return content.encode()


@cache
def _byte_of_letter() -> dict[str, int]:
    return {letter: byte for byte, letter in enumerate(byte_letters())}


def byte_letters() -> list[str]:
    """The byte alphabet of byte-level vocabularies: each byte's letter, in order.

    It is the Latin-1 character where that is printable, else the next character from U+0100 up.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]
