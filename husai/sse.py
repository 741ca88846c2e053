"""Server-sent events (WHATWG HTML, section 9.2): lines to events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from husai.models import Event


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """The events in a stream of lines; comments (heartbeats) and events without an id are passed over."""
    block: dict[str, str] = {}
    for line in lines:
        if not line:
            if block.get("id", "").isdigit() and "data" in block:
                yield _event(block)
            block = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        block[name] = f"{block[name]}\n{value}" if name == "data" and "data" in block else value


def _event(block: dict[str, str]) -> Event:
    document = {"id": int(block["id"]), "type": block.get("event", "message"), "data": json.loads(block["data"])}
    return Event.read(document)
