"""
The life of a session on the server.

A session is born by Create-Session and waits for bytes. Fragments fill it; when the
last byte is held it is *complete*, which it stays however often that fragment is
sent again. Close-Session then publishes the file. If publishing fails, the session
is complete as before, and the client's next Close tries again. Once the file stands
at its destination there is no way back: whatever is still to be released is
released by that Close, by the next one, or by the clean-up.

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
a restart (:func:`resumed`). The states follow MC-BUP 3.2.1.4; its STATE_NOTIFY lies
between *receiving* and *complete*.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from automat import TypeMachineBuilder


class Move(Enum):
    """What the server does next."""

    RECEIVE = auto()
    """Take the fragment, and store what is new of it."""

    REPEAT = auto()
    """Take the fragment; there is nothing left to store."""

    PUBLISH = auto()
    """Make the file appear at its destination, then release the rest."""

    PUBLISH_EMPTY = auto()
    """The same, for a file of no bytes."""

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


class LifeCycle(Protocol):
    """The inputs of the machine."""

    def fragment(self) -> Move:
        """A Fragment arrived."""

    def close(self) -> Move:
        """Close-Session arrived."""

    def cancel(self) -> Move:
        """Cancel-Session arrived, or the time is out."""

    def begun(self) -> None:
        """A fact: a Fragment came, whatever became of it."""

    def completed(self) -> None:
        """A fact: the last byte is held."""

    def lost(self) -> None:
        """A fact: bytes that were held are gone."""

    def published(self) -> None:
        """A fact: the file stands at its destination."""

    def released(self) -> None:
        """A fact: nothing of the session is left."""


class _Nothing:
    """The machine keeps no data: sizes are the storage's to know."""


_NOTHING = _Nothing()
_builder = TypeMachineBuilder(LifeCycle, _Nothing)

created = _builder.state("created")
receiving = _builder.state("receiving")
in_doubt = _builder.state("in_doubt")
complete = _builder.state("complete")
published = _builder.state("published")
discarding = _builder.state("discarding")
cancelling = _builder.state("cancelling")
gone = _builder.state("gone")

created.upon(LifeCycle.fragment).loop().returns(Move.RECEIVE)
created.upon(LifeCycle.begun).to(receiving).returns(None)
created.upon(LifeCycle.close).loop().returns(Move.PUBLISH_EMPTY)
created.upon(LifeCycle.cancel).to(cancelling).returns(Move.RELEASE)

receiving.upon(LifeCycle.fragment).loop().returns(Move.RECEIVE)
receiving.upon(LifeCycle.begun).loop().returns(None)
receiving.upon(LifeCycle.lost).to(in_doubt).returns(None)
receiving.upon(LifeCycle.completed).to(complete).returns(None)
receiving.upon(LifeCycle.close).to(discarding).returns(Move.DISCARD)
receiving.upon(LifeCycle.cancel).to(cancelling).returns(Move.RELEASE)

in_doubt.upon(LifeCycle.fragment).loop().returns(Move.RECEIVE)
in_doubt.upon(LifeCycle.lost).loop().returns(None)
in_doubt.upon(LifeCycle.begun).to(receiving).returns(None)
in_doubt.upon(LifeCycle.close).to(cancelling).returns(Move.LOSE)
in_doubt.upon(LifeCycle.cancel).to(cancelling).returns(Move.RELEASE)

complete.upon(LifeCycle.fragment).loop().returns(Move.REPEAT)
complete.upon(LifeCycle.begun).loop().returns(None)
# Until published() the session stays complete: publishing may fail.
complete.upon(LifeCycle.close).loop().returns(Move.PUBLISH)
complete.upon(LifeCycle.lost).to(in_doubt).returns(None)
complete.upon(LifeCycle.published).to(published).returns(None)
complete.upon(LifeCycle.cancel).to(cancelling).returns(Move.RELEASE)

published.upon(LifeCycle.fragment).loop().returns(Move.UNKNOWN)
published.upon(LifeCycle.close).loop().returns(Move.FINISH)
published.upon(LifeCycle.cancel).loop().returns(Move.FINISH)
published.upon(LifeCycle.released).to(gone).returns(None)

discarding.upon(LifeCycle.fragment).loop().returns(Move.UNKNOWN)
discarding.upon(LifeCycle.close).loop().returns(Move.DISCARD)
discarding.upon(LifeCycle.cancel).to(cancelling).returns(Move.RELEASE)
discarding.upon(LifeCycle.released).to(gone).returns(None)

cancelling.upon(LifeCycle.fragment).loop().returns(Move.UNKNOWN)
cancelling.upon(LifeCycle.close).loop().returns(Move.UNKNOWN)
cancelling.upon(LifeCycle.cancel).loop().returns(Move.RELEASE)
cancelling.upon(LifeCycle.released).to(gone).returns(None)

gone.upon(LifeCycle.fragment).loop().returns(Move.UNKNOWN)
gone.upon(LifeCycle.close).loop().returns(Move.UNKNOWN)
gone.upon(LifeCycle.cancel).loop().returns(Move.UNKNOWN)

_machine = _builder.build()


def begin() -> LifeCycle:
    """The life of a session that was created just now."""
    return _machine(_NOTHING)


def resumed(
    *,
    offset: int,
    total: int | None,
    is_published: bool,
    is_releasing: bool,
    is_in_doubt: bool,
) -> LifeCycle:
    """
    The life of a session that was found in the store.

    :param offset: How many bytes are held.
    :param total: The file's length, ``None`` before the first Fragment.
    :param is_published: Whether the file stands at its destination.
    :param is_releasing: Whether its release had begun.
    :param is_in_doubt: Whether bytes that were acknowledged may be missing.
    """
    if is_published:
        return _machine(_NOTHING, published)
    if is_releasing:
        return _machine(_NOTHING, cancelling)
    if offset == total:
        return _machine(_NOTHING, complete)
    if is_in_doubt:
        return _machine(_NOTHING, in_doubt)
    return _machine(_NOTHING, created if total is None else receiving)
