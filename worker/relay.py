"""From the outbox to the doorbells. A crash in between only rings twice; a lost bell is rung again by the sweep."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import delete, func, select

from services.db import Database, complain
from services.failpoints import failpoint
from services.outbox_listener import Watch
from services.states import State
from services.tables import Execution, Outbox
from worker.periodic import Chores

log = logging.getLogger("husai.worker")

PAGE = 1000
MOST_BELLS = 32
"""Bells that hang in one queue at most because of the sweep; each wakes a worker that claims until nothing is left."""


class Relay:
    """Rings once for every row of the outbox, then deletes the row.

    Args:
        database: where the outbox is.
        ring: rings the bells of these queues, one for each name, or raises.
        waiting: how many bells of each queue nobody has heard yet.
    """

    def __init__(
        self,
        database: Database,
        ring: Callable[[Sequence[str]], None],
        waiting: Callable[[Sequence[str]], Mapping[str, int]],
    ) -> None:
        self.database, self._ring, self._waiting = database, ring, waiting

    def forward(self) -> None:
        """Ring for what is in the outbox now."""
        while self._page():
            continue

    def _page(self) -> bool:
        """Ring for the oldest rows; True when there may be more."""
        with self.database.read() as session:
            rows = session.execute(select(Outbox.id, Outbox.queue).order_by(Outbox.id).limit(PAGE)).all()
        if not rows:
            return False
        self._ring([row.queue for row in rows])
        failpoint("relay.rung")
        with self.database.write(shared=True) as session:
            session.execute(delete(Outbox).where(Outbox.id.in_([row.id for row in rows])))
        failpoint("relay.deleted")
        return len(rows) == PAGE

    def serve(self, watch: Watch, over: threading.Event, chores: Chores | None = None) -> None:
        """Ring at once for whatever is committed, until `over`; what could not be rung is tried again."""
        pending = True
        while not over.is_set():
            if chores is not None:
                chores.turn()
            try:
                if watch.wait(0.25) or pending:
                    pending = True
                    self.forward()
                    pending = False
            except Exception as error:
                complain(log, "a bell could not be rung; it is tried again", error)
                over.wait(0.5)
        watch.close()

    def sweep(self) -> None:
        """Ring for what nobody called about, and again where work is queued but fewer bells hang than there is work."""
        self.forward()
        with self.database.read() as session:
            query = select(Execution.queue, func.count()).where(Execution.state == State.QUEUED)
            queued = dict(session.execute(query.group_by(Execution.queue)).tuples().all())
        if not queued:
            return
        waiting = self._waiting(list(queued))
        missing = {queue: min(count, MOST_BELLS) - waiting[queue] for queue, count in queued.items()}
        if bells := [queue for queue, count in missing.items() for _ in range(count)]:
            self._ring(bells)
            failpoint("sweep.rung")
