"""Answers that are sent while a run is decoded."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Streamed(Response):
    """Pieces of text as they come. All that their run uses is free again at the end, whatever ends the stream."""

    def __init__(
        self,
        pieces: AsyncGenerator[str, None],
        media_type: str,
        headers: Mapping[str, str],
        resources: AsyncExitStack,
    ) -> None:
        super().__init__(media_type=media_type, headers={**headers, "cache-control": "no-cache"})
        del self.headers["content-length"]
        self._pieces, self._resources = pieces, resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources, aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
