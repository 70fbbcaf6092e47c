"""Messages of a realtime WebSocket: clients' events parsed and checked, and audio that waits to be transcribed."""

import asyncio
import binascii
import json
from base64 import b64decode
from collections import deque
from dataclasses import dataclass
from typing import Any

from tilewhisper.engine.serving.errors import RequestError

MAX_AUDIO_TEXT = 15 << 20
"""Characters of the base64 audio of one event: OpenAI's limit."""
MAX_WAITING_BYTES = 1 << 20
"""Bytes of PCM that wait, 22 s at 24 kHz: until there is room, nothing more is read from the client."""
APPEND = "input_audio_buffer.append"


@dataclass(frozen=True)
class ClientEvent:
    """An event of the client. `audio` is the decoded audio of `input_audio_buffer.append`."""

    type: str
    fields: dict[str, Any]
    audio: bytes = b""

    @property
    def id(self) -> str | None:
        """The client's own name of the event."""
        given = self.fields.get("event_id")
        return given if isinstance(given, str) else None


def parsed(text: str | bytes) -> ClientEvent:
    """Parse a message. Raises RequestError."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "the message is not valid JSON", code="invalid_json") from error
    if not isinstance(fields, dict) or not isinstance(kind := fields.get("type"), str):
        raise RequestError(400, "an event must be an object with a string `type`", param="type", code="invalid_event")
    event = ClientEvent(kind, fields)
    if kind != APPEND:
        return event
    try:
        return ClientEvent(kind, {"event_id": event.id}, _decoded(fields.get("audio")))
    except RequestError as error:
        raise InvalidEventError(error, event.id) from error


class InvalidEventError(RequestError):
    """A RequestError of a client's event with an id."""

    def __init__(self, error: RequestError, event_id: str | None) -> None:
        super().__init__(error.status, error.message, param=error.param, code=error.code)
        self.event_id = event_id


def _decoded(audio: Any) -> bytes:
    if not isinstance(audio, str):
        raise RequestError(400, "audio must be a string of base64", param="audio", code="invalid_audio")
    if len(audio) > MAX_AUDIO_TEXT:
        size = f"{len(audio) / 2**20:.1f}"
        message = f"audio must have at most {MAX_AUDIO_TEXT >> 20} MB in one event, got {size} MB; send it in pieces"
        raise RequestError(400, message, param="audio", code="audio_too_large")
    try:
        data = b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, "audio is not valid base64", param="audio", code="invalid_audio") from error
    if len(data) % 2:
        raise RequestError(
            400, f"audio must hold whole samples of 2 bytes, got {len(data)} bytes", param="audio", code="invalid_audio"
        )
    return data


class Inbox:
    """The events that wait, in order; neighbouring audio is taken together. `put` waits while there is too much."""

    def __init__(self) -> None:
        self._events: deque[ClientEvent] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._closed = False

    async def put(self, event: ClientEvent) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes <= MAX_WAITING_BYTES)
            self._events.append(event)
            self._bytes += len(event.audio)
            self._changed.notify_all()

    async def close(self) -> None:
        """Nothing more comes, and what waits is not taken."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def take(self) -> ClientEvent | None:
        """The next event, or all audio up to the next other event; None once the inbox is closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._events or self._closed)
            if self._closed:
                return None
            event = self._events.popleft()
            if event.type == APPEND:
                parts = [event.audio]
                while self._events and self._events[0].type == APPEND:
                    parts.append(self._events.popleft().audio)
                event = ClientEvent(APPEND, event.fields, b"".join(parts))
            self._bytes -= len(event.audio)
            self._changed.notify_all()
            return event
