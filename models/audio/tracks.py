"""Choose one of a file's audio tracks, by its number or its language."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilewhisper.models.audio.language_codes import same_language
from tilewhisper.models.errors import AudioError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

UNKNOWN = ("", "und", "unk", "mis", "zxx")  # codes that name no language


def choose(tracks: "Sequence[AudioStream]", wanted: int | str, name: str) -> "AudioStream":
    """The track of a number from 1 on, or the first in a language. Raises AudioError that lists the tracks."""
    if isinstance(wanted, int):
        found = list(tracks[wanted - 1 : wanted]) if wanted > 0 else []
    else:
        found = [track for track in tracks if same_language(_tag(track, "language"), wanted)]
    if not found:
        listed = ", ".join(label(track, number) for number, track in enumerate(tracks, 1))
        raise AudioError(f"{name}: has no audio track {wanted}; its audio tracks are: {listed}")
    return found[0]


def check(track: "AudioStream", name: str) -> None:
    """Raise AudioError for a track that libav cannot decode."""
    if not track.codec_context:
        raise AudioError(f"{name}: its audio has a codec that cannot be decoded; convert the file first")


def label(track: "AudioStream", number: int) -> str:
    """Number, language, codec and title, such as `2 (eng, aac, Commentary)`."""
    language = _tag(track, "language")
    codec = track.codec_context.codec.canonical_name if track.codec_context else "unknown codec"
    facts = ("" if language in UNKNOWN else language, codec, _tag(track, "title"))
    return f"{number} ({', '.join(fact for fact in facts if fact)})"


def _tag(track: "AudioStream", name: str) -> str:
    """A tag's text without the escaped bytes that are not UTF-8, or ""."""
    return track.metadata.get(name, "").encode("utf-8", "surrogateescape").decode("utf-8", "ignore")
