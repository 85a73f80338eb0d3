"""A connection that is closed when it brings no request: each is a file, of which a process may have only so many."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

IDLE_SECONDS = 60.0
"""How long a connection may take to bring the whole head of a request."""


class Connection(H11Protocol):
    """uvicorn's protocol, which closes only those connections that have had an answer."""

    _seen: RequestResponseCycle | None = None
    _unread: int = 0
    """Bytes of answers that the client had not taken at the last look."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to look after it."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._timer = self.loop.call_later(IDLE_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking after it."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Close it where no request came since the last look and none is being answered, or nobody takes the answer."""
        cycle: RequestResponseCycle | None = self.cycle
        unread = self.transport.get_write_buffer_size()
        if cycle is self._seen and 0 < self._unread <= unread:
            self.transport.abort()
            return
        if cycle is self._seen and (cycle is None or cycle.response_complete) and not unread:
            self.transport.close()
            return
        self._seen, self._unread = cycle, unread
        self._timer = self.loop.call_later(IDLE_SECONDS, self._look)
