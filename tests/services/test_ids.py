"""Identifiers sort in the order of their making and differ in the digits that people type."""

import time

from services.ids import EPOCH, SHIFT, STEP, new_id, next_number

EARLIER = f"{time.time_ns() // 1000:014x}ffffffffff"
"""An id of the earlier form, made now."""


def test_ids_are_24_digits_in_order_after_those_of_the_earlier_form() -> None:
    ids = [new_id("job") for _ in range(2000)]
    assert {len(id) for id in ids} == {24}
    assert ids == sorted(ids)
    assert len(set(ids)) == 2000
    assert ids[0] > EARLIER


def test_successive_ids_differ_in_their_first_eight_digits() -> None:
    assert len({new_id("a test of its own")[:8] for _ in range(400)}) == 400


def test_the_numbers_run_ahead_by_a_minute_at_most_and_catch_up() -> None:
    clock, last = 10**6 * STEP, 0
    for _ in range(5000):
        last, before = next_number(last, clock), last
        assert before < last <= clock + (60_000_000 << SHIFT)
    later = clock + (90_000_000 << SHIFT)
    assert next_number(last, later) == later


def test_the_numbers_have_room_until_2043() -> None:
    new_year_of_2043 = 2_303_683_200_000_000
    assert (new_year_of_2043 - EPOCH) << SHIFT < 1 << 56
