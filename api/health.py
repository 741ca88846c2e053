"""What `/readyz` says about the artifact store and the chain of decisions, looked at now and then, not at each call."""

import threading
import time
import uuid
from collections.abc import Callable

from services import chain
from services.artifacts import Store
from services.db import Database

STORAGE_SECONDS, CHAIN_SECONDS = 5.0, 60.0
LAST = 100
"""Decisions whose signatures are checked each time; the links between all of them are."""


class Health:
    """The last answers of one process."""

    def __init__(self, database: Database, store: Store) -> None:
        self._storage = _Kept(lambda: _writable(store), STORAGE_SECONDS)
        self._chain = _Kept(lambda: _whole(database), CHAIN_SECONDS)

    def storage(self) -> bool:
        """True when artifacts can be written."""
        return self._storage.answer()

    def chain(self) -> bool:
        """True when no decision is missing, changed or in another place."""
        return self._chain.answer()


class _Kept:
    """An answer that is asked for again after some seconds, by one thread at a time."""

    def __init__(self, ask: Callable[[], bool], seconds: float) -> None:
        self._ask, self._seconds, self._lock = ask, seconds, threading.Lock()
        self._value, self._until = True, 0.0

    def answer(self) -> bool:
        with self._lock:
            if time.monotonic() >= self._until:
                self._value = self._ask()
                self._until = time.monotonic() + self._seconds
            return self._value


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
