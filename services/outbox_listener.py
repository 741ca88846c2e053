"""Learning at once that somebody committed a wake-up message: Postgres says so, SQLite's file shows it."""

import logging
import time
from typing import Any

from services.db import OUTBOX_CHANNEL, Database

log = logging.getLogger("husai.outbox")


class Watch:
    """What a relay waits on. It may wake for nothing, and after an outage of the database it may miss a notice."""

    def __init__(self, database: Database, poll_seconds: float) -> None:
        self.database, self.poll_seconds = database, poll_seconds
        self._connection: Any = None
        self._version = -1

    def wait(self, seconds: float) -> bool:
        """True when there may be new messages, False after `seconds` without."""
        return self._changed(seconds) if self.database.sqlite else self._notified(seconds)

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _changed(self, seconds: float) -> bool:
        """Whether another connection has committed since the last call."""
        if self._connection is None:
            self._connection = self.database.engine.raw_connection()
        deadline = time.monotonic() + seconds
        while True:
            version = self._connection.cursor().execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._version = version
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(self.poll_seconds, seconds))

    def _notified(self, seconds: float) -> bool:
        try:
            if self._connection is None:
                self._connection = self._listen()
                return True
            return any(True for _ in self._connection.notifies(timeout=seconds, stop_after=1))
        except Exception as error:
            log.warning("the database no longer gives notice: %s", error)
            self.close()
            time.sleep(seconds)
            return True

    def _listen(self) -> Any:
        """A connection of its own, outside any transaction, that is told of new messages."""
        borrowed = self.database.engine.raw_connection()
        driver: Any = borrowed.driver_connection
        borrowed.detach()
        driver.autocommit = True
        driver.execute(f"LISTEN {OUTBOX_CHANNEL}")
        return driver
