"""Sends the wake-up messages of the outbox. A crash in between only sends twice; the sweep makes up for lost ones."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import delete, func, select

from services.db import Database, complain
from services.failpoints import failpoint
from services.outbox_listener import Watch
from services.states import State
from services.tables import Execution, Outbox
from worker.periodic import Periodic

log = logging.getLogger("husai.worker")

PAGE = 1000
MOST_MESSAGES = 32
"""Messages that wait in one queue at most because of the sweep; each wakes a worker that claims until no work is
left."""


class Relay:
    """Sends one message for every row of the outbox, then deletes the row.

    Args:
        database: where the outbox is.
        send: sends a message to each of these queues, one for each name, or raises.
        waiting: how many messages of each queue no worker has taken yet.
    """

    def __init__(
        self,
        database: Database,
        send: Callable[[Sequence[str]], None],
        waiting: Callable[[Sequence[str]], Mapping[str, int]],
    ) -> None:
        self.database, self._send, self._waiting = database, send, waiting

    def forward(self) -> None:
        """Send what is in the outbox now."""
        while self._page():
            continue

    def _page(self) -> bool:
        """Send the oldest rows; True when there may be more."""
        with self.database.read() as session:
            rows = session.execute(select(Outbox.id, Outbox.queue).order_by(Outbox.id).limit(PAGE)).all()
        if not rows:
            return False
        self._send([row.queue for row in rows])
        failpoint("relay.sent")
        with self.database.write(shared=True) as session:
            session.execute(delete(Outbox).where(Outbox.id.in_([row.id for row in rows])))
        failpoint("relay.deleted")
        return len(rows) == PAGE

    def serve(self, watch: Watch, over: threading.Event, tasks: Periodic | None = None) -> None:
        """Send at once what is committed, until `over`; what could not be sent is tried again."""
        pending = True
        while not over.is_set():
            if tasks is not None:
                tasks.turn()
            try:
                if watch.wait(0.25) or pending:
                    pending = True
                    self.forward()
                    pending = False
            except Exception as error:
                complain(log, "wake-up messages could not be sent; they are tried again", error)
                over.wait(0.5)
        watch.close()

    def sweep(self) -> None:
        """Send what no notice came for, and again where work is queued but fewer messages wait than there is work."""
        self.forward()
        with self.database.read() as session:
            query = select(Execution.queue, func.count()).where(Execution.state == State.QUEUED)
            queued = dict(session.execute(query.group_by(Execution.queue)).all())
        if not queued:
            return
        waiting = self._waiting(list(queued))
        missing = {queue: min(count, MOST_MESSAGES) - waiting[queue] for queue, count in queued.items()}
        if queues := [queue for queue, count in missing.items() for _ in range(count)]:
            self._send(queues)
            failpoint("sweep.sent")
