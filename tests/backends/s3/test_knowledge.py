"""
What a node knows of the bytes that others have acknowledged; no store is involved.
"""

from __future__ import annotations

from functools import reduce

from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.s3._knowledge import TRANSITIONS, Event, Knowledge


def after(*events: Event, known: Knowledge = Knowledge.COMPLETE) -> Knowledge:
    """What is known after these events, of a new session by default."""
    return reduce(lambda now, event: TRANSITIONS[now][event], events, known)


class KnowledgeTests(SynchronousTestCase):
    """The table of states."""

    def test_every_event_is_possible_at_any_time(self) -> None:
        for known in Knowledge:
            self.assertEqual(set(TRANSITIONS[known]), set(Event), known)

    def test_a_session_that_stays_with_one_node_is_never_listed(self) -> None:
        self.assertIs(after(Event.BEGUN, Event.BEGUN), Knowledge.COMPLETE)

    def test_one_listing_as_the_named_node_tells_all(self) -> None:
        for known in Knowledge:
            self.assertIs(after(Event.LISTED, known=known), Knowledge.COMPLETE)

    def test_one_writer_may_begin_with_the_listing_of_another_s_session(self) -> None:
        for known in Knowledge:
            listed = after(Event.LISTED_BEHIND, known=known)
            self.assertTrue(listed.lets_begin)
            self.assertFalse(after(Event.BEGUN, known=listed).lets_begin)

    def test_who_has_taken_over_lists_before_the_next_writer(self) -> None:
        for known in (Knowledge.COMPLETE, Knowledge.RECENT, Knowledge.STALE):
            taken = after(Event.TAKEN_OVER, known=known)
            self.assertIs(taken, Knowledge.STALE)
            self.assertFalse(taken.lets_begin)

    def test_who_has_removed_its_name_does_not_know_all(self) -> None:
        self.assertIs(after(Event.RESIGNED), Knowledge.STALE)

    def test_only_a_listing_helps_who_was_overtaken(self) -> None:
        overtaken = after(Event.CHANGED)
        self.assertFalse(overtaken.lets_begin)
        for event in set(Event) - {Event.LISTED, Event.LISTED_BEHIND}:
            self.assertIs(after(event, known=overtaken), Knowledge.OVERTAKEN)
