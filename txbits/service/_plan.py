"""
What a running service has to change when its file has changed.

A plan is made before anything changes, and may block: it builds what is new and checks
everything, so that a file with a mistake changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import Factory, evolve, fields, frozen

from txbits.errors import InvalidSetting
from txbits.interfaces import IExclusive, INotifier
from txbits.service._served import Builder, Served
from txbits.service.settings import Configuration, Directory


@frozen
class Kept:
    """
    A directory that stays.

    :ivar served: The directory.
    :ivar settings: Its settings from now on.
    :ivar notifier: Asks its server application from now on.
    """

    served: Served
    settings: Directory
    notifier: INotifier | None


@frozen
class Plan:
    """
    The changes.

    :ivar kept: Directories that stay.
    :ivar added: New directories, which have not started yet.
    :ivar removed: Directories that are not in the file any more.
    :ivar postponed: What takes effect at the next restart only: a line for each setting
        that tells the value until then.
    """

    kept: list[Kept] = Factory(list)
    added: list[Served] = Factory(list)
    removed: list[Served] = Factory(list)
    postponed: list[str] = Factory(list)


def make_plan(
    old: Configuration, new: Configuration, running: Sequence[Served], builder: Builder
) -> Plan:
    """
    Find out how to get from one configuration to another.

    :param old: The present configuration.
    :param running: Its directories.
    :param builder: Builds new ones.
    :raises InvalidSetting: With a whole line, if the new one cannot be used.
    """
    builder.forget_places()
    pairs, removed = _pair(new.directories, running)
    plan = Plan(removed=removed, postponed=_of_the_server(old, new))
    for directory, served in pairs:
        if served is not None:
            plan.kept.append(_keep(served, directory, builder, plan.postponed))
    for directory, served in pairs:
        if served is None:
            plan.added.append(builder.build(directory, new.trusted_proxies))
    return plan


def _pair(
    directories: Sequence[Directory], running: Sequence[Served]
) -> tuple[list[tuple[Directory, Served | None]], list[Served]]:
    """
    Find for each directory of the file the running one that it continues.

    :returns: The directories with what they continue, ``None`` for new ones; and the
        running ones that are not in the file any more.
    """
    left = {served.directory.segments: served for served in running}
    pairs = [(one, left.pop(one.segments, None)) for one in directories]
    for number, (directory, served) in enumerate(pairs):
        if served is None and (moved := _at_place_of(directory, left.values())):
            pairs[number] = directory, left.pop(moved.directory.segments)
    return pairs, list(left.values())


def _at_place_of(directory: Directory, left: Iterable[Served]) -> Served | None:
    """
    Find the directory that has another mount from now on.

    Its place cannot be used again before it is given up; and its uploads continue,
    because they are known by their paths below the mount.
    """
    for served in left:
        if served.directory.backend == directory.backend and IExclusive.providedBy(
            served.manager.backend
        ):
            return served
    return None


def _keep(
    served: Served, wanted: Directory, builder: Builder, postponed: list[str]
) -> Kept:
    """
    Find out which settings a directory that stays can have without a restart.

    :param postponed: Lines for those that it cannot have are added here.
    """
    before, now = served.directory, wanted
    for name in ("backend", "fsync"):
        value = getattr(before, name)
        if getattr(wanted, name) != value:
            postponed.append(f"{wanted.where}{name}: until then {value}")
            now = evolve(now, **{name: value})
    if now != wanted:
        builder.try_out(wanted)
    builder.take_place(now, served.manager.backend)
    try:
        return Kept(served, now, builder.notifier_for(now, served))
    except InvalidSetting:
        # A backend that is made with these settings may be able to do more.
        builder.try_out(wanted)
    if now.backend != wanted.backend:
        postponed.append(f"{wanted.where}all other settings: until then unchanged")
        now = evolve(before, where=wanted.where)
    elif before.notification is None:
        postponed.append(f"{wanted.where}notify-url: until then none")
        now = evolve(now, notification=None)
    return Kept(served, now, builder.notifier_for(now, served))


def _of_the_server(old: Configuration, new: Configuration) -> list[str]:
    """Lines for the settings of the server, which require a restart."""
    where, lines = new.listen_from, []
    if new.listen != old.listen:
        lines.append(f"{where}listen: until then {', '.join(old.listen)}")
    for attribute in fields(type(old.limits)):
        value = getattr(old.limits, attribute.name)
        if getattr(new.limits, attribute.name) != value:
            name = attribute.name.replace("_", "-")
            lines.append(f"{where}{name}: until then {value:g}")
    return lines
