"""What `/readyz` says about the artifact store and the chain of decisions, looked at now and then, not at each call."""

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable

from services import chain
from services.artifacts import Store
from services.db import Database

log = logging.getLogger("husai.api")
STORAGE_SECONDS, CHAIN_SECONDS = 5.0, 60.0
WAIT_SECONDS, HANGING_SECONDS = 2.0, 30.0
"""How long a caller waits for a new answer, and how old the last one of a store gets that is taken to hang."""
LAST = 100
"""Decisions whose signatures are checked each time; the links between all of them are."""


class Health:
    """The last answers of one process."""

    def __init__(self, database: Database, store: Store) -> None:
        self._storage = _Kept(lambda: _writable(store), STORAGE_SECONDS)
        self._chain = _Kept(lambda: _whole(database), CHAIN_SECONDS)

    def storage(self) -> tuple[bool, float | None]:
        """Whether artifacts can be written, and seconds since that was known; False for a store that hangs."""
        usable, age = self._storage.answer()
        return usable and age is not None and age < HANGING_SECONDS, age

    def chain(self) -> bool:
        """True when no decision is missing, changed or in another place, as far as is known."""
        return self._chain.answer()[0]


class _Kept:
    """An answer that one thread in the background at most asks for again after some seconds."""

    def __init__(self, ask: Callable[[], bool], seconds: float) -> None:
        self._ask, self._seconds, self._lock = ask, seconds, threading.Lock()
        self._value, self._at = True, -math.inf
        self._thread: threading.Thread | None = None

    def answer(self) -> tuple[bool, float | None]:
        """The last answer and its age in seconds, None before the first. Who asks first waits a while for a new one."""
        with self._lock:
            starts = self._thread is None and time.monotonic() - self._at >= self._seconds
            if starts:
                self._thread = threading.Thread(target=self._renew, daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None and (starts or self._at == -math.inf):
            thread.join(WAIT_SECONDS)
        return self._value, None if self._at == -math.inf else time.monotonic() - self._at

    def _renew(self) -> None:
        try:
            self._value, self._at = self._ask(), time.monotonic()
        except Exception as error:
            log.warning("could not be looked into: %s", error)
        finally:
            self._thread = None


def _writable(store: Store) -> bool:
    """True when a small file can be written to the store and deleted again."""
    path = f"{store.root}/probe-{uuid.uuid4().hex}"
    try:
        store.fs.makedirs(store.root, exist_ok=True)
        with store.fs.open(path, "wb") as file:
            file.write(bytes(1 << 16))
        store.fs.rm(path)
    except Exception:
        return False
    return True


def _whole(database: Database) -> bool:
    with database.read() as session:
        return chain.check(session, last=LAST).ok
