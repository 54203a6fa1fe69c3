"""
Sessions against a model: packets of all kinds in any order, and what must come of them.

The packets come one after the other here, so the model, ``Upload``, can say what each
of them is answered: bodies are cut short or too long, storage breaks and is repaired,
time passes, an application answers this or that, the server restarts with other
settings. What several packets at once may do is in ``test_races``.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.sessions.model import LONGEST_FRAGMENT, TIMEOUT, TOTAL, Store, Upload
from tests.sessions.support import (
    ALICE,
    ANYONE,
    BOB,
    RecordingBackend,
    ScriptedBody,
    offset_of,
)
from txbits.backends.memory import MemoryBackend
from txbits.errors import (
    ApplicationError,
    ApplicationRefused,
    ApplicationUnreachable,
    BackendError,
    DestinationExists,
    NoSuchSession,
    PolicyError,
    SessionError,
    SessionLimitReached,
)
from txbits.interfaces import (
    Answer,
    CompleteUpload,
    INotifier,
    IReadable,
    IReply,
)
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller, SessionManager, Settings

_LIMIT = 3
_INTERVAL = 1000.0
_NUMBERS = st.integers(0, 5)
_NAMES = [("a",), ("b", "c")]


def outcome_of(deferred: Deferred[Any]) -> Any:
    """What a Deferred has fired with, or the exception."""
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    assert outcome, "it has not fired"
    return outcome[0].value if isinstance(outcome[0], Failure) else outcome[0]


@implementer(INotifier)
class Application:
    """
    A server application that does at once what the model says.

    :ivar attempts: The numbers of the attempts that it saw, by session.
    """

    needs = frozenset({IReadable})

    def __init__(self, store: Store) -> None:
        self.store = store
        self.attempts: dict[UUID, list[int]] = {}
        self.wrong: list[str] = []

    def notify(self, upload: CompleteUpload, reply: IReply) -> Deferred[Answer]:
        stored: Any = upload.session
        data = stored._joined()
        if upload.sha256 != sha256(data).digest():
            self.wrong.append(f"the digest of {data!r} is another one")
        self.attempts.setdefault(stored.session_id, []).append(upload.attempt)
        if isinstance(self.store.plan, Exception):
            return fail(self.store.plan)
        return succeed(self.store.plan)


_PLANS = [
    Answer(publishes=True),
    Answer(publishes=True),
    Answer(status=204),
    Answer(status=403),
    ApplicationRefused("not this one", 403),
    ApplicationRefused("not now", 503),
    ApplicationUnreachable("connection refused"),
]


class SessionMachine(RuleBasedStateMachine):
    """A server that is sent one packet after the other."""

    @initialize(notifies=st.booleans(), at_once=st.booleans())
    def begin(self, notifies: bool, at_once: bool) -> None:
        self.clock = Clock()
        self.memory = MemoryBackend(self.clock)
        self.backend = RecordingBackend(self.memory)
        self.store = Store(notifies=notifies, at_once=at_once)
        self.application = Application(self.store)
        self.known: list[Upload] = []
        self.start()

    def start(self) -> None:
        self.since_start: list[Upload] = []
        self.manager = SessionManager(
            self.backend,
            Settings(
                session_timeout=TIMEOUT,
                cleanup_interval=_INTERVAL,
                session_limit=_LIMIT,
                max_upload_size=TOTAL,
                max_fragment_size=LONGEST_FRAGMENT,
                publish_on="last-fragment" if self.store.at_once else "close",
            ),
            self.clock,
            notifier=self.application if self.store.notifies else None,
        )
        self.started = self.store.now
        assert outcome_of(self.manager.start()) is None
        self.clean_up()

    def clean_up(self) -> None:
        for upload in self.known:
            upload.clean_up()
            upload.forget()

    def agree(
        self, actual: Deferred[Any], model: Callable[..., Any], *args: Any
    ) -> Any:
        """What came of a packet is what the model says."""
        outcome = outcome_of(actual)
        try:
            expected = model(*args)
        except (ApplicationError, BackendError, PolicyError, SessionError) as error:
            assert type(outcome) is type(error), (outcome, error)
            for name in ("offset", "status"):
                assert getattr(outcome, name, None) == getattr(error, name, None)
        else:
            assert outcome == expected, (outcome, expected)
        return outcome

    # Packets

    @rule(
        name=st.sampled_from(_NAMES),
        caller=st.sampled_from([ALICE, BOB, ANYONE]),
    )
    def create(self, name: tuple[str, ...], caller: Caller) -> None:
        outcome = outcome_of(self.manager.create(name, caller, None))
        number = sum(
            one.caller == caller
            and one.state != "gone"
            # The addresses of anonymous clients are not stored.
            and (caller.user is not None or one in self.since_start)
            for one in self.known
        )
        if number >= _LIMIT:
            assert isinstance(outcome, SessionLimitReached)
        elif name in self.store.files:
            assert isinstance(outcome, DestinationExists)
        else:
            source = bytes((17 * len(self.known) + n) % 256 for n in range(TOTAL))
            upload = Upload(outcome, name, caller, source, self.store, self.store.now)
            self.known.append(upload)
            self.since_start.append(upload)

    def pick(self, number: int) -> Upload:
        """One that is alive, while there are any, but now and then one that is not."""
        alive = [one for one in self.known if one.state != "gone"]
        among = self.known if number == 5 or not alive else alive
        return among[-1 - number % len(among)]

    @precondition(lambda self: self.known)
    @rule(
        number=_NUMBERS,
        fragments=st.lists(
            st.tuples(st.integers(0, 4), st.integers(1, LONGEST_FRAGMENT)),
            min_size=1,
            max_size=4,
        ),
        difference=st.sampled_from([0, 0, 0, 0, -1, -4, 1, 5]),
        pieces=st.integers(1, 4),
    )
    def next_fragments(
        self,
        number: int,
        fragments: list[tuple[int, int]],
        difference: int,
        pieces: int,
    ) -> None:
        """As a client sends them; connections and Acks get lost, proxies add bytes."""
        upload = self.pick(number)
        for back, length in fragments:
            first = max(0, min(upload.held, TOTAL - 1) - back)
            sent = ContentRange(first, min(first + length, TOTAL) - 1, TOTAL)
            self.send(upload, sent, difference, difference >= 0, pieces)

    @precondition(lambda self: self.known)
    @rule(
        number=_NUMBERS,
        first=st.integers(0, TOTAL - 1),
        length=st.integers(1, TOTAL),
        total=st.sampled_from([TOTAL] * 4 + [TOTAL - 1, TOTAL + 1, 0]),
        difference=st.sampled_from([0] * 4 + [-3, -1, 1, 5]),
        is_whole=st.sampled_from([True] * 3 + [False]),
        pieces=st.integers(1, 4),
    )
    def fragment(
        self,
        number: int,
        first: int,
        length: int,
        total: int,
        difference: int,
        is_whole: bool,
        pieces: int,
    ) -> None:
        """As nobody should send them."""
        if total == 0:
            sent = ContentRange.empty()
        else:
            first = min(first, total - 1)
            sent = ContentRange(first, min(first + length, total) - 1, total)
        self.send(self.pick(number), sent, difference, is_whole, pieces)

    def send(
        self,
        upload: Upload,
        sent: ContentRange,
        difference: int,
        is_whole: bool,
        pieces: int,
    ) -> None:
        data = (upload.source + b"beyond the file")[sent.first :]
        data = data[: max(0, sent.length + difference)]
        body = ScriptedBody()
        for at in range(0, len(data), pieces):
            body.send(data[at : at + pieces])
        (body.end if is_whole else body.lose)()
        outcome = self.manager.fragment(
            upload.session_id, upload.name, upload.caller, sent, body
        )
        self.agree(
            outcome.addCallback(offset_of), upload.fragment, sent, len(data), is_whole
        )

    @precondition(lambda self: self.known)
    @rule(number=_NUMBERS)
    def close(self, number: int) -> None:
        upload = self.pick(number)
        outcome = self.manager.close(upload.session_id, upload.name, upload.caller)
        self.agree(outcome, upload.close)

    @precondition(lambda self: self.known)
    @rule(number=_NUMBERS)
    def cancel(self, number: int) -> None:
        upload = self.pick(number)
        outcome = self.manager.cancel(upload.session_id, upload.name, upload.caller)
        self.agree(outcome, upload.cancel)

    @precondition(lambda self: self.known)
    @rule(
        number=_NUMBERS,
        kind=st.sampled_from(["fragment", "close", "cancel"]),
        is_other_name=st.booleans(),
    )
    def stranger(self, number: int, kind: str, is_other_name: bool) -> None:
        upload = self.pick(number)
        name, caller = upload.name, upload.caller
        if is_other_name:
            name = ("other",)
        else:
            caller = Caller("mallory")
        more: Any = ()
        if kind == "fragment":
            more = (ContentRange(0, 0, TOTAL), ScriptedBody())
        outcome = getattr(self.manager, kind)(upload.session_id, name, caller, *more)
        assert isinstance(outcome_of(outcome), NoSuchSession)

    # What happens besides

    @precondition(lambda self: not self.store.broken)
    @rule(
        operation=st.sampled_from(
            [
                *("open_writer", "write", "publish", "release"),
                *("begin_attempt", "keep_answer"),
            ]
        )
    )
    def storage_breaks(self, operation: str) -> None:
        self.backend.hold(operation).fail(BackendError(operation))
        self.store.broken |= {operation}

    @rule()
    def repair(self) -> None:
        for operation in self.store.broken:
            self.backend.hold(operation).open()
        self.store.broken = frozenset()

    @rule(seconds=st.sampled_from([1, 5, 10, 20, 40, 60, 101, 1000, 90_000]))
    def time_passes(self, seconds: int) -> None:
        before = (self.store.now - self.started) // _INTERVAL
        self.store.now += seconds
        self.clock.advance(seconds)
        if (self.store.now - self.started) // _INTERVAL > before:
            self.clean_up()

    @rule(plan=st.sampled_from(_PLANS))
    def the_application_changes_its_mind(self, plan: Answer | Exception) -> None:
        self.store.plan = plan

    @rule(notifies=st.booleans(), at_once=st.booleans())
    def restart(self, notifies: bool, at_once: bool) -> None:
        assert outcome_of(self.manager.stop()) is None
        self.store.notifies, self.store.at_once = notifies, at_once
        for upload in self.known:
            upload.restart()
        self.start()

    @rule(name=st.sampled_from(_NAMES))
    def somebody_takes_a_file_away(self, name: tuple[str, ...]) -> None:
        self.store.files.pop(name, None)
        self.memory.files.pop(name, None)

    # What must be

    def sessions(self) -> set[UUID]:
        return {one.session_id for one in outcome_of(self.memory.sessions())}

    @invariant()
    def the_files_are_those_that_were_published(self) -> None:
        assert self.memory.files == self.store.files

    @invariant()
    def nothing_is_left_of_sessions_that_are_gone(self) -> None:
        expected = {one.session_id for one in self.known if one.state != "gone"}
        assert self.sessions() == expected

    @invariant()
    def the_application_is_asked_as_often_as_the_model_says(self) -> None:
        for upload in self.known:
            seen = self.application.attempts.get(upload.session_id, [])
            assert seen == list(range(1, upload.attempts + 1))
        assert self.application.wrong == []

    @invariant()
    def the_bytes_held_are_a_prefix_of_the_source(self) -> None:
        for upload in self.known:
            if upload.is_published:
                continue
            if upload.state in ("open", "discarding", "cancelling"):
                found: Any = outcome_of(self.memory.find(upload.session_id))
                assert (found.offset, found.total) == (upload.held, upload.total)
                assert found._joined() == upload.source[: upload.held]

    def teardown(self) -> None:
        """Whatever has happened, every session can be got rid of."""
        self.repair()
        for upload in self.known:
            outcome = self.manager.cancel(upload.session_id, upload.name, upload.caller)
            self.agree(outcome, upload.cancel)
        assert self.sessions() == set()


class ModelTests(SynchronousTestCase):
    """Trial runs no machines of hypothesis by itself."""

    def test_packets_in_any_order_do_what_the_model_says(self) -> None:
        run_state_machine_as_test(
            SessionMachine, settings=settings(max_examples=200, stateful_step_count=40)
        )
        # The clean-up logs what it could not release.
        self.flushLoggedErrors(BackendError)
