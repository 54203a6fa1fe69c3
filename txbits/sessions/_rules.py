"""
The rules that apply to a session.

An operator may change the rules of a directory while uploads are under way. To treat a
client as Create-Session promised, each session keeps the rules that applied when this
process created or found it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from attrs import frozen

from txbits.interfaces import (
    Answer,
    IAnswerable,
    INotifier,
    IUploadSession,
    SessionDetails,
)
from txbits.protocol.session import Completion, LifeCycle, State, answered, resumed
from txbits.sessions.settings import Settings


@lru_cache
def _keeps_answers(kind: type) -> bool:
    # providedBy() of each upload would take longer than all the rest.
    return bool(IAnswerable.implementedBy(kind))


def answer_of(upload: IUploadSession) -> Answer | None:
    """The final answer of a server application, if there is one."""
    if not _keeps_answers(type(upload)) and not IAnswerable.providedBy(upload):
        return None
    answerable: Any = upload
    return answerable.answer  # type: ignore[no-any-return]


@frozen(eq=False)
class Rules:
    """
    The rules of a session.

    :ivar settings: The settings of its directory.
    :ivar notifier: Asks the server application about it, if there is one.
    """

    settings: Settings
    notifier: INotifier | None = None

    @property
    def publishes_at_once(self) -> bool:
        """Whether files are published at the last fragment."""
        return self.settings.publish_on == "last-fragment"

    def completion_of(self, upload: IUploadSession) -> Completion:
        """The next step for a session that holds all bytes."""
        return self.completion(answer_of(upload))

    def completion(self, answer: Answer | None) -> Completion:
        """
        The next step for a session that holds all bytes.

        :param answer: What the server application has answered for good.
        """
        at_once = self.settings.publish_on == "last-fragment"
        if answer is not None:
            return answered(
                status=answer.status, publishes=answer.publishes, at_once=at_once
            )
        if self.notifier is not None:
            return "unanswered"
        return "due" if at_once else "completed"

    def life_of(self, upload: IUploadSession) -> LifeCycle:
        """The life of a session, from the state of its upload."""
        return resumed(
            offset=upload.offset,
            total=upload.total,
            is_published=upload.published,
            is_releasing=upload.releasing,
            is_in_doubt=upload.in_doubt,
            completion=self.completion_of(upload),
            at_once=self.publishes_at_once,
        )

    def state_of(self, details: SessionDetails) -> State:
        """The state of a session, as the store lists it."""
        return resumed(
            # Where that is unknown, not all bytes are there.
            offset=-1 if details.offset is None else details.offset,
            total=details.total,
            is_published=details.published,
            is_releasing=details.releasing,
            is_in_doubt=details.in_doubt,
            completion=self.completion(details.answer),
            at_once=self.publishes_at_once,
        ).state

    def is_left_over(self, upload: IUploadSession) -> bool:
        """Whether a session only waits to be released."""
        if upload.published and self.publishes_at_once:
            # It stays until Close-Session, or until it times out.
            return upload.releasing
        return upload.published or upload.releasing
