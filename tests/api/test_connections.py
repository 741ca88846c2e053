"""What a client without a key can do to the server before it has sent a whole request: nothing that others notice."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.serving import Server, start, stop

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: here\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may have 1,024 files open."""
    running = start(tmp_path_factory.mktemp("home"), files=1024)
    yield running
    stop(running)


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((str(address.hostname), address.port or 80), timeout=30)


def receive(client: socket.socket) -> bytes:
    """Everything that the server sends until it ends the connection."""
    pieces = []
    try:
        while piece := client.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def flood(client: socket.socket, size: int) -> bytes:
    """Send headers for as long as the server takes them, up to `size` bytes; returns its answer."""
    line = b"x-filler: " + b"a" * 1000 + b"\r\n"
    try:
        client.sendall(REQUEST)
        for _ in range(0, size, 100 * len(line)):
            client.sendall(100 * line)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return receive(client)


def slug(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["type"].removeprefix("urn:husai:problem:")


def resident(server: Server) -> int:
    """The process's memory in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def healthy(server: Server) -> bool:
    return httpx.get(f"{server.url}/healthz", timeout=5).status_code == 200


def test_too_many_header_bytes_are_refused(server: Server):
    line = b"x-filler: " + b"a" * 1000 + b"\r\n"
    for head in (65 * line, b"x: " + b"a" * (1 << 17), b"x-many: 1\r\n" * 129, b"x: " + b"a" * 70_000 + b"\r\n"):
        with connect(server) as client:
            client.sendall(REQUEST + head + b"\r\n")
            assert slug(receive(client)) == (431, "headers-too-large")
    with connect(server) as client:
        client.sendall(b"GET /" + b"a" * (1 << 17))
        assert slug(receive(client)) == (431, "headers-too-large")
    with connect(server) as client:
        client.sendall(REQUEST + 60 * line + b"Connection: close\r\n\r\n")
        assert receive(client).startswith(b"HTTP/1.1 200")


def test_trailers_count_as_headers(server: Server):
    with connect(server) as client:
        client.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        client.sendall(b"x-many: 1\r\n" * 200)
        assert b"431" in receive(client)


def test_300_mb_of_headers_leave_the_process_small(server: Server):
    assert healthy(server)
    with ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(connect(server))
            assert b"431" in flood(client, 1 << 20)
        held = [stack.enter_context(connect(server)) for _ in range(450)]
        for client in held:
            client.sendall(REQUEST + b"x: " + b"a" * 65_000)
        assert healthy(server)
        assert resident(server) < 200_000_000


def test_silent_connections_leave_room_for_others(server: Server):
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(1500)]
        assert healthy(server)
        assert httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
        assert receive(silent[0]) == b""


def test_bodies_that_never_end_leave_room_for_others(server: Server):
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(700):
            stack.enter_context(connect(server)).sendall(head)
        assert healthy(server)


def test_unfinished_requests_time_out(server: Server):
    with connect(server) as silent, connect(server) as slow, connect(server) as later, connect(server) as done:
        done.sendall(REQUEST + b"\r\n")
        assert done.recv(1 << 16).startswith(b"HTTP/1.1 200")
        done.sendall(REQUEST)
        begin = time.monotonic()
        later.sendall(REQUEST)
        while time.monotonic() < begin + 9:
            slow.sendall(b"GET /" if time.monotonic() < begin + 0.5 else b"a")
            time.sleep(1)
        for client, problem in ((slow, True), (later, True), (done, True), (silent, False)):
            text = receive(client)
            assert time.monotonic() - begin < 14
            assert (slug(text) == (408, "request-timeout")) if problem else (text == b"")


def test_pipelined_requests_are_answered_up_to_a_bound(server: Server):
    with connect(server) as client:
        client.sendall(20 * (REQUEST + b"\r\n") + REQUEST + b"Connection: close\r\n\r\n")
        assert receive(client).count(b"HTTP/1.1 200") == 21
    with connect(server) as client:
        client.sendall(2000 * (REQUEST + b"\r\n"))
        client.shutdown(socket.SHUT_WR)
        assert receive(client).count(b"HTTP/1.1 200") < 100


def test_an_answer_before_the_body_ends_the_connection(server: Server):
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n"
    with connect(server) as client:
        client.sendall(head.replace(b"/v1/jobs", b"/nowhere"))
        answer = receive(client)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"connection: close" in answer.lower()


def test_what_is_no_http_behind_a_request_lets_nothing_be_written_late(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    running = start(tmp_path)
    try:
        with connect(running) as client:
            client.sendall(5 * (REQUEST + b"\r\n") + b"no http\r\n\r\n")
            assert slug(receive(client))[0] == 400
        assert healthy(running)
    finally:
        stop(running)
    assert "write_eof" not in capfd.readouterr().err
