"""
Sessions whose packets race: what must hold whoever comes first.

Packets arrive while others are under way, bodies come in pieces or stall, every call to
the storage may be held and let go at any later time, or fail, and the server stops in
the middle. No model can say here what each packet is answered, but much about it: what
was acknowledged is there, what was released is gone, and everybody gets an answer.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from attrs import define
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
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sessions.support import ALICE, RecordingBackend, ScriptedBody, offset_of
from tests.sessions.test_model import outcome_of
from txbits.backends.memory import MemoryBackend
from txbits.errors import (
    ApplicationError,
    ApplicationRefused,
    ApplicationUnreachable,
    BackendError,
    BodyIncomplete,
    NoSuchSession,
    OutOfStep,
    ServerStopping,
    Superseded,
    TotalLengthChanged,
)
from txbits.interfaces import Answer, IWriter
from txbits.protocol.codec import ContentRange
from txbits.sessions import SessionManager, Settings
from txbits.testing import HoldableNotifier
from txbits.testing.notifiers import Asked

_TOTAL = 12
_TIMEOUT = 100.0

#: What may fail besides being held. A write or a ``close()`` that was held off
#: altogether leaves the inner writer open, which no real one does.
_MAY_FAIL = [
    *("find", "open_writer", "publish", "release", "sessions"),
    *("begin_attempt", "keep_answer"),
]
_MAY_WAIT = [*(*_MAY_FAIL, "clean_up", "close", "recalls_close", "write", "open_reply")]

_ANSWERS: list[Answer | Exception] = [
    Answer(publishes=True),
    Answer(publishes=True),
    Answer(),
    ApplicationRefused("not this one", 403),
    ApplicationRefused("not now", 503),
    ApplicationUnreachable("connection refused"),
]


@define(eq=False)
class _Upload:
    """
    What is known of a session.

    :ivar acknowledged: So many bytes were.
    :ivar begun: Whether a Fragment came.
    :ivar may_end: Whether anything came that may end it: Close, Cancel, its time.
    :ivar may_be_cancelled: The same, without Close.
    :ivar is_gone: Whether that was acknowledged.
    """

    session_id: UUID
    name: tuple[str, ...]
    source: bytes
    acknowledged: int = 0
    begun: bool = False
    may_end: bool = False
    may_be_cancelled: bool = False
    is_gone: bool = False


class RaceMachine(RuleBasedStateMachine):
    """A server that is sent everything at once."""

    @initialize(notifies=st.booleans(), at_once=st.booleans())
    def begin(self, notifies: bool, at_once: bool) -> None:
        self.application = HoldableNotifier()
        self.notifies, self.at_once = notifies, at_once
        self.clock = Clock()
        self.memory = MemoryBackend(self.clock)
        self.backend = RecordingBackend(self.memory)
        self.uploads: list[_Upload] = []
        self.bodies: list[tuple[ScriptedBody, list[bytes]]] = []
        self.unanswered = 0
        self.wrong: list[str] = []
        self.start()

    def start(self) -> None:
        self.manager = SessionManager(
            self.backend,
            Settings(
                session_timeout=_TIMEOUT,
                cleanup_interval=10 * _TIMEOUT,
                publish_on="last-fragment" if self.at_once else "close",
            ),
            self.clock,
            notifier=self.application if self.notifies else None,
        )
        assert outcome_of(self.manager.start()) is None

    def pick(self, number: int) -> _Upload:
        """One that is not known to be gone, while there are any, or one of all."""
        alive = [one for one in self.uploads if not one.is_gone]
        among = self.uploads if number == 5 or not alive else alive
        return among[-1 - number % len(among)]

    # Packets

    @precondition(lambda self: sum(not one.may_end for one in self.uploads) < 2)
    @rule()
    def create(self) -> None:
        number = len(self.uploads)
        name = (f"{number}.txt",)
        session_id = outcome_of(self.manager.create(name, ALICE, None))
        source = bytes((17 * number + n) % 256 for n in range(_TOTAL))
        self.uploads.append(_Upload(session_id, name, source))

    @precondition(lambda self: self.uploads)
    @rule(
        number=st.integers(0, 5),
        first=st.integers(0, _TOTAL - 1),
        is_next=st.booleans(),
        length=st.integers(1, _TOTAL),
        at_once=st.integers(0, _TOTAL),
        piece=st.integers(1, 5),
    )
    def fragment(
        self,
        number: int,
        first: int,
        is_next: bool,
        length: int,
        at_once: int,
        piece: int,
    ) -> None:
        upload = self.pick(number)
        if is_next:
            first, length = min(upload.acknowledged, _TOTAL - 1), _TOTAL
        data = upload.source[first : first + length]
        body = ScriptedBody()
        pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
        self.bodies.append((body, pieces))
        sent = ContentRange(first, first + len(data) - 1, _TOTAL)
        upload.begun = True
        received = self.manager.fragment(
            upload.session_id, upload.name, ALICE, sent, body
        )
        outcome = received.addCallback(offset_of)
        self.unanswered += 1
        outcome.addBoth(self.fragment_answered, upload)
        for _ in range(at_once):
            self.arrive(len(self.bodies) - 1)

    @precondition(lambda self: self.bodies)
    @rule(number=st.integers(0, 3), times=st.integers(1, _TOTAL))
    def more_of_a_body(self, number: int, times: int) -> None:
        for _ in range(times):
            self.arrive(number % len(self.bodies))

    def arrive(self, number: int) -> None:
        body, pieces = self.bodies[number]
        if pieces:
            body.send(pieces.pop(0))
        else:
            body.end()

    @precondition(lambda self: self.bodies)
    @rule(number=st.integers(0, 3))
    def a_connection_is_lost(self, number: int) -> None:
        body, _ = self.bodies.pop(number % len(self.bodies))
        body.lose()

    @precondition(lambda self: self.uploads)
    @rule(number=st.integers(0, 5))
    def close(self, number: int) -> None:
        upload = self.pick(number)
        must_publish = upload.acknowledged == _TOTAL and not upload.may_end
        upload.may_end = True
        outcome = self.manager.close(upload.session_id, upload.name, ALICE)
        self.unanswered += 1
        outcome.addBoth(self.close_answered, upload, must_publish)

    @precondition(lambda self: self.asked)
    @rule(
        number=st.integers(0, 3), answer=st.sampled_from(_ANSWERS), writes=st.booleans()
    )
    def the_application_answers(
        self, number: int, answer: Answer | Exception, writes: bool
    ) -> None:
        asked = self.asked[number % len(self.asked)]
        if writes:
            self.write_reply(asked)
        if isinstance(answer, Exception):
            asked.fail(answer)
        else:
            asked.answer(answer)

    def write_reply(self, asked: Asked) -> None:
        """Some of it: nobody waits, so that the answer may come before the end."""

        def write(writer: IWriter) -> Deferred[None]:
            return writer.write(b"well done")

        opening = asked.reply.open()
        opening.addCallback(write)
        opening.addErrback(lambda failure: failure.trap(BackendError))

    @property
    def asked(self) -> list[Asked]:
        """The applications that have not answered yet."""
        return [one for one in self.application.asked if one.is_waiting]

    @precondition(lambda self: self.uploads)
    @rule(number=st.integers(0, 5))
    def cancel(self, number: int) -> None:
        upload = self.pick(number)
        upload.may_end = upload.may_be_cancelled = True
        outcome = self.manager.cancel(upload.session_id, upload.name, ALICE)
        self.unanswered += 1
        outcome.addBoth(self.cancel_answered, upload)

    # Answers. A Deferred swallows what is raised here, so it is collected.

    def expect(self, is_so: bool, what: str, *about: Any) -> None:
        if not is_so:
            self.wrong.append(f"{what}: {about}")

    def fragment_answered(self, outcome: Any, upload: _Upload) -> None:
        self.unanswered -= 1
        if isinstance(outcome, int):
            upload.acknowledged = max(upload.acknowledged, outcome)
        elif isinstance(outcome.value, OutOfStep):
            self.expect(
                outcome.value.offset >= upload.acknowledged,
                "acknowledged bytes are wanted again",
                outcome,
            )
        elif isinstance(outcome.value, TotalLengthChanged):
            # A Close that came before any Fragment says that the file is empty.
            self.expect(upload.may_end, "the total has not changed", outcome)
        else:
            self.failed(outcome, upload, BodyIncomplete, ApplicationError)

    def close_answered(self, outcome: Any, upload: _Upload, must_publish: bool) -> None:
        self.unanswered -= 1
        if outcome is not None:
            self.failed(outcome, upload, Superseded, ApplicationError)
            return
        self.gone(upload)
        if must_publish and not upload.may_be_cancelled and not self.notifies:
            self.expect(
                self.memory.files.get(upload.name) == upload.source,
                "closed, and not published",
                upload,
            )

    def cancel_answered(self, outcome: Any, upload: _Upload) -> None:
        self.unanswered -= 1
        if outcome is not None:
            self.failed(outcome, upload)
            return
        self.gone(upload)
        self.expect(
            upload.name not in self.memory.files or self.at_once,
            "cancelled, and published",
            upload,
        )
        self.expect(
            all(
                one.upload.session.session_id != upload.session_id for one in self.asked
            ),
            "cancelled, and still asked about",
            upload,
        )

    def gone(self, upload: _Upload) -> None:
        upload.is_gone = True
        self.expect(
            upload.session_id not in self.sessions(), "something is left", upload
        )

    def failed(self, failure: Failure, upload: _Upload, *more: type[Exception]) -> None:
        error = failure.value
        self.expect(
            isinstance(error, (BackendError, ServerStopping, *more)),
            "an error that nobody foresaw",
            failure.getTraceback(),
        )
        if type(error) is BackendError:
            self.expect(
                str(error) in _MAY_FAIL, "a call that should not have been made", error
            )
        if isinstance(error, NoSuchSession):
            self.expect(upload.may_end, "a session is unknown that nobody ended", error)

    # What happens besides

    @rule(operations=st.sets(st.sampled_from(_MAY_WAIT), min_size=1))
    def storage_is_slow(self, operations: set[str]) -> None:
        # What waits already, waits on.
        for operation in operations:
            self.backend.hold(operation)

    @rule(operation=st.sampled_from(_MAY_WAIT))
    def storage_goes_on(self, operation: str) -> None:
        self.backend.hold(operation).open()

    @rule(operation=st.sampled_from(_MAY_FAIL))
    def storage_breaks(self, operation: str) -> None:
        self.backend.hold(operation).fail(BackendError(operation))

    @rule(timeouts=st.sampled_from([0.5, 0.5, 0.5, 1.5, 11]))
    def time_passes(self, timeouts: float) -> None:
        for upload in self.uploads:
            upload.may_end = upload.may_be_cancelled = True
        self.clock.advance(timeouts * _TIMEOUT)

    @rule(is_repaired_first=st.booleans())
    def restart(self, is_repaired_first: bool) -> None:
        """Whatever is under way, the server stops when storage lets it."""
        if is_repaired_first:
            self.all_storage_goes_on()
        stopping = self.manager.stop()
        self.all_storage_goes_on()
        assert outcome_of(stopping) is None
        assert self.unanswered == 0
        self.bodies.clear()
        self.start()

    @invariant()
    def nobody_is_asked_twice_at_once(self) -> None:
        ids = [one.upload.session.session_id for one in self.asked]
        assert len(ids) == len(set(ids))

    @invariant()
    def attempts_are_counted(self) -> None:
        for upload in self.uploads:
            attempts = [
                one.upload.attempt
                for one in self.application.asked
                if one.upload.session.session_id == upload.session_id
            ]
            assert attempts == sorted(set(attempts))

    def all_storage_goes_on(self) -> None:
        for operation in _MAY_WAIT:
            self.backend.hold(operation).open()

    # What must be

    def sessions(self) -> set[UUID]:
        return {one.session_id for one in outcome_of(self.memory.sessions())}

    @invariant()
    def nobody_was_told_what_is_wrong(self) -> None:
        assert not self.wrong, self.wrong

    @invariant()
    def acknowledged_bytes_are_there(self) -> None:
        sessions = self.sessions()
        for upload in self.uploads:
            if not upload.may_end:
                assert upload.session_id in sessions
            if upload.session_id in sessions:
                found: Any = outcome_of(self.memory.find(upload.session_id))
                assert found.offset >= upload.acknowledged
                if not found.published:
                    assert found._joined() == upload.source[: found.offset]

    @invariant()
    def files_are_whole(self) -> None:
        for upload in self.uploads:
            published = self.memory.files.get(upload.name)
            if upload.begun:
                # One that came too late does not change that the file was empty.
                assert published in (None, b"", upload.source)
            else:
                assert published in (None, b"")

    @invariant()
    def what_is_gone_stays_gone(self) -> None:
        sessions = self.sessions()
        for upload in self.uploads:
            assert not (upload.is_gone and upload.session_id in sessions)

    def teardown(self) -> None:
        """When storage works and no body comes any more, everybody gets an answer."""
        self.all_storage_goes_on()
        for body, _ in self.bodies:
            body.lose()
        # The next may be asked when an earlier one has answered.
        while self.asked:
            self.asked[0].answer(Answer(publishes=True))
        assert self.unanswered == 0
        for upload in self.uploads:
            outcome = outcome_of(
                self.manager.cancel(upload.session_id, upload.name, ALICE)
            )
            assert outcome is None or isinstance(outcome, NoSuchSession), outcome
        assert self.sessions() == set()
        self.nobody_was_told_what_is_wrong()
        self.files_are_whole()


class RaceTests(SynchronousTestCase):
    """Trial runs no machines of hypothesis by itself."""

    def test_whoever_comes_first_nothing_is_lost_and_nothing_is_left(self) -> None:
        run_state_machine_as_test(
            RaceMachine, settings=settings(max_examples=150, stateful_step_count=50)
        )
        # The clean-up logs what it could not release.
        self.flushLoggedErrors(BackendError)
