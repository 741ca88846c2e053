"""What surrounds every request: its id, its size limit, security headers, and the time it took."""

import time
from secrets import token_hex

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import unexpected
from api.metrics import Metrics

UPLOAD = "/v1/artifacts"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Shell:
    """Pure ASGI middleware, so that streams pass through unbuffered."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body: int, max_upload: int) -> None:
        self.app, self.metrics, self.max_body, self.max_upload = app, metrics, max_body, max_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, started_answer = time.perf_counter(), 500, False
        scope["request_id"] = token_hex(16)

        async def send_with_headers(message: Message) -> None:
            nonlocal status, started_answer
            if message["type"] == "http.response.start":
                status, started_answer = message["status"], True
                _decorate(scope, message)
            await send(message)

        try:
            await self.app(scope, self._limited(scope, receive), send_with_headers)
        except Exception as error:
            if started_answer:
                raise
            await unexpected(scope, error)(scope, receive, send_with_headers)
        finally:
            self.metrics.observe(scope, status, time.perf_counter() - started)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive`, refusing a body that is (or says that it is) too large."""
        upload = scope["method"] == "POST" and scope["path"] == UPLOAD
        limit = self.max_upload if upload else self.max_body
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            if declared.isdigit() and int(declared) > limit:
                raise _too_large(limit)
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        return limited


def _decorate(scope: Scope, message: Message) -> None:
    headers = message["headers"]
    present = {name for name, _ in headers}
    headers += [(b"x-request-id", scope["request_id"].encode())]
    headers += [header for header in ENCODED if header[0] not in present]


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The body may have at most {limit} bytes.", {"Connection": "close"})
