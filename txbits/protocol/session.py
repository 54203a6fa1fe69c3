"""
The life of a session on the server.

A session is born by Create-Session and waits for bytes. Fragments fill it; when the
last byte is held it is *complete*, which it stays however often that fragment is
sent again. Close-Session then publishes the file. If publishing fails, the session
is complete as before, and the client's next Close tries again. Once the file stands
at its destination there is no way back: whatever is still to be released is
released by that Close, by the next one, or by the clean-up.

Where a server application is to be asked about uploads (MC-BUP 3.3), a session that
holds the last byte is *unanswered* at first: whatever wants to go on, a Fragment or a
Close-Session, has to ask, until there is an answer for good. The application lets the
file be published; or it has *taken* the upload, so that nothing is left for
Close-Session but to release it; or it has *refused* it, which every later Fragment and
Close is told as well. Any other failure leaves the session unanswered.

Where files are to be published at the last fragment, a session that has nobody left
to ask is *due*: the file is published before that Ack, or by whichever packet gets
through next. Then it is *standing*, file and session, until Close-Session, Cancel or
the time-out releases what there is besides the file, such as a reply.

Close-Session on a session that is not complete discards it, since half a file is
of no use to anyone; but one that no Fragment ever reached is an empty file, for
that is how clients upload those.

A session that is not complete, and was found in the store after a crash that the store
does not promise to survive, is in doubt: bytes may be gone that were acknowledged to a
client who now believes that it has sent everything. A Fragment clears the doubt, since
the client learns from it where the server stands; but Close-Session is not taken for
the wish to discard half a file. The session is released, and unknown, so that the
client sends it all again. The same is true when storage has lost bytes.

Cancel-Session, and the time-out, release everything. From the moment that begins,
the session is unknown to everyone but another Cancel, which finishes what the first
one may have failed to; nothing brings a session back from there.

Nothing here does anything. An input that a packet causes returns the
:class:`Move` that the server has to make, and the inputs that are facts tell what
came of it. The machine can start in any state, which is how a session goes on after
a restart (:func:`resumed`). The states follow MC-BUP 3.2.1.4; its STATE_NOTIFY is
*unanswered*.

The machine is two tables, looked up once an input: every packet asks it three times or
more, so a general machine would be a tenth of all that a small upload costs.
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


#: How a session can be that holds all bytes; as a fact, that it is so now.
Completion = Literal["unanswered", "completed", "due", "taken", "refused"]


class Move(Enum):
    """What the server does next."""

    RECEIVE = auto()
    """Take the fragment, and store what is new of it."""

    REPEAT = auto()
    """Take the fragment; there is nothing left to store."""

    ASK = auto()
    """Ask the server application, or wait for whoever does; then try again."""

    REFUSE = auto()
    """Answer what the server application did: it does not want the upload."""

    PUBLISH = auto()
    """Make the file appear at its destination; at Close, then release the rest."""

    PUBLISH_EMPTY = auto()
    """Take the file for one of no bytes, which is complete; then try again."""

    FINISH = auto()
    """The file stands at its destination; release the rest, as a success of Close."""

    DISCARD = auto()
    """Release everything, as a success of Close."""

    LOSE = auto()
    """Release everything, then answer as if the session did not exist."""

    RELEASE = auto()
    """Release everything, as a success of Cancel."""

    UNKNOWN = auto()
    """Answer as if the session did not exist."""


class NoTransition(Exception):
    """A fact that cannot be, in the state that the session is in."""


#: What a packet makes the server do in each state, and the state that it leads to.
#: Every state answers every packet.
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
    # The file stays; whoever cancels knew that it would.
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

#: The state that a fact leads to. One that is not here cannot be.
FACTS: dict[tuple[State, str], State] = {
    ("created", "begun"): "receiving",
    ("receiving", "begun"): "receiving",
    ("receiving", "completed"): "complete",
    ("receiving", "unanswered"): "unanswered",
    ("receiving", "due"): "due",
    # An answer outlives bytes that were lost, and came again.
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

    It keeps no data but its state: sizes are the storage's to know.
    """

    _state: State

    @property
    def state(self) -> State:
        """Where it stands, for the log."""
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
        """A fact: a Fragment came, whatever became of it."""
        self._learn("begun")

    def completed(self, completion: Completion = "completed") -> None:
        """
        A fact: the last byte is held, or the server application has answered.

        :param completion: What is to be done next, as :func:`answered` says.
        """
        self._learn(completion)

    def lost(self) -> None:
        """A fact: bytes that were held are gone."""
        self._learn("lost")

    def published(self) -> None:
        """A fact: the file stands at its destination."""
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
    """The life of a session that was created just now."""
    return LifeCycle("created")


def answered(*, status: int, publishes: bool, at_once: bool) -> Completion:
    """
    What a server application's answer makes of a complete session.

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

    :param offset: How many bytes are held.
    :param total: The file's length, ``None`` before the first Fragment.
    :param is_published: Whether the file stands at its destination.
    :param is_releasing: Whether its release had begun.
    :param is_in_doubt: Whether bytes that were acknowledged may be missing.
    :param completion: What is to be done with it if it is complete.
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
