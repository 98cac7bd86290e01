"""An ASGI function that does nothing but send one response: the limit of what uvicorn can do.

``python bare_asgi.py PORT RESPONSE``: the file RESPONSE holds status, headers and body as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope


def main() -> None:
    """Serves until it is killed."""
    port, response = int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_bytes())
    config = uvicorn.Config(
        _application(response["status"], response["headers"], response["body"]),
        host="127.0.0.1",
        port=port,
        interface="asgi3",
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    uvicorn.Server(config).run()


def _application(status: int, headers: dict[str, str], body: str) -> ASGI3Application:
    sent_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    sent_body = body.encode()

    async def bare(_: Scope, __: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": sent_headers,
                "trailers": False,
            }
        )
        await send({"type": "http.response.body", "body": sent_body, "more_body": False})

    return bare


if __name__ == "__main__":
    main()
