"""The settings of a realtime transcription session, as clients send them and as the server answers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tilewhisper.engine.pipeline.live_options import PHRASE_VAD, LiveOptions
from tilewhisper.engine.serving.errors import RequestError
from tilewhisper.models.audio.vad_options import VadOptions

RATES = (24_000, 16_000)
"""Hz; the first is OpenAI's."""
_INPUT = "session.audio.input"
_TURN_FIELDS = {"threshold": (0, 1), "prefix_padding_ms": (0, 5_000), "silence_duration_ms": (32, 60_000)}
"""Fields of server_vad, with their ranges."""
_BETA_FIELDS = (
    "input_audio_format",
    "input_audio_transcription",
    "turn_detection",
    "input_audio_noise_reduction",
    "include",
)
_IGNORED_TURN_FIELDS = ("type", "create_response", "interrupt_response", "idle_timeout_ms")
"""They concern the model's spoken answers, which a transcription does not have."""


@dataclass(frozen=True)
class SessionSettings:
    """What a session transcribes, and how."""

    model: str
    rate: int = RATES[0]
    language: str | None = None
    prompt: str | None = None
    vad: VadOptions | None = PHRASE_VAD
    """None: the client says where an item ends."""

    @property
    def live(self) -> LiveOptions:
        return LiveOptions(language=self.language, prompt=self.prompt, vad=self.vad or PHRASE_VAD)

    def updated(self, session: Any) -> "SessionSettings":
        """With the fields that `session` of a `session.update` has. Raises RequestError."""
        fields = _object(session, "session", ("type", "audio", "include"))
        if fields.get("type", "transcription") != "transcription":
            raise _refused("session.type", "must be transcription: this server transcribes only")
        if fields.get("include"):
            raise _refused("session.include", "must be empty: log-probabilities are not sent in a realtime session")
        audio = _object(fields.get("audio") or {}, "session.audio", ("input",))
        names = ("format", "transcription", "turn_detection", "noise_reduction")
        given = _object(audio.get("input") or {}, _INPUT, names)
        if given.get("noise_reduction"):
            raise _refused(f"{_INPUT}.noise_reduction", "must be null: the audio is transcribed as it is")
        settings = self
        if given.get("format") is not None:
            settings = replace(settings, rate=_rate(given["format"]))
        if given.get("transcription") is not None:
            settings = replace(settings, **_transcription(given["transcription"]))
        if "turn_detection" in given:
            settings = replace(settings, vad=_turn_detection(given["turn_detection"]))
        return settings

    def to_json(self) -> dict[str, Any]:
        """The `session` of `session.created` and `session.updated`."""
        turn = None if self.vad is None else {
            "type": "server_vad",
            "threshold": self.vad.threshold,
            "prefix_padding_ms": self.vad.speech_pad_ms,
            "silence_duration_ms": self.vad.min_silence_duration_ms,
        }  # fmt: skip
        transcription = {"model": self.model, "language": self.language, "prompt": self.prompt}
        audio = {
            "format": {"type": "audio/pcm", "rate": self.rate},
            "transcription": transcription,
            "noise_reduction": None,
            "turn_detection": turn,
        }
        return {"type": "transcription", "object": "realtime.transcription_session", "audio": {"input": audio}}


def from_beta(session: Any) -> dict[str, Any]:
    """The `session` of OpenAI's older event, `transcription_session.update`, in today's form. Raises RequestError."""
    names = (
        "input_audio_format",
        "input_audio_transcription",
        "turn_detection",
        "input_audio_noise_reduction",
        "include",
    )
    fields = _object(session, "session", names)
    if fields.get("input_audio_format", "pcm16") != "pcm16":
        raise _refused("session.input_audio_format", "must be pcm16")
    renamed = {
        "transcription": fields.get("input_audio_transcription"),
        "noise_reduction": fields.get("input_audio_noise_reduction"),
    }
    if "turn_detection" in fields:
        renamed["turn_detection"] = fields["turn_detection"]
    return {"audio": {"input": renamed}, "include": fields.get("include")}


def _rate(value: Any) -> int:
    fields = _object(value, f"{_INPUT}.format", ("type", "rate"))
    if fields.get("type", "audio/pcm") != "audio/pcm":
        raise _refused(f"{_INPUT}.format.type", "must be audio/pcm, 16 bit, little-endian, mono")
    rate = fields.get("rate", RATES[0])
    if rate not in RATES:
        raise _refused(f"{_INPUT}.format.rate", f"must be {' or '.join(map(str, RATES))}, got {rate!r:.40}")
    return int(rate)


def _transcription(value: Any) -> dict[str, Any]:
    name = f"{_INPUT}.transcription"
    fields = _object(value, name, ("model", "language", "prompt"))
    for field, text in fields.items():
        if text is not None and not isinstance(text, str):
            raise _refused(f"{name}.{field}", "must be a string")
    given = {field: text or None for field, text in fields.items()}
    if "model" in given and given["model"] is None:
        del given["model"]
    return given


def _turn_detection(value: Any) -> VadOptions | None:
    if value is None:
        return None
    name = f"{_INPUT}.turn_detection"
    fields = _object(value, name, (*_TURN_FIELDS, *_IGNORED_TURN_FIELDS))
    if fields.get("type", "server_vad") != "server_vad":
        raise _refused(f"{name}.type", "must be server_vad, or turn_detection null")
    for field, (least, most) in _TURN_FIELDS.items():
        given = fields.get(field, least)
        if isinstance(given, bool) or not isinstance(given, int | float) or not least <= given <= most:
            raise _refused(f"{name}.{field}", f"must be a number from {least} to {most}, got {given!r:.40}")
    return VadOptions(
        threshold=float(fields.get("threshold", PHRASE_VAD.threshold)),
        speech_pad_ms=int(fields.get("prefix_padding_ms", PHRASE_VAD.speech_pad_ms)),
        min_silence_duration_ms=int(fields.get("silence_duration_ms", PHRASE_VAD.min_silence_duration_ms)),
    )


def _object(value: Any, name: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """A JSON object without unknown fields that have a value. Raises RequestError."""
    if not isinstance(value, dict):
        raise _refused(name, "must be an object")
    for field in value:
        if field not in known and value[field] is not None:
            raise _refused(f"{name}.{field:.60}", f"is not supported here; the fields are {', '.join(known)}")
    return value


def _refused(name: str, problem: str) -> RequestError:
    return RequestError(400, f"{name} {problem}", param=name, code="invalid_value")
