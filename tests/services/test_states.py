import itertools

import pytest

from services.states import ALLOWED, FINAL, IllegalMove, State, check


def test_final_states_never_change() -> None:
    for old, new in itertools.product(FINAL, State):
        with pytest.raises(IllegalMove):
            check(old, new)


def test_every_state_can_reach_an_end() -> None:
    for state in set(State) - FINAL:
        reached, frontier = set[State](), {state}
        while frontier:
            reached |= frontier
            frontier = set().union(*(ALLOWED[state] for state in frontier)) - reached
        assert reached & FINAL
