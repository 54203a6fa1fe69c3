"""
Views of open sessions: of a directory, of several views, and of another process.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.admin.sessions import ON_FIRE, OPERATOR, ListView, ViewCase, record
from txbits._workers import Worker
from txbits.admin.combined import CombinedSessions
from txbits.admin.directories import DirectorySessions
from txbits.admin.remote import RemoteSessions, answered
from txbits.admin.sessions import (
    STATES,
    InvalidCursor,
    Purged,
    SessionFilter,
    SessionRecord,
    SessionsPage,
    SessionsView,
)
from txbits.backends.memory import MemoryBackend
from txbits.errors import BackendError, NoSuchSession, ServerStopping
from txbits.interfaces import Identity, IShared
from txbits.protocol.session import FACTS
from txbits.sessions import Caller

EVERYTHING = SessionFilter()


class RecordTests(SynchronousTestCase):
    """Records, pages and filters are values that JSON can have."""

    def test_records_and_pages_are_read_as_they_were_written(self) -> None:
        one = record(file_name="\udce4", rate=1.5, active=True)
        page = SessionsPage([one, record(2)], "cursor", ["a line"])
        for each in (page, Purged([one])):
            said = json.loads(json.dumps(each.as_json()))
            self.assertEqual(type(each).from_json(said), each)
        filters = SessionFilter(owner="", idle=5.0, active=False)
        self.assertEqual(SessionFilter.from_json(filters.as_json()), filters)
        self.assertEqual(filters.as_json(), {"owner": "", "idle": 5.0, "active": False})

    def test_keys_of_a_later_version_are_ignored(self) -> None:
        said = {**record().as_json(), "colour": "blue"}
        self.assertEqual(SessionRecord.from_json(said), record())

    def test_all_states_of_a_session_have_a_name_here(self) -> None:
        ending = {"published", "discarding", "cancelling", "gone"}
        states = {state for state, _ in FACTS} | set(FACTS.values())
        self.assertEqual(states - ending | {"releasing"}, set(STATES))


class FilterTests(SynchronousTestCase):
    """Which sessions fit filters."""

    def fits(self, one: SessionRecord, **filters: Any) -> bool:
        return SessionFilter(**filters).takes(one, 100.0)

    def test_without_filters_all_fit(self) -> None:
        self.assertTrue(self.fits(record()))

    def test_values_are_compared(self) -> None:
        one = record(client="192.0.2.1", scheme="basic", active=True)
        for name, good, bad in (
            ("directory", "/logs", "/log"),
            ("directory", "/logs/", "/"),
            ("owner", "alice", "Alice"),
            ("client", "192.0.2.1", "192.0.2"),
            ("scheme", "basic", ""),
            ("state", "receiving", "created"),
            ("active", True, False),
        ):
            self.assertTrue(self.fits(one, **{name: good}), name)
            self.assertFalse(self.fits(one, **{name: bad}), name)

    def test_all_filters_must_fit(self) -> None:
        self.assertTrue(self.fits(record(), owner="alice", state="receiving"))
        self.assertFalse(self.fits(record(), owner="alice", state="created"))

    def test_an_empty_owner_is_an_anonymous_one(self) -> None:
        self.assertTrue(self.fits(record(owner=None), owner=""))
        self.assertFalse(self.fits(record(), owner=""))

    def test_sessions_are_idle_from_that_time_on(self) -> None:
        self.assertTrue(self.fits(record(last_progress=90.0), idle=10.0))
        self.assertFalse(self.fits(record(last_progress=90.1), idle=10.0))

    def test_texts_are_looked_for_in_any_case(self) -> None:
        one = record(15, file_name="C:\\Tag.LOG", client="192.0.2.1")
        for text in ("00f", "A/15", "tag.log", "ALICE", "2.0.2"):
            self.assertTrue(self.fits(one, text=text), text)
        for text in ("/logs", "receiving", "bob"):
            self.assertFalse(self.fits(one, text=text), text)
        self.assertFalse(self.fits(record(destination=None, owner=None), text="a"))

    def test_what_is_not_known_fits_nothing(self) -> None:
        one = record(state=None)
        for filters in ({"state": "created"}, {"client": ""}, {"scheme": ""}):
            self.assertFalse(self.fits(one, **filters))


class DirectoryTests(ViewCase):
    """The sessions of one directory."""

    def test_a_session_is_shown(self) -> None:
        manager = self.manager()
        alice = Caller(Identity("alice", "basic"), "192.0.2.1")
        made = self.successResultOf(manager.create(("a", "b.txt"), alice, "C:\\b"))
        view = self.view("/logs/", manager)
        (one,) = self.everything(view)
        self.assertEqual(
            one,
            record(
                session=str(made).upper(),
                destination="a/b.txt",
                file_name="C:\\b",
                scheme="basic",
                client="192.0.2.1",
                bytes=0,
                total=None,
                created=1_000_000.0,
                last_progress=1_000_000.0,
                state="created",
            ),
        )
        for name in (one.session, one.session.lower(), f"{{{one.session}}}"):
            self.assertEqual(self.fired(view.get(name)), one)

    def test_the_root_is_a_slash(self) -> None:
        manager = self.manager()
        self.create(manager, "a")
        self.assertEqual(self.everything(self.view("/", manager))[0].directory, "/")

    def test_an_id_that_is_none_is_no_session(self) -> None:
        view = self.view("/", self.manager())
        for call in (view.get("x"), view.get(str(uuid4()))):
            self.failureResultOf(call, NoSuchSession)
        self.failureResultOf(view.cancel("x", OPERATOR), NoSuchSession)

    def test_a_page_has_no_more_than_its_limit(self) -> None:
        manager = self.manager()
        made = {self.create(manager, f"{number}") for number in range(7)}
        view = self.view("/", manager)
        for limit in (1, 2, 3, 7, 8):
            found = self.everything(view, limit=limit)
            self.assertEqual([one.session for one in found], sorted(made))
        # That it is the last page is seen at once.
        self.assertIsNone(self.fired(view.page(EVERYTHING, None, 7)).next)

    def test_a_page_looks_at_a_limited_number_of_sessions(self) -> None:
        manager = self.manager()
        made = [self.create(manager, f"{number}") for number in range(8 * 256 + 1)]
        view = self.view("/", manager)
        filters = SessionFilter(text=max(made))
        page = self.fired(view.page(filters))
        self.assertEqual(page.sessions, ())
        self.assertIsNotNone(page.next)
        (one,) = self.everything(view, filters)
        self.assertEqual(one.session, max(made))

    def test_a_wrong_cursor_is_told(self) -> None:
        view = self.view("/", self.manager())
        self.failureResultOf(view.page(EVERYTHING, "x"), InvalidCursor)

    def test_another_directory_is_not_even_looked_at(self) -> None:
        manager = self.manager()
        self.create(manager, "a")
        view = self.view("/logs", manager)
        self.successResultOf(manager.stop())
        self.assertEqual(self.everything(view, SessionFilter(directory="/x")), [])

    def test_a_session_is_cancelled_and_shown_as_it_was(self) -> None:
        manager = self.manager()
        session = self.create(manager, "a")
        view = self.view("/", manager)
        one = self.fired(view.cancel(session, OPERATOR))
        self.assertEqual((one.session, one.state), (session, "created"))
        self.assertEqual(self.everything(view), [])
        self.failureResultOf(view.cancel(session, OPERATOR), NoSuchSession)

    def test_sessions_that_are_idle_are_purged(self) -> None:
        manager = self.manager()
        old = {self.create(manager, f"{number}") for number in range(5)}
        self.clock.advance(100)
        new = self.create(manager, "new")
        view, filters = self.view("/", manager), SessionFilter(idle=100.0)
        cursor, found = None, []
        for _ in range(3):
            purged = self.fired(view.purge(filters, OPERATOR, cursor, 2))
            cursor = purged.next
            found += purged.sessions
        self.assertIsNone(cursor)
        self.assertEqual({one.session for one in found}, old)
        self.assertEqual([one.session for one in self.everything(view)], [new])

    def test_a_purge_needs_a_time(self) -> None:
        view: Any
        for view in (
            self.view("/", self.manager()),
            CombinedSessions(dict),
            RemoteSessions(lambda _: fail(ON_FIRE)),
        ):
            self.failureResultOf(view.purge(EVERYTHING, OPERATOR), ValueError)

    def test_a_purge_tells_what_is_left(self) -> None:
        manager = self.manager()
        session = self.create(manager, "a")
        view = self.view("/", manager)
        upload: Any = manager._active.table[UUID(session)].upload
        manager._active.table[UUID(session)].upload = _Stuck(upload)
        purged = self.fired(view.purge(SessionFilter(idle=0.0), OPERATOR))
        self.assertEqual(purged.sessions, ())
        self.assertEqual(purged.faults, (f"session {session} is left: on fire",))

    def test_a_store_that_all_workers_share_is_listed_by_the_first(self) -> None:
        manager = self.manager(MemoryOfAll(self.clock))
        session = self.create(manager, "a")
        first, second = (
            DirectorySessions("/", manager, Worker(number, 2)) for number in (0, 1)
        )
        self.assertEqual([one.session for one in self.everything(first)], [session])
        self.assertEqual(self.everything(second), [])
        self.assertEqual(self.fired(second.get(session)).session, session)


@implementer(IShared)
class MemoryOfAll(MemoryBackend):
    """A store that several processes share, as far as lists go."""


class _Stuck:
    """An upload that cannot be released."""

    def __init__(self, upload: Any) -> None:
        self._upload = upload

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upload, name)

    def release(self, **_: Any) -> Deferred[None]:
        return fail(ON_FIRE)


class CombinedTests(ViewCase):
    """Several views as one."""

    def setUp(self) -> None:
        super().setUp()
        self.views: dict[str, ListView] = {
            "/b": ListView([record(n) for n in (4, 5)]),
            "/a": ListView([record(n) for n in (1, 2, 3)]),
            "/c": ListView([]),
            "/d": ListView([record(6)]),
        }
        self.combined = CombinedSessions(lambda: dict(self.views))

    def numbers(self, found: Any) -> list[int]:
        return [UUID(one.session).int for one in found]

    def test_they_are_listed_one_after_the_other(self) -> None:
        for limit in range(1, 9):
            found = self.everything(self.combined, limit=limit)
            self.assertEqual(self.numbers(found), [1, 2, 3, 4, 5, 6], limit)

    def test_cursors_are_for_urls(self) -> None:
        page = self.fired(self.combined.page(EVERYTHING, None, 2))
        self.assertRegex(page.next, "^[A-Za-z0-9_-]+$")

    def test_other_cursors_are_told(self) -> None:
        deep = urlsafe_b64encode(b"[" * 30_000).decode()
        for cursor in (
            *("x", "\u00e4", "", "WzFd", "WyJhIiwgMV0", "bnVsbA", "e30"),
            deep.rstrip("="),
        ):
            self.failureResultOf(self.combined.page(EVERYTHING, cursor), InvalidCursor)

    def test_a_list_goes_on_when_views_come_and_go(self) -> None:
        page = self.fired(self.combined.page(EVERYTHING, None, 4))
        self.assertEqual(self.numbers(page.sessions), [1, 2, 3, 4])
        del self.views["/b"]
        self.views["/bb"] = ListView([record(7)])
        self.views["/0"] = ListView([record(8)])
        page = self.fired(self.combined.page(EVERYTHING, page.next, 4))
        self.assertEqual(self.numbers(page.sessions), [7, 6])
        self.assertIsNone(page.next)
        self.views.clear()
        self.assertEqual(
            self.fired(self.combined.page(EVERYTHING, None, 4)), SessionsPage([])
        )

    def test_a_view_that_fails_is_left_out_and_told(self) -> None:
        for fault in (ON_FIRE, ServerStopping("stopping", 5)):
            self.views["/b"].fault = fault
            page = self.fired(self.combined.page(EVERYTHING))
            self.assertEqual(self.numbers(page.sessions), [1, 2, 3, 6])
            self.assertEqual(page.faults, (f"/b: {fault}",))

    def test_a_session_is_looked_for_everywhere(self) -> None:
        for number in (1, 5, 6):
            one = record(number)
            self.assertEqual(self.fired(self.combined.get(one.session)), one)
        self.failureResultOf(self.combined.get(record(9).session), NoSuchSession)

    def test_it_may_be_where_nobody_can_look(self) -> None:
        self.views["/a"].fault = ON_FIRE
        self.assertEqual(self.fired(self.combined.get(record(6).session)), record(6))
        self.failureResultOf(self.combined.get(record(9).session), BackendError)

    def test_its_owner_cancels_it(self) -> None:
        session = record(5).session
        self.fired(self.combined.cancel(session, OPERATOR))
        self.assertEqual(self.views["/b"].cancelled, [(session, OPERATOR)])
        for name in ("/a", "/c", "/d"):
            self.assertEqual(self.views[name].cancelled, [])

    def test_all_are_purged(self) -> None:
        cursor, found, faults = None, [], []
        filters = SessionFilter(idle=10.0)
        while True:
            purged = self.fired(self.combined.purge(filters, OPERATOR, cursor, 2))
            self.assertIsInstance(purged, Purged)
            found += purged.sessions
            faults += purged.faults
            cursor = purged.next
            if cursor is None:
                break
        self.assertEqual(self.numbers(found), [1, 2, 3, 4, 5, 6])
        self.assertIn("one is left", faults)


class RemoteTests(ViewCase):
    """A view in another process."""

    def setUp(self) -> None:
        super().setUp()
        self.there = ListView([record(n) for n in (1, 2, 3)])
        self.here = RemoteSessions(self.ask)

    def ask(self, question: dict[str, Any]) -> Deferred[dict[str, Any]]:
        """Ask by JSON."""
        asked = answered(self.there, json.loads(json.dumps(question)))
        return asked.addCallback(lambda answer: json.loads(json.dumps(answer)))

    def test_it_lists_as_there(self) -> None:
        found = self.everything(self.here, limit=2)
        self.assertEqual(found, self.there.sessions)
        self.assertEqual(self.everything(self.here, SessionFilter(owner="bob")), [])

    def test_it_shows_and_cancels_as_there(self) -> None:
        one = record(2)
        self.assertEqual(self.fired(self.here.get(one.session)), one)
        for operator in (
            Caller(Identity("root", "basic"), "198.51.100.1"),
            Caller("uid 0", "-"),
            Caller(None, "x"),
        ):
            self.assertEqual(self.fired(self.here.cancel(one.session, operator)), one)
            self.assertEqual(self.there.cancelled.pop(), (one.session, operator))

    def test_it_purges_as_there(self) -> None:
        purged = self.fired(self.here.purge(SessionFilter(idle=1.0), OPERATOR, None, 2))
        self.assertEqual(purged.sessions, tuple(self.there.sessions[:2]))
        self.assertEqual((purged.next, purged.faults), ("2", ("one is left",)))

    def test_it_fails_as_there(self) -> None:
        for fault in (
            ON_FIRE,
            NoSuchSession("no"),
            InvalidCursor("what?"),
            ServerStopping("stopping", 7),
        ):
            self.there.fault = fault
            error = self.failureResultOf(self.here.page(EVERYTHING)).value
            self.assertIs(type(error), type(fault))
            self.assertEqual(str(error), str(fault))
        self.assertEqual(getattr(error, "retry_after", None), 7)

    def test_any_fault_of_a_store_is_one(self) -> None:
        class Odd(BackendError):
            pass

        self.there.fault = Odd("strange")
        error = self.failureResultOf(self.here.page(EVERYTHING)).value
        self.assertIs(type(error), BackendError)

    def test_one_that_is_away_is_left_out(self) -> None:
        away = RemoteSessions(lambda _: fail(BackendError("worker 1 is restarting")))
        combined = CombinedSessions(lambda: {"000": self.here, "001": away})
        page = self.fired(combined.page(EVERYTHING))
        self.assertEqual(len(page.sessions), 3)
        self.assertEqual(page.faults, ("001: worker 1 is restarting",))


#: What happens between two pages of a list: sessions that are created, by directory
#: and id, and which of those that are there end.
HAPPENINGS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2**128 - 1)), max_size=3),
        st.lists(st.integers(0, 30), max_size=3),
        st.booleans(),
    ),
    max_size=12,
)


class PagingTests(ViewCase):
    """Sessions come and go while somebody turns the pages."""

    @settings(
        max_examples=80,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(st.integers(1, 2**128 - 1), unique=True, max_size=25),
        HAPPENINGS,
        st.integers(1, 6),
        st.sampled_from(
            [
                SessionFilter(),
                SessionFilter(owner="alice"),
                SessionFilter(directory="/1/"),
                SessionFilter(text="7", state="created"),
                SessionFilter(client="192.0.2.2"),
                SessionFilter(owner="bob", active=False, idle=0.0),
            ]
        ),
        st.booleans(),
    )
    def test_what_stays_is_listed_once(
        self,
        numbers: list[int],
        happenings: list[Any],
        limit: int,
        filters: SessionFilter,
        is_remote: bool,
    ) -> None:
        managers = []
        for _ in range(3):
            manager = self.manager()
            managers.append(manager)
        there: dict[UUID, tuple[int, str]] = {}

        def create(which: int, number: int) -> None:
            session_id = UUID(int=number)
            if session_id not in there:
                whose = "bob" if number % 3 else "alice"
                self.ids.append(session_id)
                address = "192.0.2.2" if whose == "bob" else "192.0.2.1"
                caller = Caller(whose, address)
                self.create(managers[which], f"{number}", caller)
                there[session_id] = which, whose

        def end(session_id: UUID) -> None:
            which, _ = there.pop(session_id)
            self.fired(managers[which].end_session(session_id, OPERATOR))

        for number in numbers:
            create(number % 3, number)

        def fits(session_id: UUID) -> bool:
            which, whose = there[session_id]
            name = str(session_id.int)
            return (
                filters.owner in (None, whose)
                and filters.directory in (None, f"/{which}/")
                and filters.client in (None, "192.0.2.2" if whose == "bob" else "")
                and (filters.text is None or filters.text in f"{session_id} {name}")
            )

        view: SessionsView = CombinedSessions(
            lambda: {
                f"/{n}": self.view(f"/{n}", manager)
                for n, manager in enumerate(managers)
            }
        )
        if is_remote:
            inner = view
            view = RemoteSessions(lambda question: answered(inner, question))
        staying = {one for one in there if fits(one)}
        fitting = set(staying)
        listed: list[UUID] = []
        events = iter(happenings)
        cursor: str | None = None
        while True:
            page = self.fired(view.page(filters, cursor, limit))
            listed += [UUID(one.session) for one in page.sessions]
            cursor = page.next
            if cursor is None:
                break
            made, ended, begins_another = next(events, ([], [], False))
            for which, number in made:
                create(which, number)
            for index in ended:
                if there:
                    end(sorted(there)[index % len(there)])
            if begins_another:
                self.fired(view.page(filters, None, 1))
            staying &= set(there)
            fitting |= {one for one in there if fits(one)}
        self.assertEqual(len(listed), len(set(listed)), "one was listed twice")
        self.assertLessEqual(staying, set(listed), "one was missed")
        self.assertLessEqual(set(listed), fitting)
