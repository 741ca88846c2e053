"""The states of a job and the only moves between them."""

from enum import StrEnum


class State(StrEnum):
    """Where a job stands; the last four are final."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    BLOCKED = "blocked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def final(self) -> bool:
        """True when the state never changes again."""
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.TIMED_OUT})
LIVE = frozenset(State) - FINAL

ALLOWED: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.QUEUED, State.RUNNING, State.BLOCKED, *FINAL}),
    State.BLOCKED: frozenset({State.WAITING, State.QUEUED, State.CANCELLED, State.FAILED}),
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset({State.QUEUED, State.BLOCKED, *FINAL}),
    **{state: frozenset() for state in FINAL},
}


class IllegalMove(Exception):
    """A programming error: a move that the table does not allow."""


def check(old: State, new: State) -> None:
    """Refuse a move that the table does not allow.

    Raises:
        IllegalMove: `old` may not become `new`.
    """
    if new not in ALLOWED[old]:
        raise IllegalMove(f"{old} -> {new}")
