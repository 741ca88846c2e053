"""Identifiers: random, and in the order of their making, so that they serve as page cursors."""

import secrets
import threading
import time

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """24 hexadecimal digits: 14 of microseconds since 1970, never the same twice in a process, then 10 random ones."""
    global _last
    with _lock:
        _last = max(_last + 1, time.time_ns() // 1000)
        return f"{_last:014x}{secrets.token_hex(5)}"
