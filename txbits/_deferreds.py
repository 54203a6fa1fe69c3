"""
Coroutines inside, Deferreds outside, and every way to wait.

- :class:`Waiters`: several wait for one outcome. What follows is built on it.
- :class:`Event`: something that happens once.
- :class:`Shared`: work that those who ask for it meanwhile share.
- :func:`together`, :func:`settled`, :func:`a_few_at_a_time`: several pieces of work.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from functools import wraps
from types import coroutine
from typing import Any, Generic, ParamSpec, TypeVar

from attrs import define, field
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    fail,
    succeed,
)
from twisted.python.failure import Failure

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

# Not the outcome of any work.
_LATER = object()


def deferred(
    function: Callable[P, Coroutine[Deferred[Any], Any, T]],
) -> Callable[P, Deferred[T]]:
    """
    Let a coroutine function return a Deferred, as our interfaces promise.

    The coroutine runs at once, up to its first ``await`` of something unfired.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return begun(function(*args, **kwargs))

    return call


def begun(body: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """
    Run a coroutine, as ``Deferred.fromCoroutine`` does.

    Most of ours never have to wait: memory and disk answer at once. For those, this
    skips the machinery of waiting, which costs more than all that they do.

    :param body: What to run.
    :returns: A Deferred that fires with what it returns, or fails with what it raises.
    """
    try:
        awaited = body.send(None)
    except StopIteration as stop:
        return succeed(stop.value)
    except BaseException:  # noqa: BLE001 - the Deferred carries it
        return fail()
    return Deferred.fromCoroutine(_going_on(body, awaited))


@coroutine
def _going_on(
    body: Coroutine[Deferred[Any], Any, T], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, T]:
    """Continue a coroutine that has begun to wait."""
    while True:
        try:
            try:
                outcome = yield awaited
            except GeneratorExit:
                body.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is handed on
                awaited = body.throw(error)
            else:
                awaited = body.send(outcome)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def let_go_of_frames(error: BaseException) -> None:
    """
    Free what an error that has been dealt with keeps alive.

    Each Deferred that it has passed through is in its traceback, together with a
    Failure that refers to the error: a cycle, in which the variables of all the frames
    would stay, such as requests, until the garbage is collected. A peer that is refused
    again and again would fill the memory with them.
    """
    left: BaseException | None = error
    while left is not None:
        left.__traceback__ = None
        left = left.__cause__ or left.__context__


def shielded(work: Deferred[T]) -> Deferred[T]:
    """
    Wait for work that cancelling the waiting does not end.

    :returns: A Deferred that fires, or fails, as the work does.
    """
    outcome: Deferred[T] = Deferred()
    work.addBoth(outcome.callback)
    return outcome


@define(eq=False)
class Waiters(Generic[T]):
    """
    Everyone who waits for the same outcome. Each of them gets a Deferred of its own.
    """

    _waiting: list[Deferred[T]] = field(factory=list, init=False)

    def wait(self) -> Deferred[T]:
        """
        Wait for the outcome.

        :returns: A Deferred that fires, or fails, with the outcome. Cancelling it ends
            this waiting, and nothing else.
        """
        waiting: Deferred[T] = Deferred(self._forget)
        self._waiting.append(waiting)
        return waiting

    def _forget(self, waiting: Deferred[T]) -> None:
        # It may be cancelled while the others are being told.
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    @property
    def is_awaited(self) -> bool:
        """Whether anyone waits."""
        return bool(self._waiting)

    def fire(self, outcome: T | Failure) -> None:
        """
        Give the outcome to everyone who waits now. Those who begin to wait because of
        that wait for the next outcome. A failure that nobody waits for is dropped.
        """
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            # Another one may have cancelled it.
            if not one.called:
                one.callback(outcome)


@define(eq=False)
class Event:
    """
    Something that happens once, and that any number can wait for.

    :ivar is_set: Whether it has happened.
    """

    is_set: bool = field(default=False, init=False)
    _waiters: Waiters[None] | None = field(default=None, init=False)

    def set(self) -> None:
        """Let it happen. Later calls do nothing."""
        self.is_set = True
        waiters, self._waiters = self._waiters, None
        if waiters is not None:
            waiters.fire(None)

    def wait(self) -> Deferred[None]:
        """
        Wait for it. Cancelling that ends the waiting and nothing else.

        :returns: A Deferred that fires with ``None`` when it has happened.
        """
        if self.is_set:
            return succeed(None)
        if self._waiters is None:
            self._waiters = Waiters()
        return self._waiters.wait()

    async def outlast(self) -> None:
        """Wait for it, however often that is cancelled: for ends that must come."""
        while not self.is_set:
            try:
                await self.wait()
            except CancelledError:
                # A second cancellation asks for what is coming already.
                continue


@define(eq=False)
class Shared(Generic[T]):
    """
    Work that everyone who asks for it at the same time shares, one run at a time.
    """

    _waiters: Waiters[T] | None = field(default=None, init=False)

    def run(self, start: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        """
        Join the run that is under way, or begin one.

        :param start: Begins it.
        :returns: A Deferred that fires, or fails, with the outcome of the run.
            Cancelling it does not end the run.
        """
        if self._waiters is not None:
            return self._waiters.wait()
        self._waiters = Waiters()
        mine = self._waiters.wait()
        begun(start()).addBoth(self._end)
        return mine

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._waiters is not None

    def over(self) -> Deferred[None]:
        """
        Wait until no run is under way.

        :returns: A Deferred that fires with ``None`` then, even if the run fails.
            Cancelling it ends the waiting, with a failure.
        """
        over = Event()
        if self._waiters is None:
            over.set()
        else:
            self._waiters.wait().addBoth(lambda _: over.set())
        return over.wait()

    def _end(self, outcome: T | Failure) -> None:
        waiters, self._waiters = self._waiters, None
        if waiters is not None:
            waiters.fire(outcome)


async def settled(work: Sequence[Deferred[T]]) -> list[T | Failure]:
    """
    Wait for the end of every piece of work, whether it succeeds or fails.

    :returns: What each fired or failed with, in order.
    """
    return [outcome for _, outcome in await DeferredList(work, consumeErrors=True)]


async def together(*work: Deferred[T]) -> list[T]:
    """
    Wait for the end of every piece of work, also when one fails.

    Cancelling this cancels all of them, however each of them takes that, and still
    waits for their ends. A piece that is cancelled by somebody else is one that fails:
    the others go on.

    :returns: What they fired with, in order.
    :raises Exception: What the first failed with, in the order of the arguments.
    """
    results: list[T] = []
    fault: BaseException | None = None
    # Not by DeferredList: small uploads do this twice, and mostly with work that is
    # done.
    for one in work:
        is_done = one.called and not one.paused
        # When the last one is waited for, the others have ended.
        is_alone = is_done or one is work[-1]
        try:
            results.append(await (one if is_alone else _one_of(work, one)))
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised below
            fault = fault or error
    if fault is not None:
        raise fault
    return results


def _one_of(work: Sequence[Deferred[T]], one: Deferred[T]) -> Deferred[T]:
    """
    Wait for one piece of work in such a way that cancelling that cancels all of them.

    :returns: A Deferred that fires, or fails, as *one* does, and not before that.
    """

    def cancel_all(_: Deferred[Any]) -> None:
        for each in work:
            each.cancel()
        if not ended.called:
            ended.callback(_LATER)

    def has_ended(outcome: T | Failure) -> T | Failure | None:
        if ended.called:
            return outcome
        ended.callback(outcome)
        return None

    ended: Deferred[Any] = Deferred(cancel_all)
    # One that takes its time to end is waited for once more.
    ended.addCallback(lambda outcome: one if outcome is _LATER else outcome)
    one.addBoth(has_ended)
    return ended


async def a_few_at_a_time(
    most: int,
    act: Callable[[S], Coroutine[Deferred[Any], Any, T]],
    things: Iterable[S],
) -> list[T]:
    """
    Do the same with each of many things, and stop at the first failure.

    Then no more are begun, and those that are under way are cancelled: where a store is
    away, each would take all the time that a request is tried again. None of them is
    under way any more when this ends.

    :param most: How many are under way at most.
    :returns: What each call returned, in order.
    :raises Exception: What failed first.
    """
    left = iter(enumerate(things))
    done: dict[int, T] = {}
    faults: list[Failure] = []
    workers: list[Deferred[None]] = []

    async def work() -> None:
        for number, thing in left:
            if faults:
                return
            done[number] = await act(thing)

    def failed(failure: Failure) -> None:
        faults.append(failure)
        for worker in workers:
            worker.cancel()

    for _ in range(most):
        workers.append(begun(work()).addErrback(failed))
    await DeferredList(workers)
    if faults:
        faults[0].raiseException()
    return [done[number] for number in sorted(done)]
