"""Values as people read them."""

from api.pages import text

FIRST = "0001-01-01T00:00:00+23:59"


def test_the_first_instant_of_all_is_shown_though_utc_has_none():
    assert text.when(FIRST).endswith("1-01-01 00:00 UTC")
    assert text.ago(FIRST).endswith("d ago")
