"""
What a running service has to change when its file has changed.

A plan is made before anything changes. Making it builds what is new and checks
everything, so that a file with a mistake changes nothing. It may block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import Factory, evolve, fields, frozen

from txbits.errors import InvalidSetting
from txbits.interfaces import IExclusive, INotifier
from txbits.service._operators import check_admin
from txbits.service._served import Builder, Served
from txbits.service.settings import Configuration, Directory
from txbits.web import Gate


@frozen
class Kept:
    """
    A directory that stays.

    :ivar served: The directory.
    :ivar settings: Its settings from now on.
    :ivar notifier: The notifier for its server application from now on, if any.
    :ivar gate: What admits requests to it from now on.
    """

    served: Served
    settings: Directory
    notifier: INotifier | None
    gate: Gate


@frozen
class Plan:
    """
    The changes.

    :ivar kept: Directories that stay.
    :ivar added: New directories, which have not started yet.
    :ivar removed: Directories that are no longer in the file.
    :ivar postponed: What takes effect only at the next restart: a line for each
        setting, with the value that applies until then.
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

    :param old: The current configuration.
    :param running: Its directories.
    :param builder: Builds new directories.
    :raises InvalidSetting: If the new configuration cannot be used. The message is a
        complete line.
    """
    builder.forget_places()
    check_admin(new)
    # What is new has to do with the listeners that there are.
    now = in_effect(old, new)
    pairs, removed = _pair(new.directories, running)
    plan = Plan(removed=removed, postponed=_of_the_server(old, new))
    for directory, served in pairs:
        if served is not None:
            settings, notifier = _keep(served, directory, builder, new, plan.postponed)
            gate = builder.gate_for(settings, now)
            plan.kept.append(Kept(served, settings, notifier, gate))
    for directory, served in pairs:
        if (new.listen, new.admin_listen) != (old.listen, old.admin_listen):
            # It could not start again.
            builder.gate_for(directory, new)
        if served is None:
            plan.added.append(builder.build(directory, now))
    return plan


def in_effect(old: Configuration, new: Configuration) -> Configuration:
    """
    The new configuration, but for what requires a restart, which stays as it is.

    The users of an operator's listener stay as well if that is to be another one: the
    new one may need none.
    """
    now = evolve(
        new,
        listen=old.listen,
        listen_from=old.listen_from,
        limits=old.limits,
        workers=old.workers,
        log_format=old.log_format,
    )
    if new.admin_listen == old.admin_listen:
        return now
    return evolve(
        now,
        admin_listen=old.admin_listen,
        admin_from=old.admin_from,
        admin_users=old.admin_users,
        admin_directory=old.admin_directory,
    )


def _pair(
    directories: Sequence[Directory], running: Sequence[Served]
) -> tuple[list[tuple[Directory, Served | None]], list[Served]]:
    """
    For each directory of the file, find the running one that it continues.

    :returns: The directories, each with the one that it continues, or ``None`` if it is
        new; and the running ones that are no longer in the file.
    """
    left = {served.directory.segments: served for served in running}
    pairs = [(one, left.pop(one.segments, None)) for one in directories]
    for number, (directory, served) in enumerate(pairs):
        if served is None and (moved := _at_place_of(directory, left.values())):
            pairs[number] = directory, left.pop(moved.directory.segments)
    return pairs, list(left.values())


def _at_place_of(directory: Directory, left: Iterable[Served]) -> Served | None:
    """
    Find the running directory that only gets another mount.

    A new directory could not use the same place before the old one has stopped. Uploads
    can continue, because their paths are relative to the mount.
    """
    for served in left:
        if served.directory.backend == directory.backend and IExclusive.providedBy(
            served.manager.backend
        ):
            return served
    return None


def _keep(
    served: Served,
    wanted: Directory,
    builder: Builder,
    new: Configuration,
    postponed: list[str],
) -> tuple[Directory, INotifier | None]:
    """
    Find out which new settings a directory that stays can get without a restart.

    :param new: All new settings.
    :param postponed: Lines for the other new settings are added to this list.
    :returns: Its settings from now on, and the notifier for its server application.
    """
    before, now = served.directory, wanted
    for name in ("backend", "fsync"):
        value = getattr(before, name)
        if getattr(wanted, name) != value:
            postponed.append(f"{wanted.where}{name}: still {value}")
            now = evolve(now, **{name: value})
    if now != wanted:
        builder.try_out(wanted, new)
    builder.take_place(now, served.manager.backend)
    try:
        return now, builder.notifier_for(now, served)
    except InvalidSetting:
        # A backend that is built with these settings may have more abilities.
        builder.try_out(wanted, new)
    if now.backend != wanted.backend:
        postponed.append(f"{wanted.where}all other settings: still unchanged")
        # Who may use it does not wait: somebody may have been revoked.
        now = evolve(before, where=wanted.where, access=wanted.access)
    elif before.notification is None:
        postponed.append(f"{wanted.where}notify-url: still none")
        now = evolve(now, notification=None)
    return now, builder.notifier_for(now, served)


def _of_the_server(old: Configuration, new: Configuration) -> list[str]:
    """
    Make lines for the changed settings of the server, which require a restart.

    Only the file can have changed them: a command line stays as it is.
    """
    where, lines = f"{new.path}: ", []
    if new.listen != old.listen:
        lines.append(f"{where}listen: still {', '.join(old.listen)}")
    if new.workers != old.workers:
        lines.append(f"{where}workers: still {old.workers}")
    if new.log_format != old.log_format:
        lines.append(f"{where}log-format: still {old.log_format or 'text'}")
    if new.admin_listen != old.admin_listen:
        lines.append(f"{where}admin-listen: still {old.admin_listen or 'none'}")
    for attribute in fields(type(old.limits)):
        value = getattr(old.limits, attribute.name)
        if getattr(new.limits, attribute.name) != value:
            name = attribute.name.replace("_", "-")
            lines.append(f"{where}{name}: still {value:.15g}")
    return lines
