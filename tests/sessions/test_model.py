"""
Sessions against a model: packets of all kinds in any order, and what must come of them.

The packets come one after the other here, so the model, ``_Upload``, can say what each
of them is answered: bodies are cut short or too long, storage breaks and is repaired,
time passes, the server restarts. What several packets at once may do is in
``test_races``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sessions.support import ALICE, ANYONE, BOB, LastingBackend, ScriptedBody
from txbits.backends.memory import MemoryBackend
from txbits.errors import (
    BackendError,
    BodyIncomplete,
    BodyMismatch,
    DestinationExists,
    FragmentTooLarge,
    NoSuchSession,
    OutOfStep,
    SessionLimitReached,
    TotalLengthChanged,
    UploadTooLarge,
)
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller, SessionManager, Settings
from txbits.sessions.settings import CLOSE_MEMORY

_TOTAL = 12
_FRAGMENT = 9
_LIMIT = 3
_TIMEOUT = 100.0
_INTERVAL = 1000.0
_NAMES = [("a",), ("b", "c")]


def outcome_of(deferred: Deferred[Any]) -> Any:
    """What a Deferred has fired with, or the exception."""
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    assert outcome, "it has not fired"
    return outcome[0].value if isinstance(outcome[0], Failure) else outcome[0]


@define(eq=False)
class _Store:
    """What the model knows of the storage: what is broken, and the files."""

    now: float = 0.0
    broken: frozenset[str] = frozenset()
    files: dict[tuple[str, ...], bytes] = {}  # noqa: RUF008 - replaced at once

    def needs(self, operation: str) -> None:
        if operation in self.broken:
            raise BackendError(operation)


@define(eq=False)
class _Upload:
    """
    What the model knows of a session.

    :ivar state: ``open``, ``published``, ``discarding``, ``cancelling`` or ``gone``.
    :ivar begun: Whether a Fragment came.
    :ivar releasing: Whether the storage knows that its release has begun.
    :ivar remembered: When its Close was last remembered.
    """

    session_id: UUID
    name: tuple[str, ...]
    caller: Caller
    source: bytes
    store: _Store
    progress: float
    total: int | None = None
    held: int = 0
    state: str = "open"
    begun: bool = False
    releasing: bool = False
    remembered: float | None = None

    @property
    def is_expired(self) -> bool:
        return self.store.now - self.progress > _TIMEOUT

    def found(self) -> None:
        if self.state != "gone" and self.is_expired:
            self.release_all()
        if self.state == "gone":
            raise NoSuchSession

    def fragment(self, sent: ContentRange, bytes_sent: int, is_whole: bool) -> int:
        self.found()
        if self.state != "open":
            raise NoSuchSession
        self.begun = True
        if self.total not in (None, sent.total):
            raise TotalLengthChanged
        if sent.first > self.held:
            raise OutOfStep("", self.held)
        if sent.total > _TOTAL:
            raise UploadTooLarge
        if sent.length > _FRAGMENT:
            raise FragmentTooLarge
        if self.held != self.total:
            self.store.needs("open_writer")
            self.total = sent.total
            reached = sent.first + min(bytes_sent, sent.length)
            if reached > self.held:
                self.store.needs("write")
                self.held, self.progress = reached, self.store.now
        if not is_whole:
            raise BodyIncomplete
        if bytes_sent != sent.length:
            raise BodyMismatch
        return self.held

    def close(self) -> None:
        try:
            self.found()
            if self.state == "cancelling":
                raise NoSuchSession
            if self.state == "open" and (self.held == self.total or not self.begun):
                self.publish()
            elif self.state == "open":
                self.state = "discarding"
            self.remember()
            self.release()
        except NoSuchSession:
            if self.remembered is None:
                raise
            if self.state != "gone":
                self.release()

    def publish(self) -> None:
        if self.total is None:
            self.store.needs("open_writer")
            self.total, self.begun = 0, True
        self.store.needs("publish")
        if self.name in self.store.files:
            raise DestinationExists
        self.store.files[self.name] = self.source[: self.total]
        self.state = "published"

    def cancel(self) -> None:
        self.found()
        was_published = self.state == "published"
        self.release_all()
        if was_published:
            raise NoSuchSession

    def release_all(self) -> None:
        """Released as by Cancel; a file that stands is closed first."""
        if self.state == "published":
            self.remember()
        else:
            self.state = "cancelling"
        self.release()

    def remember(self) -> None:
        self.store.needs("remember_close")
        self.remembered = self.store.now

    def release(self) -> None:
        self.releasing = True
        self.store.needs("release")
        self.state = "gone"

    def restart(self) -> None:
        """What the process knew is gone; what the storage knows is left."""
        self.begun = self.total is not None
        if self.state in ("discarding", "cancelling"):
            self.state = "cancelling" if self.releasing else "open"

    def clean_up(self) -> None:
        if self.state != "gone" and (self.releasing or self.is_expired):
            try:
                self.release_all()
            except BackendError:
                return

    def forget(self) -> None:
        if self.remembered is not None and (
            self.remembered < self.store.now - CLOSE_MEMORY
        ):
            self.remembered = None


class SessionMachine(RuleBasedStateMachine):
    """A server that is sent one packet after the other."""

    uploads: Bundle[_Upload] = Bundle("uploads")

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.memory = MemoryBackend(self.clock)
        self.backend = LastingBackend(self.memory)
        self.store = _Store(files={})
        self.known: list[_Upload] = []
        self.start()

    def start(self) -> None:
        self.manager = SessionManager(
            self.backend,
            Settings(
                session_timeout=_TIMEOUT,
                cleanup_interval=_INTERVAL,
                session_limit=_LIMIT,
                max_upload_size=_TOTAL,
                max_fragment_size=_FRAGMENT,
            ),
            self.clock,
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
        except Exception as error:
            assert type(outcome) is type(error), (outcome, error)
            if isinstance(error, OutOfStep):
                assert outcome.offset == error.offset
        else:
            assert outcome == expected, (outcome, expected)
        return outcome

    # Packets

    @rule(
        target=uploads,
        name=st.sampled_from(_NAMES),
        caller=st.sampled_from([ALICE, BOB, ANYONE]),
    )
    def create(self, name: tuple[str, ...], caller: Caller) -> Any:
        outcome = outcome_of(self.manager.create(name, caller, None))
        number = sum(one.caller == caller and one.state != "gone" for one in self.known)
        if caller.user is not None and number >= _LIMIT:
            assert isinstance(outcome, SessionLimitReached)
        elif name in self.store.files:
            assert isinstance(outcome, DestinationExists)
        else:
            source = bytes((17 * len(self.known) + n) % 256 for n in range(_TOTAL))
            upload = _Upload(outcome, name, caller, source, self.store, self.store.now)
            self.known.append(upload)
            return upload
        return multiple()

    @rule(
        upload=uploads,
        first=st.integers(0, _TOTAL - 1),
        length=st.integers(1, _TOTAL),
        is_next=st.booleans(),
        total=st.sampled_from([_TOTAL] * 8 + [_TOTAL - 1, _TOTAL + 1, 0]),
        difference=st.sampled_from([0] * 8 + [-3, -1, 1, 5]),
        is_whole=st.sampled_from([True] * 3 + [False]),
        pieces=st.integers(1, 4),
    )
    def fragment(
        self,
        upload: _Upload,
        first: int,
        length: int,
        is_next: bool,
        total: int,
        difference: int,
        is_whole: bool,
        pieces: int,
    ) -> None:
        if is_next and upload.held < _TOTAL:
            # Or few would ever be complete.
            first, length = upload.held, min(_TOTAL - upload.held, _FRAGMENT)
        if total == 0:
            sent = ContentRange.empty()
        else:
            first = min(first, total - 1)
            sent = ContentRange(first, min(first + length, total) - 1, total)
        data = (upload.source + b"beyond the file")[sent.first :]
        data = data[: max(0, sent.length + difference)]
        body = ScriptedBody()
        for at in range(0, len(data), pieces):
            body.send(data[at : at + pieces])
        (body.end if is_whole else body.lose)()
        outcome = self.manager.fragment(
            upload.session_id, upload.name, upload.caller, sent, body
        )
        self.agree(outcome, upload.fragment, sent, len(data), is_whole)

    @rule(upload=uploads)
    def close(self, upload: _Upload) -> None:
        outcome = self.manager.close(upload.session_id, upload.name, upload.caller)
        self.agree(outcome, upload.close)

    @rule(upload=uploads)
    def cancel(self, upload: _Upload) -> None:
        outcome = self.manager.cancel(upload.session_id, upload.name, upload.caller)
        self.agree(outcome, upload.cancel)

    @rule(upload=consumes(uploads))
    def close_until_it_is_closed(self, upload: _Upload) -> None:
        """Its client is then sure, and sends nothing more."""
        self.repair()
        outcome = self.manager.close(upload.session_id, upload.name, upload.caller)
        if self.agree(outcome, upload.close) is None:
            assert upload.session_id not in self.sessions()

    @rule(
        upload=uploads,
        kind=st.sampled_from(["fragment", "close", "cancel"]),
        is_other_name=st.booleans(),
    )
    def stranger(self, upload: _Upload, kind: str, is_other_name: bool) -> None:
        name, caller = upload.name, upload.caller
        if is_other_name:
            name = ("other",)
        else:
            caller = Caller("mallory")
        more: Any = ()
        if kind == "fragment":
            more = (ContentRange(0, 0, _TOTAL), ScriptedBody())
        outcome = getattr(self.manager, kind)(upload.session_id, name, caller, *more)
        assert isinstance(outcome_of(outcome), NoSuchSession)

    # What happens besides

    @rule(
        operation=st.sampled_from(
            ["open_writer", "write", "publish", "remember_close", "release"]
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

    @rule(seconds=st.sampled_from([1, 40, 101, 1000, 90_000]))
    def time_passes(self, seconds: int) -> None:
        before = (self.store.now - self.started) // _INTERVAL
        self.store.now += seconds
        self.clock.advance(seconds)
        if (self.store.now - self.started) // _INTERVAL > before:
            self.clean_up()

    @rule()
    def restart(self) -> None:
        assert outcome_of(self.manager.stop()) is None
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
    def the_bytes_held_are_a_prefix_of_the_source(self) -> None:
        for upload in self.known:
            if upload.state in ("open", "discarding", "cancelling"):
                found: Any = outcome_of(self.memory.find(upload.session_id))
                assert (found.offset, found.total) == (upload.held, upload.total)
                assert found._joined() == upload.source[: upload.held]

    def teardown(self) -> None:
        """Whatever has happened, every session can be got rid of."""
        self.repair()
        for upload in self.known:
            self.cancel(upload)
        assert self.sessions() == set()


class ModelTests(SynchronousTestCase):
    """Trial runs no machines of hypothesis by itself."""

    def test_packets_in_any_order_do_what_the_model_says(self) -> None:
        run_state_machine_as_test(
            SessionMachine, settings=settings(max_examples=150, stateful_step_count=40)
        )
        # The clean-up logs what it could not release.
        self.flushLoggedErrors(BackendError)
