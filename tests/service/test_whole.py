"""
What one worker answers for the whole service; real processes are in
``tests/integration/test_workers.py``.
"""

import json

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.page.support import glance
from tests.admin.sessions import OPERATOR, ListView, record
from txbits._workers import Worker
from txbits.admin.page import Glance
from txbits.admin.page.glance import ProcessState
from txbits.admin.remote import answered
from txbits.admin.sessions import SessionFilter
from txbits.errors import BackendError, NoSuchSession
from txbits.service._whole import Whole


class WholeCase(SynchronousTestCase):
    """
    Three workers. The supervisor between them is a method.

    :ivar down: What is wrong with workers that do not answer.
    """

    def setUp(self):
        self.clock = Clock()
        self.down = {}
        self.views = [ListView([record(10 * n), record(10 * n + 1)]) for n in range(3)]
        self.lines = [[], [], []]
        self.wholes = [
            Whole(Worker(number, 3), b"key", self.ask, self.clock)
            for number in range(3)
        ]

    def ask(self, what, *words):
        return {"one": self.one, "everyone": self.everyone}[what](*words)

    def one(self, number, question):
        if number in self.down:
            return succeed((None, self.down[number]))
        # It comes as JSON does.
        answer = answered(self.views[number], json.loads(json.dumps(question)))
        return answer.addCallback(lambda said: (json.loads(json.dumps(said)), None))

    def everyone(self, what):
        answers = {
            number: getattr(self, what)(number)
            for number in range(3)
            if number not in self.down
        }
        return succeed((answers, self.down))

    def glance(self, number):
        return json.loads(json.dumps(self.glance_of(number).as_json()))

    def glance_of(self, number):
        """What a worker knows."""
        process = ProcessState(f"worker {number}", 42, 0.0, number, 0, 0.0)
        return glance(processes=(process,), obstacles=tuple(self.lines[number]))


class SessionsTests(WholeCase):
    """The sessions of all, at any worker."""

    def view(self, number):
        """What a worker shows."""
        return self.wholes[number].sessions(self.views[number])

    def everything(self, number, limit=100):
        found, cursor = [], None
        while True:
            page = self.successResultOf(
                self.view(number).page(SessionFilter(), cursor, limit)
            )
            found += page.sessions
            cursor = page.next
            if cursor is None:
                return found, page.faults

    def test_each_worker_shows_them_all_and_in_the_same_order(self):
        everything = [one for view in self.views for one in view.sessions]
        for number in range(3):
            self.assertEqual(self.everything(number), (everything, ()))
            self.assertEqual(self.everything(number, limit=1), (everything, ()))

    def test_a_list_may_go_on_at_another_worker(self):
        first = self.successResultOf(self.view(0).page(SessionFilter(), None, 3))
        rest = self.successResultOf(self.view(2).page(SessionFilter(), first.next, 3))
        self.assertEqual(
            [one.session for one in (*first.sessions, *rest.sessions)],
            [one.session for one in self.everything(1)[0]],
        )

    def test_a_worker_that_is_away_is_a_line_and_the_others_are_shown(self):
        self.down = {1: "is not running"}
        found, faults = self.everything(0)
        self.assertEqual(found, [*self.views[0].sessions, *self.views[2].sessions])
        self.assertEqual(faults, ("worker 1: is not running",))

    def test_a_session_is_shown_and_ended_by_the_worker_that_has_it(self):
        session = self.views[1].sessions[0]
        view = self.view(2)
        self.assertEqual(self.successResultOf(view.get(session.session)), session)
        ended = self.successResultOf(view.cancel(session.session, OPERATOR))
        self.assertEqual(ended, session)
        ((_, operator),) = self.views[1].cancelled
        self.assertEqual(
            (operator.user, operator.address), (OPERATOR.user, OPERATOR.address)
        )
        self.assertEqual(self.views[0].cancelled + self.views[2].cancelled, [])

    def test_old_ones_of_all_workers_are_ended(self):
        purged = self.successResultOf(
            self.view(2).purge(SessionFilter(idle=0.0), OPERATOR)
        )
        self.assertEqual(len(purged.sessions), 6)
        self.assertEqual([len(view.cancelled) for view in self.views], [2, 2, 2])

    def test_no_worker_has_it_is_not_the_same_as_one_does_not_tell(self):
        missing = record(99).session
        self.failureResultOf(self.view(0).get(missing), NoSuchSession)
        self.down = {1: "does not answer"}
        error = self.failureResultOf(self.view(0).get(missing), BackendError).value
        self.assertEqual(str(error), "does not answer")

    def test_nobody_waits_for_a_supervisor_for_ever(self):
        self.one = lambda *_: Deferred()
        page = self.view(0).page(SessionFilter())
        self.clock.advance(10)
        self.clock.advance(10)
        found = self.successResultOf(page)
        self.assertEqual(found.sessions, tuple(self.views[0].sessions))
        self.assertEqual(
            found.faults,
            tuple(f"worker {n}: the supervisor does not answer" for n in (1, 2)),
        )


class GlanceTests(WholeCase):
    """What is going on."""

    def look(self, number):
        whole = self.wholes[number]
        return whole.glance(lambda: self.glance_of(number))

    def test_each_worker_shows_all_processes_in_their_order(self):
        for number in range(3):
            found = self.successResultOf(self.look(number))
            self.assertIsInstance(found, Glance)
            self.assertEqual(
                [one.name for one in found.processes],
                ["worker 0", "worker 1", "worker 2"],
            )
            self.assertEqual(found.directories[0].sessions, 9)
            self.assertEqual(found.obstacles, ())

    def test_a_worker_that_is_away_is_an_obstacle(self):
        self.down = {1: "is not running"}
        self.lines[0] = self.lines[2] = ["/: no space"]
        found = self.successResultOf(self.look(2))
        self.assertEqual(found.obstacles, ("/: no space", "worker 1 is not running"))
        self.assertEqual(len(found.processes), 2)

    def test_a_worker_that_answers_does_not_call_itself_away(self):
        self.down = dict.fromkeys(range(3), "is not running")
        self.lines[2] = ["starting"]
        found = self.successResultOf(self.look(2))
        self.assertEqual(
            found.obstacles,
            ("starting", "worker 0 is not running", "worker 1 is not running"),
        )
        self.assertEqual([one.name for one in found.processes], ["worker 2"])

    def test_it_fails_without_a_supervisor(self):
        self.everyone = lambda what: fail(ConnectionLost())
        self.failureResultOf(self.look(0), BackendError)


class TokenTests(WholeCase):
    """The tokens of forms."""

    def test_a_form_of_one_worker_may_be_sent_to_another(self):
        token = self.wholes[0].tokens().make(OPERATOR)
        self.assertTrue(self.wholes[1].tokens().check(token, OPERATOR))
        another = evolve(self.wholes[1], form_key=b"of another start")
        self.assertFalse(another.tokens().check(token, OPERATOR))
