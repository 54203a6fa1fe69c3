"""
A run of checks, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, field
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from txbits._agents import in_words
from txbits._deferreds import deferred
from txbits.check._bench import Bench, Failed, NotApplicable
from txbits.check._login import NotLetIn, log_in
from txbits.check._messages import Message
from txbits.check._model import Check, Outcome, Report, Result
from txbits.check._target import Target
from txbits.check._wire import Unanswered, Wire
from txbits.client._cancelling import cancellable
from txbits.client._trust import Distrusted

#: How many seconds to wait for an answer.
DEFAULT_PATIENCE = 10.0

#: A check ends after so many times that, whatever the server does.
_LONGEST = 12

#: After so many checks without a single answer, the others are not tried.
_DEAF = 3

_GONE = "the server no longer answers"

_WITHOUT_PUBLISHING = "skipped: would leave a file (use --publish)"


class Unreachable(Exception):
    """The server cannot be reached; the text is one line that says why."""


def ignore(result: Result) -> None:
    """Do nothing."""


@define(eq=False)
class Run:
    """
    One run of the kit.

    :ivar target: The folder to use.
    :ivar endpoint: Connects to the server.
    :ivar clock: Measures the time to wait for answers.
    :ivar patience: How many seconds to wait for an answer.
    :ivar may_publish: Whether the run may leave files.
    :ivar on_result: Called with each result.
    :ivar left_behind: What could not be removed so far, one line each.
    """

    target: Target
    endpoint: IStreamClientEndpoint
    clock: IReactorTime
    patience: float = DEFAULT_PATIENCE
    may_publish: bool = False
    on_result: Callable[[Result], None] = ignore
    left_behind: list[str] = field(init=False, factory=list)
    _unheard: int = field(init=False, default=0)

    @deferred
    async def start(self, checks: Iterable[Check]) -> Report:
        """
        Run checks.

        :returns: A Deferred that fires with a :class:`~txbits.check.Report`. It fails
            with :class:`Unreachable` if the server cannot be reached, and with
            :class:`NotLetIn` if it does not accept the credentials. Cancelling it ends
            the current check, and cleans up after it.
        """
        await self._reach()
        results = []
        for check in checks:
            result = await self._perform(check)
            self.on_result(result)
            results.append(result)
        return Report(self.target.shown(), results, tuple(self.left_behind))

    async def _reach(self) -> None:
        try:
            wire = await self._connect()
        except (CancelledError, NotLetIn):
            raise
        except Exception as error:
            words = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            if isinstance(error, TimeoutError):
                words = f"no connection within {self.patience:g} seconds"
            elif isinstance(error, TLSError) and not isinstance(error, Distrusted):
                words = in_words(error)
            elif isinstance(error, VerificationError):
                words = "its certificate is not trusted"
            raise Unreachable(f"{self.target.shown()}: {words}") from error
        try:
            if not self.target.settings.negotiate:
                await log_in(wire, self.target, self._ping())
        except Unanswered:
            # The checks tell what the server does.
            return
        finally:
            wire.drop()

    def _ping(self) -> Message:
        return Bench(self.target, self._connect, self.clock).ping()

    @deferred
    async def _connect(self) -> Wire:
        """Connect, and log in if that is for the connection."""
        wire = await self._open()
        if self.target.settings.negotiate:
            try:
                await log_in(wire, self.target, self._ping())
            except BaseException:
                wire.drop()
                raise
        return wire

    def _open(self) -> Deferred[Wire]:
        clock, patience = self.clock, self.patience

        class Connecting(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Wire:
                return Wire(clock, patience)

        connecting: Deferred[Any] = cancellable(self.endpoint.connect(Connecting()))
        if self.target.url.scheme == "https":
            connecting.addCallback(lambda wire: wire.encrypted())
        connecting.addTimeout(patience, clock)
        return connecting

    async def _perform(self, check: Check) -> Result:
        if check.publishes and not self.may_publish:
            return Result(check, Outcome.NOT_APPLICABLE, _WITHOUT_PUBLISHING)
        if self._unheard >= _DEAF:
            return Result(check, Outcome.NOT_APPLICABLE, _GONE)
        bench = Bench(self.target, self._connect, self.clock)
        work = Deferred.fromCoroutine(check.function(bench))
        work.addTimeout(self.patience * _LONGEST, self.clock)
        try:
            await work
        except (Failed, Unanswered) as error:
            return Result(check, Outcome.FAILED, str(error))
        except NotApplicable as error:
            return Result(check, Outcome.NOT_APPLICABLE, str(error))
        except TimeoutError:
            return Result(check, Outcome.FAILED, "the check did not end in time")
        finally:
            self._unheard = 0 if bench.answers else self._unheard + 1
            self.left_behind += await bench.tidy_up()
            self.left_behind += bench.published
        return Result(check, Outcome.PASSED)


def select(checks: Sequence[Check], names: Sequence[str]) -> Sequence[Check]:
    """
    Select checks by name.

    :param names: The names; all checks if there are none.
    :raises KeyError: With a name that no check has.
    """
    by_name = {check.name: check for check in checks}
    return [by_name[name] for name in names] if names else checks
