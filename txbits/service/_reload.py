"""
SIGHUP: the file is read again, and what it says now holds from then on.

All of it is looked at before anything changes, and directories that are new have
started by then: a file with a mistake in it changes nothing. Reading, and whatever else
may wait for a disk, is done in a thread; uploads go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from attrs import define, evolve, field, fields, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits._deferreds import deferred
from txbits.errors import BackendError, InvalidSetting, ServerStopping
from txbits.interfaces import IExclusive, INotifier
from txbits.service._served import Builder, Served
from txbits.service.settings import Configuration, Directory
from txbits.web.mounts import Mounts

_log = Logger()


class IHost(Protocol):
    """What a reload needs of the service whose directories it changes."""

    running: int
    directories: list[Served]

    def admit(self, served: Served) -> None:
        """One more is served, which has started."""

    def dismiss(self, served: Served) -> Deferred[None]:
        """One is served no longer."""


@frozen
class _Plan:
    """
    What is to change.

    :ivar kept: Directories that stay, as they are to be, and what tells their
        applications.
    :ivar added: Directories that are new, and have not started yet.
    :ivar removed: Directories that are gone.
    :ivar later: What takes a new start, a line for each.
    """

    kept: list[tuple[Served, Directory, INotifier | None]]
    added: list[Served]
    removed: list[Served]
    later: list[str]


@define(eq=False)
class Reloader:
    """
    Changes a running service to what its file says.

    :param host: The service.
    :param configuration: What it was started with.
    :param mounts: Where its directories are found.
    :param builder: Makes new ones.
    :param in_thread: Calls a function in a thread, and fires with what it returns.
    """

    host: IHost
    configuration: Configuration
    mounts: Mounts
    builder: Builder
    in_thread: Callable[..., Deferred[Any]]
    _running: Deferred[None] | None = field(default=None, init=False)
    _is_wanted: bool = field(default=False, init=False)
    _leaving: list[Deferred[None]] = field(factory=list, init=False)

    def hangup(self) -> None:
        """
        Read the file again; if that is going on, once more when it is over.
        """
        if self.configuration.reread is None:
            _log.info("SIGHUP: there is no file to be read again (--config)")
            return
        self._is_wanted = True
        if self._running is None:
            self._running = running = self._run()
            if running.called:
                self._running = None

    @deferred
    async def stop(self) -> None:
        """
        Wait until nothing is being changed any more.

        :returns: A Deferred that fires with ``None`` then.
        """
        if self._running is not None:
            over: Deferred[None] = Deferred()
            self._running.addBoth(over.callback)
            await over
        await DeferredList(self._leaving)

    @deferred
    async def _run(self) -> None:
        try:
            while self._is_wanted and self.host.running:
                self._is_wanted = False
                await self._reload()
        finally:
            self._running = None

    async def _reload(self) -> None:
        try:
            configuration, plan = await self.in_thread(self._prepare)
            await self._start(plan.added)
            self._apply(configuration, plan)
        except InvalidSetting as error:
            _log.error(
                "the file was read again, and nothing has changed: {reason}",
                reason=_on_one_line(error),
                path=self.configuration.path,
            )
        except Exception:  # noqa: BLE001 - whatever it was, the service goes on
            _log.failure("reading the file again failed")

    # In a thread

    def _prepare(self) -> tuple[Configuration, _Plan]:
        reread = self.configuration.reread
        if reread is None:
            raise InvalidSetting("there is no file")
        configuration = reread()
        return configuration, self._plan(configuration)

    def _plan(self, new: Configuration) -> _Plan:
        old = self.configuration
        plan = _Plan([], [], [], _of_the_server(old, new))
        left = {served.directory.segments: served for served in self.host.directories}
        self.builder.begin_anew()
        for directory in new.directories:
            served = left.pop(directory.segments, None)
            if served is None:
                continue
            plan.kept.append(self._kept(served, directory, plan.later))
        known = {directory.segments for _, directory, _ in plan.kept}
        for directory in new.directories:
            served = None
            if directory.segments not in known:
                served = _at_place_of(directory, left.values())
            if served is not None:
                del left[served.directory.segments]
                plan.kept.append(self._kept(served, directory, plan.later))
        known = {directory.segments for _, directory, _ in plan.kept}
        plan.removed.extend(left.values())
        for directory in new.directories:
            if directory.segments not in known:
                plan.added.append(self.builder.build(directory, new.trusted_proxies))
        return plan

    def _kept(
        self, served: Served, wanted: Directory, later: list[str]
    ) -> tuple[Served, Directory, INotifier | None]:
        """
        Find out what a directory that stays can be without a new start.

        :param later: What it cannot is put there.
        """
        now = wanted
        for name in ("backend", "fsync"):
            before = getattr(served.directory, name)
            if getattr(wanted, name) != before:
                later.append(f"{wanted.where}{name}: until then {before}")
                now = evolve(now, **{name: before})
        if now != wanted:
            self.builder.try_out(wanted)
        is_moved = now.backend != wanted.backend
        if not is_moved and self.builder.takes_a_new_start(now, served):
            later.append(f"{wanted.where}notify-url: until then none")
            now = evolve(now, notification=None)
        try:
            return served, now, self.builder.check(now, served)
        except InvalidSetting:
            if not is_moved:
                raise
        # Its new backend can do what the old one cannot.
        later.append(f"{wanted.where}all else of it: until then as it was")
        now = evolve(served.directory, where=wanted.where)
        return served, now, self.builder.check(now, served)

    # In the reactor's thread again

    async def _start(self, added: Sequence[Served]) -> None:
        """
        Start what is new.

        :raises InvalidSetting: If one of them cannot start; none is left running.
        """
        started: list[Served] = []
        try:
            for served in added:
                try:
                    await served.manager.start()
                except BackendError as error:
                    raise InvalidSetting(f"{served.where}: {error}") from error
                started.append(served)
            if not self.host.running:
                raise InvalidSetting("the server is stopping")
        except BaseException:
            self._leaving += [served.manager.stop() for served in started]
            raise

    def _apply(self, new: Configuration, plan: _Plan) -> None:
        old = self.configuration
        changed = []
        for served, directory, notifier in plan.kept:
            before = served.directory
            is_other = _without_place(before) != _without_place(directory)
            is_moved = before.segments != directory.segments
            served.directory = directory
            if is_other or old.trusted_proxies != new.trusted_proxies:
                served.reconfigure(directory, new.trusted_proxies, notifier).addErrback(
                    _not_released, directory.mount
                )
            if is_other or is_moved:
                changed.append(served)
        for served in plan.added:
            self.host.admit(served)
        for served in plan.removed:
            self._leaving.append(self.host.dismiss(served))
        self._leaving = [one for one in self._leaving if not one.called]
        self.mounts.replace(
            {one.directory.segments: one.resource for one in self.host.directories}
        )
        # What a new start takes is said again by the next reload.
        self.configuration = evolve(
            new, listen=old.listen, listen_from=old.listen_from, limits=old.limits
        )
        _log.info(
            "the file was read again: {changed} changed, {added} new, {removed} gone",
            path=new.path,
            **{
                name: ", ".join(one.directory.mount for one in found) or "none"
                for name, found in (
                    ("changed", changed),
                    ("added", plan.added),
                    ("removed", plan.removed),
                )
            },
        )
        for line in plan.later:
            _log.warn("it takes a new start of the server: {line}", line=line)


def _at_place_of(directory: Directory, left: Iterable[Served]) -> Served | None:
    """
    Find what has another mount from now on.

    Its place cannot be taken anew before it is given back; and its uploads go on, since
    they are known by the paths below the mount.

    :param left: The directories whose mounts are gone.
    """
    for served in left:
        if served.directory.backend == directory.backend and IExclusive.providedBy(
            served.manager.backend
        ):
            return served
    return None


def _not_released(failure: Failure, mount: str) -> None:
    if failure.check(ServerStopping):
        return
    _log.failure("{mount} is disabled, but {log_failure}", failure, mount=mount)


def _of_the_server(old: Configuration, new: Configuration) -> list[str]:
    """What was changed that only a new start can bring."""
    where = new.listen_from
    found = []
    if new.listen != old.listen:
        found.append(f"{where}listen: until then {', '.join(old.listen)}")
    for attribute in fields(type(old.limits)):
        before = getattr(old.limits, attribute.name)
        if getattr(new.limits, attribute.name) != before:
            name = attribute.name.replace("_", "-")
            found.append(f"{where}{name}: until then {before:g}")
    return found


def _without_place(directory: Directory) -> Directory:
    # The same directory may have become another one's neighbour in the file.
    return evolve(directory, where="", mount="/")


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
