"""
The life of a session: a table of every state and packet, and a machine of hypothesis
that lives through any order of packets, facts and restarts beside a model.

The model, :class:`LifeMachine`, keeps a few facts about the session and says from
them, and not from the states of the life-cycle, what the server has to do next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import booleans, sampled_from
from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.session import (
    FACTS,
    PACKETS,
    Completion,
    LifeCycle,
    Move,
    NoTransition,
    answered,
    begin,
    resumed,
)


def _receiving() -> LifeCycle:
    life = begin()
    life.begun()
    return life


def _complete() -> LifeCycle:
    life = _receiving()
    life.completed()
    return life


def _published() -> LifeCycle:
    life = _complete()
    life.published()
    return life


def _unanswered() -> LifeCycle:
    life = _receiving()
    life.completed("unanswered")
    return life


def _answered(completion: Completion) -> Callable[[], LifeCycle]:
    def how() -> LifeCycle:
        life = _unanswered()
        life.completed(completion)
        return life

    return how


_due, _taken, _refused = _answered("due"), _answered("taken"), _answered("refused")


def _standing() -> LifeCycle:
    life = _due()
    life.published()
    return life


def _discarding() -> LifeCycle:
    life = _receiving()
    life.close()
    return life


def _cancelling() -> LifeCycle:
    life = _receiving()
    life.cancel()
    return life


def _released(life: LifeCycle) -> LifeCycle:
    life.released()
    return life


#: How to get into a state, and what each packet makes the server do there.
TABLE: dict[str, tuple[Callable[[], LifeCycle], Move, Move, Move]] = {
    # state: (how, Fragment, Close-Session, Cancel-Session)
    "created": (begin, Move.RECEIVE, Move.PUBLISH_EMPTY, Move.RELEASE),
    "receiving": (_receiving, Move.RECEIVE, Move.DISCARD, Move.RELEASE),
    "complete": (_complete, Move.REPEAT, Move.PUBLISH, Move.RELEASE),
    "unanswered": (_unanswered, Move.ASK, Move.ASK, Move.RELEASE),
    "answered": (
        _answered("completed"),
        Move.REPEAT,
        Move.PUBLISH,
        Move.RELEASE,
    ),
    "due": (_due, Move.PUBLISH, Move.PUBLISH, Move.RELEASE),
    "taken": (_taken, Move.REPEAT, Move.DISCARD, Move.RELEASE),
    "refused": (_refused, Move.REFUSE, Move.REFUSE, Move.RELEASE),
    "standing": (_standing, Move.REPEAT, Move.FINISH, Move.RELEASE),
    "published": (_published, Move.UNKNOWN, Move.FINISH, Move.FINISH),
    "discarding": (_discarding, Move.UNKNOWN, Move.DISCARD, Move.RELEASE),
    "cancelling": (_cancelling, Move.UNKNOWN, Move.UNKNOWN, Move.RELEASE),
    "gone after a publication": (
        lambda: _released(_published()),
        Move.UNKNOWN,
        Move.UNKNOWN,
        Move.UNKNOWN,
    ),
    "gone after a discard": (
        lambda: _released(_discarding()),
        Move.UNKNOWN,
        Move.UNKNOWN,
        Move.UNKNOWN,
    ),
    "gone after a cancel": (
        lambda: _released(_cancelling()),
        Move.UNKNOWN,
        Move.UNKNOWN,
        Move.UNKNOWN,
    ),
}


def moves(life: LifeCycle) -> tuple[Move, Move]:
    """What a session makes of a Fragment, then of a Close."""
    return life.fragment(), life.close()


class TableTests(SynchronousTestCase):
    """Every state answers every packet."""

    def test_fragment_in_every_state(self) -> None:
        for state, (how, move, _, _) in TABLE.items():
            self.assertIs(how().fragment(), move, state)

    def test_close_in_every_state(self) -> None:
        for state, (how, _, move, _) in TABLE.items():
            self.assertIs(how().close(), move, state)

    def test_cancel_in_every_state(self) -> None:
        for state, (how, _, _, move) in TABLE.items():
            self.assertIs(how().cancel(), move, state)

    def test_a_fragment_changes_nothing_by_itself(self) -> None:
        for state, (how, fragment, close, _) in TABLE.items():
            life = how()
            life.fragment()
            self.assertEqual(moves(life), (fragment, close), state)

    def test_every_input_in_the_tables_is_one_of_the_machine(self) -> None:
        states = {state for state, _ in PACKETS}
        for _, given in PACKETS:
            self.assertIn(given, ("fragment", "close", "cancel"))
        self.assertEqual(len(PACKETS), 3 * len(states), "every state, every packet")
        facts = (
            "begun",
            "lost",
            "published",
            "released",
            *("completed", "unanswered", "due", "taken", "refused"),
        )
        for state, fact in FACTS:
            self.assertIn(state, states)
            self.assertIn(fact, facts)
        for following in [*FACTS.values(), *(to for _, to in PACKETS.values())]:
            self.assertIn(following, states)


class StoryTests(SynchronousTestCase):
    """What the prose above the machine says."""

    def test_fragments_fill_it_until_it_is_complete(self) -> None:
        life = begin()
        self.assertIs(life.fragment(), Move.RECEIVE)
        life.begun()
        self.assertIs(life.fragment(), Move.RECEIVE)
        life.begun()
        life.completed()
        self.assertIs(life.fragment(), Move.REPEAT)

    def test_publishing_that_failed_is_tried_again_by_the_next_close(self) -> None:
        life = _complete()
        self.assertIs(life.close(), Move.PUBLISH)
        self.assertIs(life.close(), Move.PUBLISH)
        life.published()
        self.assertIs(life.close(), Move.FINISH)

    def test_no_fragment_at_all_is_an_empty_file(self) -> None:
        life = begin()
        self.assertIs(life.close(), Move.PUBLISH_EMPTY)
        life.begun()
        life.completed()
        life.published()
        life.released()
        self.assertIs(life.close(), Move.UNKNOWN)

    def test_an_empty_file_that_could_not_be_published_is_tried_again(self) -> None:
        life = begin()
        life.close()
        life.begun()
        life.completed()
        self.assertIs(life.close(), Move.PUBLISH)

    def test_half_a_file_is_discarded(self) -> None:
        life = _receiving()
        self.assertIs(life.close(), Move.DISCARD)
        self.assertIs(life.fragment(), Move.UNKNOWN)

    def test_a_discard_that_failed_is_finished_by_close_or_cancel(self) -> None:
        self.assertIs(_discarding().close(), Move.DISCARD)
        life = _discarding()
        self.assertIs(life.cancel(), Move.RELEASE)
        self.assertIs(life.close(), Move.UNKNOWN)

    def test_a_cancel_that_failed_is_finished_by_the_next(self) -> None:
        life = _cancelling()
        self.assertIs(life.cancel(), Move.RELEASE)
        self.assertIs(life.cancel(), Move.RELEASE)
        life.released()
        self.assertIs(life.cancel(), Move.UNKNOWN)

    def test_a_file_that_stands_is_not_taken_back_by_cancel(self) -> None:
        life = _published()
        self.assertIs(life.cancel(), Move.FINISH)
        self.assertIs(life.close(), Move.FINISH)

    def test_until_there_is_an_answer_whoever_comes_asks(self) -> None:
        life = _unanswered()
        for _ in range(2):
            self.assertEqual(moves(life), (Move.ASK, Move.ASK))
        life.completed("completed")
        self.assertEqual(moves(life), (Move.REPEAT, Move.PUBLISH))

    def test_what_the_application_took_is_only_to_be_released(self) -> None:
        life = _taken()
        self.assertIs(life.fragment(), Move.REPEAT)
        self.assertIs(life.close(), Move.DISCARD)
        self.assertIs(life.fragment(), Move.UNKNOWN)
        life.released()

    def test_what_the_application_refused_is_only_to_be_cancelled(self) -> None:
        life = _refused()
        for _ in range(2):
            self.assertEqual(moves(life), (Move.REFUSE, Move.REFUSE))
        self.assertIs(life.cancel(), Move.RELEASE)
        self.assertEqual(moves(life), (Move.UNKNOWN, Move.UNKNOWN))

    def test_what_is_due_is_published_by_whoever_comes(self) -> None:
        life = _due()
        self.assertEqual(moves(life), (Move.PUBLISH, Move.PUBLISH))
        life.published()
        self.assertEqual(moves(life), (Move.REPEAT, Move.FINISH))
        self.assertEqual(moves(life), (Move.UNKNOWN, Move.FINISH))
        life.released()

    def test_a_file_that_stands_early_outlives_a_cancel_that_succeeds(self) -> None:
        life = _standing()
        self.assertIs(life.cancel(), Move.RELEASE)
        self.assertIs(life.cancel(), Move.RELEASE)
        life.released()
        self.assertIs(life.cancel(), Move.UNKNOWN)

    def test_an_answer_says_what_is_next(self) -> None:
        for status, publishes, at_once, expected in (
            (200, True, False, "completed"),
            (200, True, True, "due"),
            (204, False, False, "taken"),
            (204, False, True, "taken"),
            (403, True, True, "refused"),
            (403, False, False, "refused"),
        ):
            self.assertEqual(
                answered(status=status, publishes=publishes, at_once=at_once), expected
            )

    def test_after_a_cancel_only_another_one_is_answered(self) -> None:
        for how in (
            *(begin, _receiving, _complete, _discarding, _cancelling),
            *(_unanswered, _due, _taken, _refused, _standing),
        ):
            life = how()
            self.assertIs(life.cancel(), Move.RELEASE)
            self.assertEqual(moves(life), (Move.UNKNOWN, Move.UNKNOWN))
            self.assertIs(life.cancel(), Move.RELEASE)

    def test_facts_that_cannot_be_are_not_taken(self) -> None:
        for how, fact in (
            (begin, LifeCycle.published),
            (begin, LifeCycle.completed),
            (begin, LifeCycle.released),
            (_receiving, LifeCycle.published),
            (_receiving, LifeCycle.released),
            (_complete, LifeCycle.released),
            (_unanswered, LifeCycle.published),
            (_taken, LifeCycle.published),
            (_refused, LifeCycle.published),
            (_taken, LifeCycle.completed),
            (_standing, LifeCycle.released),
            (_cancelling, LifeCycle.published),
            (_cancelling, LifeCycle.begun),
            (lambda: _released(_cancelling()), LifeCycle.begun),
        ):
            self.assertRaises(NoTransition, getattr(how(), fact.__name__))


class ResumedTests(SynchronousTestCase):
    """After a restart a session goes on where it stood."""

    def resumed(
        self,
        offset: int,
        total: int | None,
        is_published: bool = False,
        is_releasing: bool = False,
        is_in_doubt: bool = False,
        **more: Any,
    ) -> LifeCycle:
        return resumed(
            offset=offset,
            total=total,
            is_published=is_published,
            is_releasing=is_releasing,
            is_in_doubt=is_in_doubt,
            **more,
        )

    def test_one_that_is_complete_goes_on_where_it_was(self) -> None:
        completions: dict[Completion, Callable[[], LifeCycle]] = {
            "unanswered": _unanswered,
            "completed": _complete,
            "due": _due,
            "taken": _taken,
            "refused": _refused,
        }
        for completion, how in completions.items():
            for total in (0, 10):
                life = self.resumed(total, total, completion=completion)
                self.assertEqual(life.state, how().state)
            self.assertEqual(
                moves(self.resumed(3, 10, completion=completion))[1], Move.DISCARD
            )
            life = self.resumed(10, 10, is_releasing=True, completion=completion)
            self.assertEqual(moves(life), (Move.UNKNOWN, Move.UNKNOWN))

    def test_one_that_was_published_early_stands(self) -> None:
        life = self.resumed(10, 10, is_published=True, at_once=True)
        self.assertEqual(life.state, "standing")
        life = self.resumed(10, 10, True, is_releasing=True, at_once=True)
        self.assertEqual(moves(life), (Move.UNKNOWN, Move.UNKNOWN))
        self.assertIs(life.cancel(), Move.RELEASE)

    def test_one_in_doubt_is_not_discarded_but_sent_again(self) -> None:
        for offset, total in ((0, None), (0, 10), (9, 10)):
            life = self.resumed(offset, total, is_in_doubt=True)
            self.assertIs(life.close(), Move.LOSE)
            self.assertIs(life.close(), Move.UNKNOWN)
            life.released()

    def test_one_in_doubt_may_be_cancelled(self) -> None:
        life = self.resumed(3, 10, is_in_doubt=True)
        self.assertIs(life.cancel(), Move.RELEASE)

    def test_a_fragment_clears_the_doubt(self) -> None:
        life = self.resumed(3, 10, is_in_doubt=True)
        self.assertIs(life.fragment(), Move.RECEIVE)
        life.begun()
        self.assertIs(life.close(), Move.DISCARD)

    def test_what_is_complete_is_not_in_doubt(self) -> None:
        life = self.resumed(10, 10, is_in_doubt=True)
        self.assertIs(life.close(), Move.PUBLISH)

    def test_bytes_lost_while_publishing_put_it_in_doubt(self) -> None:
        life = self.resumed(10, 10)
        self.assertIs(life.close(), Move.PUBLISH)
        life.lost()
        self.assertIs(life.fragment(), Move.RECEIVE)
        self.assertIs(life.close(), Move.LOSE)

    def test_one_without_a_fragment_is_created(self) -> None:
        self.assertEqual(
            moves(self.resumed(0, None)), (Move.RECEIVE, Move.PUBLISH_EMPTY)
        )

    def test_one_with_a_part_is_receiving(self) -> None:
        for offset in (0, 1, 9):
            self.assertEqual(
                moves(self.resumed(offset, 10)), (Move.RECEIVE, Move.DISCARD)
            )

    def test_one_with_all_is_complete(self) -> None:
        for total in (0, 10):
            self.assertEqual(
                moves(self.resumed(total, total)), (Move.REPEAT, Move.PUBLISH)
            )

    def test_one_that_was_published_is_only_to_be_released(self) -> None:
        for is_releasing in (False, True):
            life = self.resumed(10, 10, is_published=True, is_releasing=is_releasing)
            self.assertEqual(moves(life), (Move.UNKNOWN, Move.FINISH))

    def test_one_whose_release_had_begun_is_known_to_cancel_only(self) -> None:
        for offset, total in ((0, None), (5, 10), (10, 10)):
            life = self.resumed(offset, total, is_releasing=True)
            self.assertEqual(moves(life), (Move.UNKNOWN, Move.UNKNOWN))
            self.assertIs(life.cancel(), Move.RELEASE)
            life.released()
            self.assertIs(life.cancel(), Move.UNKNOWN)


class LifeMachine(RuleBasedStateMachine):
    """Packets, facts and restarts in any order, beside a model."""

    @property
    def open(self) -> bool:
        """Whether packets may still change what will become of the file."""
        return not (self.published or self.discarded or self.cancelled or self.gone)

    @property
    def stands(self) -> bool:
        """Whether the session has outlived its publication."""
        ended = self.discarded or self.cancelled or self.gone or self.closed
        return self.published and self.at_once and not ended

    @property
    def completion(self) -> Completion:
        """What is to be done with it when it is complete."""
        if self.answer is not None:
            status, publishes = self.answer
            return answered(status=status, publishes=publishes, at_once=self.at_once)
        if self.notifies:
            return "unanswered"
        return "due" if self.at_once else "completed"

    @initialize(notifies=booleans(), at_once=booleans())
    def a_session_is_created(self, notifies: bool, at_once: bool) -> None:
        self.notifies, self.at_once = notifies, at_once
        self.life = begin()
        self.begun = self.held = self.published = self.closed = False
        self.discarded = self.cancelled = self.gone = self.in_doubt = False
        self.answer: tuple[int, bool] | None = None

    @precondition(lambda self: self.gone)
    @rule(notifies=booleans(), at_once=booleans())
    def the_next_session_is_created(self, notifies: bool, at_once: bool) -> None:
        # One example lives many lives; most would end before they were complete.
        self.a_session_is_created(notifies, at_once)

    @property
    def before_the_end(self) -> Move | None:
        """What is to be done before anything else, once all bytes are held."""
        if self.notifies and self.answer is None:
            return Move.ASK
        if self.answer is not None and self.answer[0] == 403:
            return Move.REFUSE
        return None

    @property
    def is_taken(self) -> bool:
        return self.answer is not None and not self.answer[1]

    @rule()
    def fragment(self) -> None:
        expected = Move.UNKNOWN
        if self.open and not self.held:
            expected = Move.RECEIVE
        elif self.open:
            expected = self.before_the_end or Move.REPEAT
            if expected is Move.REPEAT and self.at_once and not self.is_taken:
                expected = Move.PUBLISH
        elif self.stands:
            expected = Move.REPEAT
        assert self.life.fragment() is expected

    @rule()
    def close(self) -> None:
        if self.gone or self.cancelled:
            expected = Move.UNKNOWN
        elif self.published:
            expected = Move.FINISH
            self.closed = True
        elif self.discarded:
            expected = Move.DISCARD
        elif self.held and self.before_the_end is not None:
            expected = self.before_the_end
        elif self.held and self.is_taken:
            expected = Move.DISCARD
            self.discarded = True
        elif self.held:
            expected = Move.PUBLISH
        elif self.in_doubt:
            expected = Move.LOSE
            self.cancelled = True
        elif self.begun:
            expected = Move.DISCARD
            self.discarded = True
        else:
            expected = Move.PUBLISH_EMPTY
        assert self.life.close() is expected

    @rule()
    def cancel(self) -> None:
        if self.gone:
            expected = Move.UNKNOWN
        elif self.published and not self.stands and not self.cancelled:
            expected = Move.FINISH
        else:
            expected = Move.RELEASE
            self.cancelled = True
        assert self.life.cancel() is expected

    @precondition(lambda self: self.open and not self.held)
    @rule()
    def a_fragment_was_begun(self) -> None:
        self.life.begun()
        self.begun = True
        self.in_doubt = False

    @precondition(
        lambda self: self.open and self.begun and not self.held and not self.in_doubt
    )
    @rule()
    def the_last_byte_was_stored(self) -> None:
        self.life.completed(self.completion)
        self.held = True

    @precondition(
        lambda self: self.open and self.held and self.before_the_end is Move.ASK
    )
    @rule(answer=sampled_from([(200, True), (204, False), (403, False)]))
    def the_application_answered(self, answer: tuple[int, bool]) -> None:
        self.answer = answer
        self.life.completed(self.completion)

    @precondition(
        lambda self: (
            self.open
            and self.held
            and self.before_the_end is None
            and not self.is_taken
        )
    )
    @rule()
    def the_file_was_published(self) -> None:
        self.life.published()
        self.published = True

    @precondition(lambda self: not self.open and not self.stands and not self.gone)
    @rule()
    def all_was_released(self) -> None:
        self.life.released()
        self.gone = True

    @precondition(lambda self: not self.gone)
    @rule(is_in_doubt=booleans(), at_once=booleans())
    def the_server_was_restarted(self, is_in_doubt: bool, at_once: bool) -> None:
        # A discard had begun to release; the store does not tell it from a cancel.
        if self.discarded:
            self.cancelled = True
        # It knows of a close that it has not released yet no more than of none.
        self.closed = False
        self.at_once = at_once
        if self.published and not at_once:
            self.cancelled = False
        self.life = resumed(
            offset=10 if self.held else 3 if self.begun else 0,
            total=10 if self.begun else None,
            is_published=self.published,
            is_releasing=self.cancelled,
            is_in_doubt=is_in_doubt,
            completion=self.completion,
            at_once=at_once,
        )
        self.in_doubt = is_in_doubt

    @precondition(
        lambda self: (
            self.open
            and self.held
            and self.before_the_end is not Move.REFUSE
            and not self.is_taken
        )
    )
    @rule()
    def publishing_or_asking_lost_bytes(self) -> None:
        self.life.lost()
        self.held = False
        self.in_doubt = True

    @invariant()
    def a_session_that_is_cancelled_is_unknown_to_all_but_cancel(self) -> None:
        if self.cancelled:
            assert moves(self.life) == (Move.UNKNOWN, Move.UNKNOWN)


class LifeTests(SynchronousTestCase):
    """Trial runs no machines of hypothesis by itself."""

    def test_any_order_of_packets_facts_and_restarts(self) -> None:
        run_state_machine_as_test(LifeMachine)
