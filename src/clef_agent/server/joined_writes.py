"""Head and body of a response in one system call.

uvicorn hands the transport a response's head and its body one after the other, and uvloop writes
each at once. On a loopback connection that second call is a third of the whole request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from clef_agent.decrypt.secrets import joined

#: The one write that stands alone in the middle of a request: the client waits for it.
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: A body up to here is copied behind its head in a quarter of the time that the transport takes to
#: collect two buffers. The copy is freed at once; larger bodies are never copied.
_MAX_COPIED_BYTES: Final = 16 * 1024
#: Up to here, head included, what a freed copy held would stay in an allocator's cache; so these
#: copies are buffers that are zeroed. Memory of larger ones is overwritten by ``free`` (see
#: hardening.py), at no cost that could be measured; zeroing it here would cost a hundredth of a
#: request.
_MAX_ZEROED_BYTES: Final = 1024


class JoinedWrites:
    """A transport that keeps a response's head back until its body comes.

    Whoever ends a response without a body calls ``flush``. ``on_close`` is called when it has been
    closed, perhaps with bytes still to be written. Everything else is the transport's own.
    """

    __slots__ = (
        "_kept",
        "_on_close",
        "_transport",
        "is_closing",
        "pause_reading",
        "resume_reading",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        on_close: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._on_close = on_close
        self._kept: bytes | None = None
        # Called for each request: bound once, without a detour.
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Keeps ``data``, or writes it together with what was kept."""
        kept = self._kept
        if kept is None:
            self._kept = data
            if data == _CONTINUE:
                self.flush()
        else:
            self._kept = None
            try:
                if len(data) > _MAX_COPIED_BYTES:
                    self._transport.writelines((kept, data))
                elif len(kept) + len(data) > _MAX_ZEROED_BYTES:
                    self._transport.write(b"".join((kept, data)))
                else:
                    self._transport.write(joined(kept, data))
            except RuntimeError:
                # uvloop's word for a connection that has been cut meanwhile, of which uvicorn
                # tells only the last of several requests; asyncio's own loop drops the bytes.
                if not self._transport.is_closing():
                    raise

    def flush(self) -> None:
        """Writes what was kept for a body that will not follow."""
        kept, self._kept = self._kept, None
        if kept is not None and not self._transport.is_closing():
            self._transport.write(kept)

    def close(self) -> None:
        """Closes once everything has been written."""
        self.flush()
        self._transport.close()
        self._on_close()

    def abort(self) -> None:
        """Closes at once."""
        self._kept = None
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not written yet."""
        return self._transport.get_write_buffer_size() + len(self._kept or b"")

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # asyncio's
        """The transport's."""
        return self._transport.get_extra_info(name, default)
