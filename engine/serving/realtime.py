"""OpenAI's realtime transcription over a WebSocket: `/v1/realtime?intent=transcription`.

Audio is PCM, 16 bit, mono, 24 or 16 kHz. Beside OpenAI's events the server sends `tilewhisper.partial`: the words
after those of the deltas, as they seem so far; deltas never change.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from tilewhisper.engine.pipeline.live_events import Event, Final, Partial, SpeechStarted, SpeechStopped
from tilewhisper.engine.serving.errors import RequestError, shutting_down
from tilewhisper.engine.serving.live_session import LiveSession, live_session
from tilewhisper.engine.serving.realtime_messages import APPEND, ClientEvent, Inbox, parsed
from tilewhisper.engine.serving.realtime_settings import SessionSettings, from_beta
from tilewhisper.engine.serving.server import Server, server_of
from tilewhisper.models.audio.pcm import PcmStream

router = APIRouter()

_SUBPROTOCOL = "realtime"
_GOING_AWAY = 1001
_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_ITEM_FAILED = f"{_TRANSCRIPTION}.failed"

Send = Callable[[dict[str, Any]], Awaitable[None]]


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket, intent: str = "transcription", model: str | None = None) -> None:
    """One session, until the client leaves or the server shuts down."""
    server = server_of(socket)
    if intent != "transcription":
        raise RequestError(400, "intent must be transcription: this server transcribes only", param="intent")
    settings = SessionSettings(server.pool.names.resolve(model or server.pool.names.default))
    with server.admission.live_place():
        offered = socket.scope.get("subprotocols", ())
        await socket.accept(_SUBPROTOCOL if _SUBPROTOCOL in offered else None)
        with suppress(WebSocketDisconnect):
            await _serve(server, socket, settings)


async def _serve(server: Server, socket: WebSocket, settings: SessionSettings) -> None:
    """Read and answer until the client leaves; the tasks end together."""

    async def send(event: dict[str, Any]) -> None:
        await socket.send_json({"event_id": _new_id("event"), **event})

    inbox = Inbox()
    async with AsyncExitStack() as stack:
        session = RealtimeSession(server, settings, send, stack)
        await session.announce("session.created")
        reading = asyncio.create_task(_read(socket, inbox, send))
        answering = asyncio.create_task(_answer(inbox, session))
        stopping = asyncio.create_task(server.shutting_down.wait())
        tasks = (reading, answering, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if server.shutting_down.is_set():
            await send(_error(shutting_down()))
            await socket.close(_GOING_AWAY)
        for task in (reading, answering):
            if not task.cancelled() and (error := task.exception()):
                raise error


async def _read(socket: WebSocket, inbox: Inbox, send: Send) -> None:
    """Put the client's events into the inbox; answer those that are none with an error."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            event = parsed(message.get("text") or message.get("bytes") or "")
        except RequestError as error:
            await send(_error(error, getattr(error, "event_id", None)))
        else:
            await inbox.put(event)


async def _answer(inbox: Inbox, session: "RealtimeSession") -> None:
    while event := await inbox.take():
        try:
            await session.handle(event)
        except RequestError as error:
            await session.send(_error(error, event.id))


class RealtimeSession:
    """The state of one connection, and the server's events."""

    def __init__(self, server: Server, settings: SessionSettings, send: Send, stack: AsyncExitStack) -> None:
        """`stack` releases the model when the connection ends."""
        self.send = send
        self._server, self._settings, self._stack = server, settings, stack
        self._id = _new_id("sess")
        self._live: LiveSession | None = None
        self._lease = AsyncExitStack()
        stack.push_async_exit(self._lease)
        self._pcm = PcmStream(settings.rate)
        self._item = _new_id("item")
        self._last_item: str | None = None
        self._text = ""
        """Of the current item."""
        self._waiting_seconds = 0.0
        """Of audio since the last item."""

    async def announce(self, event: str) -> None:
        await self.send({"type": event, "session": {"id": self._id, **self._settings.to_json()}})

    async def handle(self, event: ClientEvent) -> None:
        """Act on an event of the client. Raises RequestError."""
        match event.type:
            case "input_audio_buffer.append":
                await self._append(event.audio)
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                await self._clear()
            case "session.update":
                await self._update(event.fields.get("session"))
                await self.announce("session.updated")
            case "transcription_session.update":
                await self._update(from_beta(event.fields.get("session")))
                await self.announce("transcription_session.updated")
            case _:
                raise RequestError(
                    400,
                    f"unknown event {event.type[:60]!r}: a transcription session takes session.update, {APPEND}, "
                    "input_audio_buffer.commit and input_audio_buffer.clear",
                    param="type",
                    code="unknown_event",
                )

    async def _append(self, audio: bytes) -> None:
        live = await self._open()
        samples = self._pcm.feed(audio)
        self._waiting_seconds += len(audio) / 2 / self._settings.rate
        await self._events(live.feed(samples))

    async def _commit(self) -> None:
        if not self._waiting_seconds or self._live is None:
            raise RequestError(
                400, "there is no audio since the last item to commit", code="input_audio_buffer_commit_empty"
            )
        item = self._item
        await self._events(self._live.feed(self._pcm.finish()))
        self._pcm = PcmStream(self._settings.rate)
        await self._events(self._live.finish())
        if self._item == item:  # nothing was spoken, or the client says where items end
            await self._complete()

    async def _clear(self) -> None:
        if self._live is not None:
            await self._live.discard()
        self._pcm = PcmStream(self._settings.rate)
        self._begin_item()
        await self.send({"type": "input_audio_buffer.cleared"})

    async def _update(self, session: Any) -> None:
        settings = self._settings.updated(session)
        self._server.pool.names.resolve(settings.model)
        if settings == self._settings and self._live is not None:
            return
        if self._live is not None and self._text:
            await self._commit()
        before, self._settings = self._settings, settings
        try:
            await self._close()
            await self._open()
        except RequestError:
            self._settings = before
            raise
        self._pcm = PcmStream(settings.rate)

    async def _open(self) -> LiveSession:
        """The transcription; its model is loaded with the first audio or the first settings."""
        if self._live is None:
            settings = self._settings
            self._live = await self._lease.enter_async_context(
                live_session(self._server, settings.model, settings.live)
            )
        return self._live

    async def _close(self) -> None:
        self._live = None
        await self._lease.aclose()

    async def _events(self, coming: Awaitable[Sequence[Event]]) -> None:
        try:
            events = await coming
        except RequestError as error:
            failed = {"type": _ITEM_FAILED, "item_id": self._item, "content_index": 0, "error": _details(error)}
            await self.send(failed)
            self._begin_item()
            return
        for event in events:
            await self._report(event)

    async def _report(self, event: Event) -> None:
        """Send what an event of the transcription means to the client."""
        own_turns = self._settings.vad is not None
        match event:
            case SpeechStarted(time) if own_turns:
                await self._send_for_item("input_audio_buffer.speech_started", audio_start_ms=round(1000 * time))
            case Final(text):
                delta = text if self._text else text.lstrip()
                self._text += delta
                await self._send_for_item(f"{_TRANSCRIPTION}.delta", content_index=0, delta=delta)
            case Partial(text):
                await self._send_for_item("tilewhisper.partial", text=text if self._text else text.lstrip())
            case SpeechStopped(time) if own_turns:
                await self._send_for_item("input_audio_buffer.speech_stopped", audio_end_ms=round(1000 * time))
                await self._complete()

    async def _complete(self) -> None:
        """End the item with its whole text."""
        await self._send_for_item("input_audio_buffer.committed", previous_item_id=self._last_item)
        usage = {"type": "duration", "seconds": round(self._waiting_seconds, 3)}
        await self._send_for_item(f"{_TRANSCRIPTION}.completed", content_index=0, transcript=self._text, usage=usage)
        self._last_item = self._item
        self._begin_item()

    async def _send_for_item(self, kind: str, **fields: Any) -> None:
        await self.send({"type": kind, "item_id": self._item, **fields})

    def _begin_item(self) -> None:
        self._item, self._text, self._waiting_seconds = _new_id("item"), "", 0.0


def _error(error: RequestError, event_id: str | None = None) -> dict[str, Any]:
    return {"type": "error", "error": {**_details(error), "event_id": event_id}}


def _details(error: RequestError) -> dict[str, Any]:
    details: dict[str, Any] = error.body["error"]
    return details


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid4().hex}"
