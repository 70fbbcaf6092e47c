"""Marks that belong to the word beside them. Imports nothing heavy: the command's flags take their defaults here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Punctuation:
    """The marks that go with the word after them, and with the word before them."""

    prepended: str = "\"'“¿([{-"
    appended: str = "\"'.。,，!！?？:：”)]}、"


PUNCTUATION = Punctuation()
