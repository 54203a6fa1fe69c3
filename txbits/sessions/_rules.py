"""
The rules that a session goes by: those of its beginning.

An operator may change the rules of a directory while uploads are under way. A client
that was promised one thing at Create-Session is not held to another one halfway, so
each session keeps the rules under which this process has met it.
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
)
from txbits.protocol.session import Completion, LifeCycle, answered, resumed
from txbits.sessions.settings import Settings


@lru_cache
def _keeps_answers(kind: type) -> bool:
    # That something provides it by itself takes longer to find out than all the rest.
    return bool(IAnswerable.implementedBy(kind))


def answer_of(upload: IUploadSession) -> Answer | None:
    """What a server application has answered for good, if one has."""
    if not _keeps_answers(type(upload)) and not IAnswerable.providedBy(upload):
        return None
    answerable: Any = upload
    return answerable.answer  # type: ignore[no-any-return]


@frozen(eq=False)
class Rules:
    """
    What a session goes by.

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
        """What is to be done with a session that holds all bytes."""
        answer = answer_of(upload)
        at_once = self.settings.publish_on == "last-fragment"
        if answer is not None:
            return answered(
                status=answer.status, publishes=answer.publishes, at_once=at_once
            )
        if self.notifier is not None:
            return "unanswered"
        return "due" if at_once else "completed"

    def life_of(self, upload: IUploadSession) -> LifeCycle:
        """The life of a session as the store has it."""
        return resumed(
            offset=upload.offset,
            total=upload.total,
            is_published=upload.published,
            is_releasing=upload.releasing,
            is_in_doubt=upload.in_doubt,
            completion=self.completion_of(upload),
            at_once=self.publishes_at_once,
        )

    def is_left_over(self, upload: IUploadSession) -> bool:
        """Whether a session only waits to be released."""
        if upload.published and self.publishes_at_once:
            # It stays until Close-Session, or until its time is out.
            return upload.releasing
        return upload.published or upload.releasing
