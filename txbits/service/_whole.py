"""
What a worker asks the others, by way of the supervisor: any of them may be the one that
an operator, or a load balancer, has reached, and answers for the whole service.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from txbits._deferreds import deferred
from txbits._workers import Worker
from txbits.admin.combined import CombinedSessions
from txbits.admin.remote import RemoteSessions
from txbits.admin.sessions import SessionsView
from txbits.admin.tokens import FormTokens
from txbits.errors import BackendError, InvalidSetting
from txbits.service._channel import PeerFailed

if TYPE_CHECKING:
    from txbits.admin.page import Glance

#: Seconds that other workers may take to say how they are doing.
ANSWER_WITHIN = 5.0

#: Seconds that the answer may take to come here; the supervisor is to be the first to
#: give up, because it knows who does not answer.
_ARRIVES_WITHIN = ANSWER_WITHIN + 5.0

#: Seconds that another worker may take to show sessions, and to end some.
_SHOWS_WITHIN = 10.0
_ENDS_WITHIN = 60.0

_READING = ("page", "get")

#: What is wrong with a worker that does not accept connections, and with one that has
#: not answered in time.
NOT_RUNNING = "is not running"
NO_ANSWER = "does not answer"

# If it fails to answer, its log has the traceback.
_FAILURES: dict[type[Exception], str] = {
    ConnectionLost: NOT_RUNNING,
    TimeoutError: NO_ANSWER,
    InvalidSetting: "is not ready",
    PeerFailed: "failed to answer; see the log",
}


def fault_of(failure: Failure) -> str:
    """
    Tell what is wrong with a worker that was asked.

    :param failure: What the question has failed with. Any other failure is raised.
    """
    kind = failure.trap(*_FAILURES)
    assert kind is not None  # noqa: S101 - trap() raises instead
    return _FAILURES[kind]


def name_of(number: int) -> str:
    """What an operator calls a worker."""
    return f"worker {number}"


@frozen(eq=False)
class Whole:
    """
    The whole service, as one of its workers asks it.

    :ivar worker: Which worker this is.
    :param form_key: What all workers sign the tokens of forms with.
    :param ask: Asks the supervisor.
    :param reactor: The reactor.
    """

    worker: Worker
    _form_key: bytes = field(repr=False)
    _ask: Callable[..., Deferred[Any]]
    _reactor: Any

    @property
    def name(self) -> str:
        """The name of this process."""
        return name_of(self.worker.number)

    def tokens(self) -> FormTokens:
        """Make what makes the tokens of forms, and knows those of other workers."""
        # The clock that a reactor goes by begins differently in each process.
        return FormTokens(time.monotonic, self._form_key)

    @deferred
    async def glance(self, here: Callable[[], Glance]) -> Glance:
        """
        Gather what is going on in all workers.

        :param here: Gathers it in this one.
        :returns: A Deferred that fires with that. It fails with
            :class:`~txbits.errors.BackendError` if the supervisor does not answer.
        """
        from txbits.admin.page import Glance, merged

        answers, faults = await self._answer(_ARRIVES_WITHIN, "everyone", "glance")
        own = self.worker.number
        others = [
            (number, Glance.from_json(said))
            for number, said in answers.items()
            if number != own
        ]
        mine = here()
        everything = merged(
            [one for _, one in sorted([(own, mine), *others], key=itemgetter(0))]
        )
        # What this worker knows of others has their names.
        away = [
            f"{name_of(number)} {faults[number]}"
            for number in sorted(faults)
            if number != own
        ]
        return evolve(everything, obstacles=(*dict.fromkeys([*mine.obstacles, *away]),))

    def sessions(self, here: SessionsView) -> SessionsView:
        """
        Make a view of the sessions of all workers.

        :param here: A view of those of this one.
        """
        views: dict[str, SessionsView] = {
            name_of(number): RemoteSessions(self._asks(number))
            for number in range(self.worker.count)
        }
        views[self.name] = here
        return CombinedSessions(lambda: views)

    def _asks(
        self, number: int
    ) -> Callable[[dict[str, Any]], Deferred[dict[str, Any]]]:
        @deferred
        async def ask(question: dict[str, Any]) -> dict[str, Any]:
            within = _SHOWS_WITHIN if question["act"] in _READING else _ENDS_WITHIN
            answer, fault = await self._answer(within, "one", number, question)
            if fault is not None:
                raise BackendError(fault)
            found: dict[str, Any] = answer
            return found

        return ask

    async def _answer(self, within: float, *words: object) -> Any:
        try:
            return await self._ask(*words).addTimeout(within, self._reactor)
        except (ConnectionLost, TimeoutError, PeerFailed) as error:
            raise BackendError("the supervisor does not answer") from error
