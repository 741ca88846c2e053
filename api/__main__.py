"""`python -m api`: serve HTTP until SIGINT or SIGTERM."""

import argparse
import gc
import logging
import os
from socket import socket
from types import FrameType

import uvicorn

from api.app import create_app
from api.connections import Limits, protocol, raise_file_limit
from api.deps import Context
from services.db import await_schema
from services.settings import load

COLLECT = 10_000, 20, 50
"""After how many new objects, and collections of younger ones, garbage is looked for."""
MOST_CONNECTIONS = 10_000
MOST_BACKLOG = 512
"""Connections that the system may take in before the server looks at them: all at once, so a part of its files."""


class Server(uvicorn.Server):
    """Sends waiting clients home when it is told to stop, so that stopping takes no longer than a request."""

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self.context = context

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, and look for garbage no more among all that was loaded, which took a third of each request's time."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, on a signal."""
        self.context.hub.close()
        super().handle_exit(sig, frame)


def main() -> None:
    """Parse the address and serve."""
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.umask(0o077)
    settings = load()
    app = create_app(settings, arguments.host)
    if not app.state.context.database.sqlite:
        await_schema(app.state.context.database)
    files = raise_file_limit()
    config = uvicorn.Config(
        app, arguments.host, arguments.port,
        http=protocol(Limits(min(MOST_CONNECTIONS, files // 2))), backlog=min(MOST_BACKLOG, files // 8),
        proxy_headers=bool(settings.trusted_proxies), forwarded_allow_ips=settings.trusted_proxies,
        access_log=False, server_header=False, timeout_graceful_shutdown=5, timeout_keep_alive=30, ws="none",
    )  # fmt: skip
    Server(config, app.state.context).run()


if __name__ == "__main__":
    main()
