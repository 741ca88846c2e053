"""Values as people read them."""

from types import SimpleNamespace

import pytest

from api.pages import text

FIRST = "0001-01-01T00:00:00+23:59"


def test_the_first_instant_of_all_is_shown_though_utc_has_none():
    assert text.when(FIRST).endswith("1-01-01 00:00 UTC")
    assert text.ago(FIRST).endswith("d ago")


@pytest.mark.parametrize(("state", "grows"), [("blocked", False), ("running", True)])
def test_a_blocked_job_takes_no_time(state, grows):
    job = SimpleNamespace(state=state, created_at=FIRST, started_at=FIRST, finished_at=None, reused_from=None)
    assert (text.span_of(job, {}) != "–") == grows


@pytest.mark.parametrize("family", [{}, {"succeeded": 2}])
def test_a_stored_result_took_no_time(family):
    job = SimpleNamespace(state="succeeded", created_at=FIRST, started_at=None, finished_at=FIRST, reused_from="j")
    assert text.span_of(job, family) == "stored result"
