"""
The rules that a session goes by: those of its beginning.

An operator may change the rules of a directory while uploads are under way. A client
that was promised one thing at Create-Session is not held to another one halfway, so
each session keeps the rules under which this process has met it.
"""

from __future__ import annotations

from attrs import frozen

from txbits.interfaces import Answer, INotifier, IUploadSession
from txbits.protocol.session import Completion, LifeCycle, answered, resumed
from txbits.sessions.settings import Settings


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
        # Asked once an upload; providedBy() would take longer than all the rest.
        answer: Answer | None = getattr(upload, "answer", None)
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
