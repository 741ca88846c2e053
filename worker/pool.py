"""Celery's pool of threads, whose event loop learns at once that a thread is free, not up to a second later."""

from typing import Any

from celery.concurrency.thread import TaskPool
from kombu.asynchronous import get_event_loop


class PromptPool(TaskPool):
    """Wakes the event loop when a task has ended, so that it asks the broker for the next message."""

    def on_apply(self, *arguments: Any, **named: Any) -> Any:
        """Start a task in a thread."""
        result = super().on_apply(*arguments, **named)
        result.f.add_done_callback(lambda _: _wake())
        return result


def _wake() -> None:
    loop = get_event_loop()
    if loop is not None:
        loop.call_soon(bool)
