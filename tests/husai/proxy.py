"""A reverse proxy that answers 504 with a page of its own when the service has not answered in time.

Run as `python proxy.py PORT SERVICE_PORT SECONDS`; it prints every request with its status.
"""

import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = b"<html><body><h1>504 Gateway Time-out</h1></body></html>"
HOP_BY_HOP = {"transfer-encoding", "content-length", "connection", "date", "server"}


class Proxy(BaseHTTPRequestHandler):
    """Passes each request on, reads the whole answer, and then passes that on."""

    protocol_version = "HTTP/1.1"
    service_port, seconds = 0, 0.0

    def log_message(self, *_: Any) -> None:
        return

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        headers = {k: v for k, v in self.headers.items() if k.lower() not in {"host", "connection", "accept-encoding"}}
        service = http.client.HTTPConnection("127.0.0.1", self.service_port, timeout=self.seconds)
        try:
            service.request(self.command, self.path, body, headers)
            answer = service.getresponse()
            data, status, headers = answer.read(), answer.status, dict(answer.getheaders())
        except OSError:
            status, data, headers = 504, PAGE, {"Content-Type": "text/html"}
        print(self.command, self.path, status, flush=True)
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = pass_on


if __name__ == "__main__":
    port, Proxy.service_port, Proxy.seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    server = ThreadingHTTPServer(("127.0.0.1", port), Proxy)
    print(server.server_port, flush=True)
    server.serve_forever()
