"""
An observer is told of each file that is published, whatever the backend can do.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from tests.sessions.support import ALICE, NAME, TOTAL, ManagerCase
from txbits.errors import BackendError
from txbits.interfaces import IPublicationObserver, PublishedUpload
from txbits.sessions import SessionManager, Settings


@implementer(IPublicationObserver)
class Observer:
    """Remembers what was published."""

    def __init__(self, outcome: Any = None) -> None:
        self.seen: list[PublishedUpload] = []
        self.outcome = outcome

    def published(self, upload: PublishedUpload) -> Deferred[None] | None:
        self.seen.append(upload)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        outcome: Deferred[None] | None = self.outcome
        return outcome


class ObserverTests(ManagerCase):
    """What an observer hears, and what its failures do: nothing."""

    def observed(self, outcome: Any = None, **settings: Any) -> Observer:
        self.successResultOf(self.manager.stop())
        observer = Observer(outcome)
        self.manager = SessionManager(
            self.backend,
            Settings(**settings),
            self.clock,
            wall=self.wall,
            observer=observer,
        )
        self.successResultOf(self.manager.start())
        return observer

    def test_it_is_told_when_the_file_is_there(self) -> None:
        observer = self.observed()
        session_id = self.complete()
        gate = self.backend.hold("publish")
        closing = self.close(session_id)
        self.assertEqual(observer.seen, [])
        gate.open()
        self.successResultOf(closing)
        expected = PublishedUpload(
            session_id=session_id,
            destination=NAME,
            owner=ALICE.user,
            content_name="a.txt",
            length=TOTAL,
        )
        self.assertEqual(observer.seen, [expected])

    def test_it_is_told_once_however_often_the_session_is_closed(self) -> None:
        observer = self.observed()
        session_id = self.complete()
        self.backend.hold("release").fail(BackendError("not now"))
        for _ in range(3):
            self.failureResultOf(self.close(session_id), BackendError)
        self.backend.hold("release").open()
        for _ in range(2):
            self.successResultOf(self.close(session_id))
        self.assertEqual(len(observer.seen), 1)

    def test_it_is_told_at_the_last_fragment_where_that_publishes(self) -> None:
        observer = self.observed(publish_on="last-fragment")
        session_id = self.complete()
        self.assertEqual(len(observer.seen), 1)
        self.successResultOf(self.close(session_id))
        self.assertEqual(len(observer.seen), 1)

    def test_it_is_told_of_empty_files(self) -> None:
        observer = self.observed()
        self.successResultOf(self.close(self.create()))
        self.assertEqual([one.length for one in observer.seen], [0])

    def test_it_is_not_told_of_what_does_not_appear(self) -> None:
        observer = self.observed()
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.successResultOf(self.close(session_id))
        session_id = self.complete()
        gate = self.backend.hold("publish")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.close(session_id), BackendError)
        self.assertEqual(observer.seen, [])

    def test_its_failures_are_logged_and_nothing_else(self) -> None:
        for outcome in (ValueError("a mistake"), fail(ValueError("a late mistake"))):
            self.memory.files.clear()
            observer = self.observed(outcome)
            self.successResultOf(self.close(self.complete()))
            self.assertEqual(len(observer.seen), 1)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_nobody_waits_for_it(self) -> None:
        self.observed(Deferred())
        self.successResultOf(self.close(self.complete()))

    def test_something_else_is_refused(self) -> None:
        with self.assertRaisesRegex(TypeError, "must provide IPublicationObserver"):
            SessionManager(
                self.memory,
                Settings(),
                self.clock,
                wall=self.wall,
                observer=print,  # type: ignore[arg-type]
            )
