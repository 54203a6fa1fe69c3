"""
The table of the states of a connection: complete, and without states that have no use.
"""

from __future__ import annotations

from typing import get_args

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from txbits.web import Limits
from txbits.web._streaming import states
from txbits.web._streaming.states import EVENTS, LOST, NEW, TRANSITIONS, State


class TableTests(SynchronousTestCase):
    """``TRANSITIONS``, and what belongs to it."""

    def test_every_state_has_a_row_and_a_name_of_its_own(self) -> None:
        defined = {one for one in vars(states).values() if isinstance(one, State)}
        self.assertEqual(set(TRANSITIONS), defined)
        self.assertEqual(len({state.name for state in defined}), len(defined))

    def test_every_event_is_explained_and_leads_somewhere(self) -> None:
        self.assertEqual(set(EVENTS), set(get_args(states.Event)))
        moving = {
            event
            for state, row in TRANSITIONS.items()
            for event, following in row.items()
            if following is not state
        }
        self.assertEqual(moving, set(EVENTS))

    def test_every_state_is_reached_and_any_connection_can_be_lost(self) -> None:
        reached, found = set[State](), {NEW}
        while found:
            reached |= found
            found = {to for one in found for to in TRANSITIONS[one].values()} - reached
        self.assertEqual(reached, set(TRANSITIONS))
        self.assertEqual({row["lost"] for row in TRANSITIONS.values()}, {LOST})

    def test_limits_are_those_of_the_site(self) -> None:
        known = {one.name for one in fields(Limits)} | {"close_timeout"}
        named = {state.limit for state in TRANSITIONS} - {None}
        self.assertLessEqual(named, known)

    def test_a_deadline_is_missed_only_where_there_is_one(self) -> None:
        for state in TRANSITIONS:
            if state.limit is None:
                self.assertIsNone(state.progress, state.name)
                self.assertFalse(state.closes, state.name)
