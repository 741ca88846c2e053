"""What is known of a store that hangs: one thread waits for it, callers do not."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from api.health import _Kept


def test_a_store_that_hangs_holds_one_thread_only() -> None:
    released, calls = threading.Event(), list[float]()

    def ask() -> bool:
        calls.append(time.monotonic())
        return len(calls) == 1 or released.wait(60)

    kept = _Kept(ask, 0.0)
    assert kept.answer()[0]
    begin = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: kept.answer(), range(100)))
    assert time.monotonic() - begin < 10
    assert len(calls) == 2
    assert all(value and age is not None for value, age in answers)
    released.set()
