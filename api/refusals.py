"""One log line for each request that is refused or cannot be served for a known reason."""

import logging
import time

from starlette.types import Scope

from services.problems import Problem

log = logging.getLogger("husai.api")
MOST_A_MINUTE = 120
LONGEST_PATH = 200


class Refusals:
    """Writes the lines of one process. Anybody can be refused, so there are only so many of these lines a minute."""

    def __init__(self) -> None:
        self._minute, self._count = 0, 0

    def write(self, scope: Scope, problem: Problem) -> None:
        """Log a request by its id, method and path; its query, headers, body and the detail may hold secrets."""
        if problem.status < 500 and not self._room():
            return
        level = logging.INFO if problem.status < 500 else logging.ERROR
        path = scope["raw_path"].decode("ascii", "backslashreplace")[:LONGEST_PATH]
        log.log(
            level, "request %s: %s %s: %d %s", scope["request_id"], scope["method"], path, problem.status, problem.slug
        )

    def _room(self) -> bool:
        """True unless this minute has all the lines it may have; the next one begins with how many were left out."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            if self._count > MOST_A_MINUTE:
                log.info("%d more requests were refused within a minute", self._count - MOST_A_MINUTE)
            self._minute, self._count = minute, 0
        self._count += 1
        return self._count <= MOST_A_MINUTE
