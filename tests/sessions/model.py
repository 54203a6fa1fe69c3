"""
What the tests of ``test_model`` know of sessions, and of the storage below them.

An ``Upload`` is told of the packets that are sent, one after the other, and says what
each of them is answered. It knows the rules of the protocol by a few facts, and neither
the life-cycle nor the manager.
"""

from __future__ import annotations

from uuid import UUID

from attrs import define, field

from txbits.errors import (
    ApplicationRefused,
    BackendError,
    BodyIncomplete,
    BodyMismatch,
    DestinationExists,
    FragmentTooLarge,
    NoSuchSession,
    OutOfStep,
    TotalLengthChanged,
    UploadTooLarge,
)
from txbits.interfaces import Answer
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller
from txbits.sessions.settings import CLOSE_MEMORY

#: The length of every file, but that of the empty one; none may be longer.
TOTAL = 12
LONGEST_FRAGMENT = 9
TIMEOUT = 100.0


@define(eq=False)
class Store:
    """
    What the model knows of the storage, and of what is around it.

    :ivar broken: What fails.
    :ivar files: What is published.
    :ivar at_once: Whether files are published at the last fragment.
    :ivar notifies: Whether there is a server application.
    :ivar plan: What that would answer, or fail with.
    """

    now: float = 0.0
    broken: frozenset[str] = frozenset()
    files: dict[tuple[str, ...], bytes] = field(factory=dict)
    at_once: bool = False
    notifies: bool = False
    plan: Answer | Exception = field(factory=lambda: Answer(publishes=True))

    def needs(self, operation: str) -> None:
        if operation in self.broken:
            raise BackendError(operation)


@define(eq=False)
class Upload:
    """
    What the model knows of a session.

    :ivar state: ``open``, ``standing``, ``published``, ``discarding``, ``cancelling``
        or ``gone``.
    :ivar begun: Whether a Fragment came.
    :ivar answer: What the application answered for good.
    :ivar attempts: How often it was asked.
    :ivar is_published: Whether the file stands, or stood.
    :ivar releasing: Whether the storage knows that its release has begun.
    :ivar remembered: When its Close was last remembered.
    """

    session_id: UUID
    name: tuple[str, ...]
    caller: Caller
    source: bytes
    store: Store
    progress: float
    total: int | None = None
    held: int = 0
    state: str = "open"
    begun: bool = False
    answer: Answer | None = None
    attempts: int = 0
    is_published: bool = False
    releasing: bool = False
    remembered: float | None = None

    @property
    def is_expired(self) -> bool:
        return self.store.now - self.progress > TIMEOUT

    def found(self) -> None:
        if self.state != "gone" and self.is_expired:
            self.run_out()
        if self.state == "gone":
            raise NoSuchSession

    def fragment(self, sent: ContentRange, bytes_sent: int, is_whole: bool) -> int:
        self.found()
        if self.state not in ("open", "standing"):
            raise NoSuchSession
        self.begun = True
        if self.total not in (None, sent.total):
            raise TotalLengthChanged
        if sent.first > self.held:
            raise OutOfStep("", self.held)
        if sent.total > TOTAL:
            raise UploadTooLarge
        if sent.length > LONGEST_FRAGMENT:
            raise FragmentTooLarge
        if self.held == self.total:
            self.must_be_wanted()
        else:
            self.store.needs("open_writer")
            self.total = sent.total
            reached = sent.first + min(bytes_sent, sent.length)
            if reached > self.held:
                self.store.needs("write")
                self.held, self.progress = reached, self.store.now
        if not is_whole and bytes_sent <= sent.length:
            raise BodyIncomplete
        if bytes_sent != sent.length:
            raise BodyMismatch
        if self.held == self.total and self.state == "open":
            self.ask()
            if self.store.at_once and not self.is_taken:
                self.publish()
        return self.held

    @property
    def is_taken(self) -> bool:
        return self.answer is not None and not self.answer.publishes

    def must_be_wanted(self) -> None:
        if self.answer is not None and self.answer.status == 403:
            raise ApplicationRefused("", 403)

    def ask(self) -> None:
        """Have an answer, where there is an application."""
        if self.store.notifies and self.answer is None:
            self.store.needs("begin_attempt")
            self.attempts += 1
            answer = self.store.plan
            if isinstance(answer, ApplicationRefused) and answer.status == 403:
                answer = Answer(status=403)
            if isinstance(answer, Exception):
                raise answer
            self.store.needs("keep_answer")
            self.answer = answer
        self.must_be_wanted()

    def close(self) -> None:
        try:
            self.found()
            if self.state == "cancelling":
                raise NoSuchSession
            if self.state == "open" and (self.held == self.total or not self.begun):
                self.complete()
                if self.is_taken:
                    self.state = "discarding"
                else:
                    self.publish()
            elif self.state == "open":
                self.state = "discarding"
            if self.state == "standing":
                self.state = "published"
            self.release(remember=True)
        except NoSuchSession:
            if self.remembered is None:
                raise

    def complete(self) -> None:
        if self.total is None:
            self.store.needs("open_writer")
            self.total, self.begun = 0, True
        self.ask()

    def publish(self) -> None:
        self.store.needs("publish")
        if self.name in self.store.files:
            raise DestinationExists
        self.store.files[self.name] = self.source[: self.total]
        self.state = "standing" if self.store.at_once else "published"
        self.is_published = True

    def cancel(self) -> None:
        self.found()
        was_published = self.state == "published"
        self.release_all()
        if was_published:
            raise NoSuchSession

    def release_all(self) -> None:
        """Released as by Cancel; a file that stands is closed first."""
        is_closed = self.state == "published"
        if not is_closed:
            self.state = "cancelling"
        self.release(remember=is_closed)

    def run_out(self) -> None:
        """Released since its time is out; a file that stands has been uploaded."""
        if self.state == "standing":
            self.state = "published"
        self.release_all()

    def release(self, *, remember: bool) -> None:
        self.releasing = self.releasing or not remember
        self.store.needs("release")
        if remember:
            self.remembered = self.store.now
        self.state = "gone"

    def restart(self) -> None:
        """What the process knew is gone; what the storage knows is left."""
        self.begun = self.total is not None
        if self.state == "gone":
            return
        if self.is_published and not self.store.at_once:
            self.state = "published"
        elif self.is_published:
            self.state = "cancelling" if self.releasing else "standing"
        elif self.state in ("discarding", "cancelling"):
            self.state = "cancelling" if self.releasing else "open"

    def clean_up(self) -> None:
        if self.state == "gone":
            return
        is_left = self.is_published and not self.store.at_once
        if is_left or self.releasing or self.is_expired:
            try:
                self.run_out()
            except BackendError:
                return

    def forget(self) -> None:
        if self.remembered is not None and (
            self.remembered < self.store.now - CLOSE_MEMORY
        ):
            self.remembered = None
