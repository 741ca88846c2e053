"""Identifiers: random, and in the order of their making, so that they serve as page cursors.

An id is 24 hexadecimal digits. The first 14 are a 56-bit number, the microseconds since 2026-01-01 UTC times 128; the
last 10 are random. The first 8 digits, which are what people type, so change every 2^24 / 128 us = 131 ms. A process
that makes ids faster moves on to the next 8 digits with each one and runs ahead of its clock, by 60 s (458 ids) at
most; after that several ids in a row share their first 8 digits until the clock has caught up. Earlier versions wrote
the microseconds since 1970, which are smaller than that since June 2026, so ids of theirs sort first. The number has
room until the end of 2043.
"""

import secrets
import threading
import time

EPOCH = 1_767_225_600_000_000
"""2026-01-01 UTC in microseconds since 1970."""
SHIFT = 7
STEP = 1 << 24
"""What the number grows by when the first 8 digits grow by one."""
AHEAD = 60_000_000 << SHIFT

_lock = threading.Lock()
_last: dict[str, int] = {}


def new_id(series: str = "") -> str:
    """An id above every earlier one of its series in this process.

    Args:
        series: what is counted together; the ids of one series differ in their first 8 digits as far as possible.
    """
    with _lock:
        value = next_number(_last.get(series, 0), (time.time_ns() // 1000 - EPOCH) << SHIFT)
        _last[series] = value
    return f"{value:014x}{secrets.token_hex(5)}"


def next_number(last: int, clock: int) -> int:
    """The number after `last`: the clock's, or the first of the next 8 digits unless that is too far ahead."""
    if clock // STEP > last // STEP:
        return clock
    step = (last // STEP + 1) * STEP
    return step if step - clock <= AHEAD else last + 1
