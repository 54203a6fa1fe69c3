"""
The life of a session on the server.

Create-Session creates a session, and Fragments fill it. When the last byte is stored,
the session is *complete*, and stays so if that fragment is sent again. Close-Session
then publishes the file. If publishing fails, the session is still complete, and the
client's next Close tries again. Once the file is at its destination, there is no way
back: that Close, the next one, or the clean-up releases the rest.

If a server application is to be asked about uploads (MC-BUP 3.3), a session with all
its bytes is *unanswered* at first: each Fragment and Close-Session asks the
application, until there is a final answer. The application lets the file be published;
or it has *taken* the upload, so that Close-Session only releases the session; or it has
*refused* it, and every later Fragment and Close gets the same refusal. After any other
failure, the session is still unanswered.

If files are published at the last fragment, a session that needs no (further) answer is
*due*: the file is published before the Ack of that fragment, or by the next packet that
succeeds. Then file and session are *standing*, until Close-Session, Cancel or the
time-out releases everything but the file, such as a reply.

Close-Session discards a session that is not complete, since half a file is of no use;
but if no Fragment ever came, the file is empty, because that is how clients upload
those.

A session that is not complete, and was found in the store after a crash that the store
does not promise to survive, is in doubt: bytes may be gone that were acknowledged, and
the client may believe that it has sent everything. A Fragment clears the doubt, since
its Ack tells the client the server's offset. A Close-Session does not mean that half a
file is to be discarded: the session is released, and reported as unknown, so that the
client sends the whole file again. The same applies if the storage has lost bytes.

Cancel-Session, and the time-out, release everything. As soon as that begins, the
session is unknown to all packets but another Cancel, which finishes what the first one
may have left; a session never comes back from there.

This module does no I/O. An input that a packet causes returns the :class:`Move` that
the server has to make; the other inputs are facts, and report the outcome. The machine
can start in any state, for sessions from before a restart (:func:`resumed`). The states
follow MC-BUP 3.2.1.4; its STATE_NOTIFY is *unanswered*.

The machine consists of two tables with one look-up for each input: since every packet
causes three inputs or more, a general state machine would take a tenth of the cost of a
small upload.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

from attrs import define

State = Literal[
    "created",
    "receiving",
    "in_doubt",
    "unanswered",
    "complete",
    "due",
    "taken",
    "refused",
    "standing",
    "published",
    "discarding",
    "cancelling",
    "gone",
]


#: The states of a session with all its bytes; as a fact, that it is now in that state.
Completion = Literal["unanswered", "completed", "due", "taken", "refused"]


class Move(Enum):
    """What the server does next."""

    RECEIVE = auto()
    """Accept the fragment, and store its new bytes."""

    REPEAT = auto()
    """Accept the fragment; all bytes are stored already."""

    ASK = auto()
    """Ask the server application, or wait for its answer; then try again."""

    REFUSE = auto()
    """Pass on the refusal of the server application."""

    PUBLISH = auto()
    """Make the file appear at its destination; at Close, then release the rest."""

    PUBLISH_EMPTY = auto()
    """Treat the file as empty, and so complete; then try again."""

    FINISH = auto()
    """The file is at its destination; release the rest, as a success of Close."""

    DISCARD = auto()
    """Release everything, as a success of Close."""

    LOSE = auto()
    """Release everything, then answer as if the session did not exist."""

    RELEASE = auto()
    """Release everything, as a success of Cancel."""

    UNKNOWN = auto()
    """Answer as if the session did not exist."""


class NoTransition(Exception):
    """A fact that is impossible in the state of the session."""


#: What the server does in each state when a packet comes, and the following state.
#: Every state has an answer to every packet.
PACKETS: dict[tuple[State, str], tuple[Move, State]] = {
    ("created", "fragment"): (Move.RECEIVE, "created"),
    ("created", "close"): (Move.PUBLISH_EMPTY, "created"),
    ("created", "cancel"): (Move.RELEASE, "cancelling"),
    ("receiving", "fragment"): (Move.RECEIVE, "receiving"),
    ("receiving", "close"): (Move.DISCARD, "discarding"),
    ("receiving", "cancel"): (Move.RELEASE, "cancelling"),
    ("in_doubt", "fragment"): (Move.RECEIVE, "in_doubt"),
    ("in_doubt", "close"): (Move.LOSE, "cancelling"),
    ("in_doubt", "cancel"): (Move.RELEASE, "cancelling"),
    ("complete", "fragment"): (Move.REPEAT, "complete"),
    # Until published() the session stays complete: publishing may fail.
    ("complete", "close"): (Move.PUBLISH, "complete"),
    ("complete", "cancel"): (Move.RELEASE, "cancelling"),
    ("unanswered", "fragment"): (Move.ASK, "unanswered"),
    ("unanswered", "close"): (Move.ASK, "unanswered"),
    ("unanswered", "cancel"): (Move.RELEASE, "cancelling"),
    ("due", "fragment"): (Move.PUBLISH, "due"),
    ("due", "close"): (Move.PUBLISH, "due"),
    ("due", "cancel"): (Move.RELEASE, "cancelling"),
    ("taken", "fragment"): (Move.REPEAT, "taken"),
    ("taken", "close"): (Move.DISCARD, "discarding"),
    ("taken", "cancel"): (Move.RELEASE, "cancelling"),
    ("refused", "fragment"): (Move.REFUSE, "refused"),
    ("refused", "close"): (Move.REFUSE, "refused"),
    ("refused", "cancel"): (Move.RELEASE, "cancelling"),
    ("standing", "fragment"): (Move.REPEAT, "standing"),
    ("standing", "close"): (Move.FINISH, "published"),
    # The file stays; the client that cancels knows that.
    ("standing", "cancel"): (Move.RELEASE, "cancelling"),
    ("published", "fragment"): (Move.UNKNOWN, "published"),
    ("published", "close"): (Move.FINISH, "published"),
    ("published", "cancel"): (Move.FINISH, "published"),
    ("discarding", "fragment"): (Move.UNKNOWN, "discarding"),
    ("discarding", "close"): (Move.DISCARD, "discarding"),
    ("discarding", "cancel"): (Move.RELEASE, "cancelling"),
    ("cancelling", "fragment"): (Move.UNKNOWN, "cancelling"),
    ("cancelling", "close"): (Move.UNKNOWN, "cancelling"),
    ("cancelling", "cancel"): (Move.RELEASE, "cancelling"),
    ("gone", "fragment"): (Move.UNKNOWN, "gone"),
    ("gone", "close"): (Move.UNKNOWN, "gone"),
    ("gone", "cancel"): (Move.UNKNOWN, "gone"),
}

#: The state after a fact. Combinations that are not listed are impossible.
FACTS: dict[tuple[State, str], State] = {
    ("created", "begun"): "receiving",
    ("receiving", "begun"): "receiving",
    ("receiving", "completed"): "complete",
    ("receiving", "unanswered"): "unanswered",
    ("receiving", "due"): "due",
    # An answer stays valid if bytes were lost, and sent again.
    ("receiving", "taken"): "taken",
    ("receiving", "refused"): "refused",
    ("receiving", "lost"): "in_doubt",
    ("in_doubt", "begun"): "receiving",
    ("in_doubt", "lost"): "in_doubt",
    ("unanswered", "begun"): "unanswered",
    ("unanswered", "completed"): "complete",
    ("unanswered", "due"): "due",
    ("unanswered", "taken"): "taken",
    ("unanswered", "refused"): "refused",
    ("unanswered", "lost"): "in_doubt",
    ("due", "begun"): "due",
    ("due", "lost"): "in_doubt",
    ("due", "published"): "standing",
    ("taken", "begun"): "taken",
    ("refused", "begun"): "refused",
    ("standing", "begun"): "standing",
    ("complete", "begun"): "complete",
    ("complete", "lost"): "in_doubt",
    ("complete", "published"): "published",
    ("published", "released"): "gone",
    ("discarding", "released"): "gone",
    ("cancelling", "released"): "gone",
}


@define(eq=False)
class LifeCycle:
    """
    The machine, with its inputs.

    Its state is its only data: the storage has the sizes.
    """

    _state: State

    @property
    def state(self) -> State:
        """The state, for the log."""
        return self._state

    def fragment(self) -> Move:
        """A Fragment arrived."""
        move, self._state = PACKETS[self._state, "fragment"]
        return move

    def close(self) -> Move:
        """Close-Session arrived."""
        move, self._state = PACKETS[self._state, "close"]
        return move

    def cancel(self) -> Move:
        """Cancel-Session arrived, or the time is out."""
        move, self._state = PACKETS[self._state, "cancel"]
        return move

    def begun(self) -> None:
        """A fact: a Fragment came, whether or not it was accepted."""
        self._learn("begun")

    def completed(self, completion: Completion = "completed") -> None:
        """
        A fact: the last byte is stored, or the server application has answered.

        :param completion: The next step, see :func:`answered`.
        """
        self._learn(completion)

    def lost(self) -> None:
        """A fact: bytes that were stored are gone."""
        self._learn("lost")

    def published(self) -> None:
        """A fact: the file is at its destination."""
        self._learn("published")

    def released(self) -> None:
        """A fact: nothing of the session is left."""
        self._learn("released")

    def _learn(self, fact: str) -> None:
        try:
            self._state = FACTS[self._state, fact]
        except KeyError:
            raise NoTransition(f"{fact} of a session that is {self._state}") from None


def begin() -> LifeCycle:
    """The life of a new session."""
    return LifeCycle("created")


def answered(*, status: int, publishes: bool, at_once: bool) -> Completion:
    """
    The next step for a complete session after a server application has answered.

    :param status: The HTTP status of the answer: of success, or 403.
    :param publishes: Whether the application lets the file be published.
    :param at_once: Whether files are published at the last fragment.
    """
    if status == 403:
        return "refused"
    if not publishes:
        return "taken"
    return "due" if at_once else "completed"


def resumed(
    *,
    offset: int,
    total: int | None,
    is_published: bool,
    is_releasing: bool,
    is_in_doubt: bool,
    completion: Completion = "completed",
    at_once: bool = False,
) -> LifeCycle:
    """
    The life of a session that was found in the store.

    :param offset: How many bytes are stored.
    :param total: The file's length, ``None`` before the first Fragment.
    :param is_published: Whether the file is at its destination.
    :param is_releasing: Whether its release had begun.
    :param is_in_doubt: Whether bytes that were acknowledged may be missing.
    :param completion: The next step if it is complete.
    :param at_once: Whether files are published at the last fragment, and their
        sessions stay.
    """
    if is_published and at_once:
        return LifeCycle("cancelling" if is_releasing else "standing")
    if is_published:
        return LifeCycle("published")
    if is_releasing:
        return LifeCycle("cancelling")
    if offset == total:
        return LifeCycle(FACTS["receiving", completion])
    if is_in_doubt:
        return LifeCycle("in_doubt")
    return LifeCycle("created" if total is None else "receiving")
