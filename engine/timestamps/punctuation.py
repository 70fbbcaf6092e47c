"""Punctuation that is merged with neighbouring words. Imports nothing heavy: flags take their defaults from here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Punctuation:
    """Punctuation marks that are merged with the word after them, and with the word before them."""

    prepended: str = "\"'“¿([{-"
    appended: str = "\"'.。,，!！?？:：”)]}、"


PUNCTUATION = Punctuation()
