"""
SIGHUP: the server reads its file again, and applies the changes.

Each reload has three steps: a thread reads the file and makes a plan, new directories
start, and then everything changes at once. If one of the first two steps fails, nothing
changes. Uploads continue during a reload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from txbits._deferreds import Shared, deferred
from txbits.errors import InvalidSetting, ServerStopping
from txbits.service._access import adopt
from txbits.service._admin import Admin
from txbits.service._plan import Kept, Plan, in_effect, make_plan
from txbits.service._process import on_one_line
from txbits.service._served import Builder, Served
from txbits.service.settings import Configuration
from txbits.web.mounts import Mounts

_log = Logger()


@frozen
class Line:
    """
    A line for the log.

    :ivar level: Its level.
    :ivar text: Its format.
    :ivar fields: The fields of its event.
    """

    level: Literal["info", "warn"]
    text: str
    fields: dict[str, Any]

    def log(self) -> None:
        """Write it."""
        _log.emit(LogLevel.lookupByName(self.level), self.text, **self.fields)


@define(eq=False)
class Reloader:
    """
    Applies the changes in its file to a running service.

    :param configuration: What it was started with.
    :param directories: Its directories; this list is changed.
    :param mounts: Maps the paths of requests to the directories.
    :param admin: What is served to the operator.
    :param builder: Builds new directories.
    :param in_thread: Calls a function in a thread. Its Deferred fires with the result.
    :ivar counts: How many reloads there were, by result: ``"succeeded"`` or
        ``"failed"``.
    """

    configuration: Configuration
    directories: list[Served]
    mounts: Mounts
    admin: Admin
    builder: Builder
    in_thread: Callable[..., Deferred[Any]]
    counts: Counter[str] = field(factory=Counter, init=False)
    _running: Shared[None] = field(factory=Shared, init=False)
    _is_wanted: bool = field(default=False, init=False)
    _is_stopping: bool = field(default=False, init=False)
    _prepared: tuple[Configuration, Plan] | None = field(default=None, init=False)
    # The new directory that is starting, and what fires when old ones have stopped.
    _starting: Deferred[None] | None = field(default=None, init=False)
    _leaving: list[Deferred[None]] = field(factory=list, init=False)

    def hangup(self) -> None:
        """Reload; if a reload is running, do one more after it."""
        if self.configuration.reread is None:
            _log.info("no settings to reload: started without --config")
            return
        self._is_wanted = True
        if not self._running.is_running:
            self._running.run(self._run)

    def prepare(self, new: Configuration) -> Deferred[None]:
        """
        Get ready to change everything to new settings; nothing changes yet.

        :meth:`apply` or :meth:`abandon` follows. This is for one of several workers,
        all of which change or none.

        :returns: A Deferred that fires with ``None`` when that is certain to succeed.
            It fails with :class:`~txbits.errors.InvalidSetting` if the settings cannot
            be used, and with ``CancelledError`` if the server is stopping.
        """
        return self._running.run(partial(self._prepare, lambda: self._plan(new)))

    def over(self) -> Deferred[None]:
        """
        Wait for the reload that is running, if one is.

        :returns: A Deferred that fires with ``None`` when none is running.
        """
        return self._running.over()

    @deferred
    async def stop(self) -> None:
        """
        Stop reloading.

        :returns: A Deferred that fires with ``None`` when nothing will change any more.
        """
        self._is_stopping = True
        if self._starting is not None:
            # It may be waiting for a store that is unreachable.
            self._starting.cancel()
        await self.over()
        self._forget()
        await DeferredList(self._leaving)

    async def _run(self) -> None:
        while self._is_wanted and not self._is_stopping:
            self._is_wanted = False
            await self._reload()

    async def _reload(self) -> None:
        with failures_logged(self.configuration.path):
            try:
                await self._prepare(self._read)
                for line in self.apply():
                    line.log()
            except CancelledError:
                raise
            except Exception:
                self.counts["failed"] += 1
                raise

    def _read(self) -> tuple[Configuration, Plan]:
        """Read the file and plan the changes; called in a thread."""
        if self.configuration.reread is None:
            raise InvalidSetting("the server was started without --config")
        return self._plan(self.configuration.reread())

    def _plan(self, new: Configuration) -> tuple[Configuration, Plan]:
        return new, make_plan(self.configuration, new, self.directories, self.builder)

    async def _prepare(self, plan: Callable[[], tuple[Configuration, Plan]]) -> None:
        """
        Get ready to change everything.

        :param plan: Plans it; called in a thread.
        """
        new, planned = await self.in_thread(plan)
        await self._start(planned.added)
        self._prepared = new, planned

    async def _start(self, added: list[Served]) -> None:
        """
        Start new directories.

        If that fails, those that had started stop again. One that cannot start has
        stopped by itself.

        :raises InvalidSetting: If one of them cannot start.
        :raises CancelledError: If the server is stopping.
        """
        try:
            for served in added:
                if self._is_stopping:
                    break
                self._starting = served.start()
                await self._starting
            if self._is_stopping:
                raise CancelledError
        except BaseException:
            self._leaving += [one.stop() for one in added if one.is_started]
            raise
        finally:
            self._starting = None

    def apply(self) -> list[Line]:
        """
        Change everything to the settings that were prepared, without waiting.

        :returns: What the log is to say about it.
        """
        assert self._prepared is not None  # noqa: S101 - by :meth:`prepare`
        (new, plan), self._prepared = self._prepared, None
        old = self.configuration
        has_new_proxies = old.trusted_proxies != new.trusted_proxies
        changed = [
            kept.settings.mount
            for kept in plan.kept
            if self._change(kept, new.trusted_proxies, has_new_proxies)
        ]
        self.directories += plan.added
        for served in plan.removed:
            self.directories.remove(served)
            self._leaving.append(served.stop())
        self._leaving = [one for one in self._leaving if not one.called]
        # What requires a restart is reported again by the next reload.
        self.configuration = self.admin.configuration = in_effect(old, new)
        self.admin.serve(self.mounts)
        self.counts["succeeded"] += 1
        return _lines(plan, changed, has_new_proxies, new.path)

    def abandon(self) -> None:
        """Count a reload that has failed, and forget what was prepared for it."""
        self.counts["failed"] += 1
        self._forget()

    def _forget(self) -> None:
        if self._prepared is not None:
            (_, plan), self._prepared = self._prepared, None
            self._leaving += [one.stop() for one in plan.added if one.is_started]

    @property
    def in_effect(self) -> Configuration:
        """The settings in effect, also where the file has others by now."""
        return evolve(
            self.configuration,
            directories=tuple(one.directory for one in self.directories),
        )

    def _change(
        self, kept: Kept, proxies: tuple[str, ...], has_new_proxies: bool
    ) -> bool:
        """
        Change a directory that stays.

        :returns: Whether its own settings have changed.
        """
        served, now = kept.served, kept.settings
        before, served.directory = served.directory, now
        # Its number in the file, and the spelling of its mount, make no difference.
        is_other = before.segments != now.segments or evolve(
            before, where="", mount=""
        ) != evolve(now, where="", mount="")
        # Files with secrets may have changed, even if the settings have not.
        adopt(kept.gate, served.resource.gate)
        served.resource.gate = kept.gate
        if is_other or has_new_proxies:
            served.resource.reconfigure(
                now.settings,
                notifier=kept.notifier,
                public_url=now.public_url,
                trusted_proxies=proxies,
                name=now.mount,
                log_packets=now.log_packets,
            ).addErrback(_not_released, now.mount)
        if is_other:
            served.report_doubts()
        return is_other


@contextmanager
def failures_logged(path: str | None) -> Iterator[None]:
    """
    Log why a reload, which is done meanwhile, has failed. The service continues.

    :param path: The settings file.
    """
    try:
        yield
    except InvalidSetting as error:
        _log.error(
            "reload failed, keeping the old settings: {reason}",
            reason=on_one_line(error),
            path=path,
        )
    except CancelledError:
        _log.info("reload cancelled: the server is stopping")
    except Exception:  # noqa: BLE001 - whatever it was
        _log.failure("reload failed: {log_failure}")


def _lines(
    plan: Plan, changed: list[str], has_new_proxies: bool, path: str | None
) -> list[Line]:
    """
    Tell what a reload has changed, and what has to wait.

    :param changed: The mounts of the directories whose own settings have changed.
    """
    mounts = {
        "changed": changed,
        "added": [served.directory.mount for served in plan.added],
        "removed": [served.directory.mount for served in plan.removed],
    }
    changes = [f"{how} {', '.join(m)}" for how, m in mounts.items() if m]
    if has_new_proxies:
        changes.insert(0, "changed trusted-proxies")
    # Nobody can see whether these files have changed, but they were read.
    asking = [kept.settings.mount for kept in plan.kept if kept.gate.authenticators]
    read = f"; credentials of {', '.join(asking)} read again" if asking else ""
    fields = {"changes": ("; ".join(changes) or "no changes") + read, "path": path}
    return [
        Line("info", "settings reloaded: {changes}", {**fields, **mounts}),
        *(
            Line("warn", "restart required: {line}", {"line": line})
            for line in plan.postponed
        ),
    ]


def _not_released(failure: Failure, mount: str) -> None:
    if not failure.check(ServerStopping):
        _log.failure(
            "{mount}: cannot release all sessions: {log_failure}",
            failure,
            mount=mount,
            directory=mount.rstrip("/"),
        )
