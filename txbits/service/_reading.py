"""
Reads settings: from options of the command line, or from a TOML file.

Everything that can be checked without opening a store or a port is checked here, and
raises :class:`~txbits.errors.InvalidSetting` with one line. Values at the top of the
file are defaults for every ``[[directory]]``.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from os import getcwd
from os.path import abspath, join
from pathlib import Path
from typing import Any

from attrs import evolve

from txbits.access.permissions import Permission
from txbits.errors import CredentialsRejected, InvalidSetting
from txbits.interfaces import checked_user_name
from txbits.notification._url import check_url
from txbits.service._access import known_schemes
from txbits.service._keys import BY_NAME, KEYS
from txbits.service._kinds import closest, shown
from txbits.service.settings import (
    FILES_OF_ACCESS,
    Access,
    Configuration,
    Directory,
    Notification,
    read_secret,
)
from txbits.sessions.settings import Settings
from txbits.web import Limits

_OF_DIRECTORIES = [key.name for key in KEYS if key.of_a_directory]
_OF_NOTIFICATION = [key.name for key in KEYS if key.owner is Notification]


def from_options(given: Mapping[str, object], base: str = "") -> Configuration:
    """
    Build the configuration of a command line.

    :param given: The options that were given, and their values.
    :param base: Where relative paths in a file begin; empty for the working directory.
    :raises InvalidSetting: If one cannot be used, or two cannot be combined.
    """
    server = {
        name: value for name, value in given.items() if name not in _OF_DIRECTORIES
    }
    directory = {name: given[name] for name in given if name in _OF_DIRECTORIES}
    path = server.pop("config", None)
    if path is None:
        return _server(
            Configuration(directories=(_directory(directory, {}, "", "--"),)),
            server,
            "--",
        )
    for name in directory:
        raise InvalidSetting(
            f"--{name} cannot be combined with --config; move it to a "
            f"[[directory]] of {path}"
        )
    configuration = _server(from_file(str(path), base), server, "--")
    # A daemon may change its working directory after this.
    path = abspath(str(path))
    reread = partial(from_options, {**server, "config": path}, base or getcwd())
    return evolve(configuration, path=path, reread=reread)


def from_file(path: str, base: str = "") -> Configuration:
    """
    Read a TOML file.

    :param base: As of :func:`from_options`.
    :raises InvalidSetting: If it cannot be read or understood; the text names the
        file and the key.
    """
    try:
        document = tomllib.loads(Path(path).read_bytes().decode())
    except OSError as error:
        raise InvalidSetting(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"{path}: not valid UTF-8: {error}") from None
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: numbers may be too long, and lists too deep.
        raise InvalidSetting(f"{path}: not valid TOML: {error}") from None
    tables = document.pop("directory", [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise InvalidSetting(
            f"{path}: directory: must be written as [[directory]], one table for each "
            "virtual directory"
        )
    groups = _groups(document.pop("groups", {}), f"{path}: groups")
    _refuse_unknown(document, [*BY_NAME, "directory", "groups"], f"{path}: ")
    if not tables:
        raise InvalidSetting(
            f"{path}: directory: missing; write a [[directory]] table for each virtual "
            "directory, with its mount and backend"
        )
    for name in ("mount", "backend"):
        if name in document:
            raise InvalidSetting(f"{path}: {name}: move it to a [[directory]]")
    everywhere = {
        name: document.pop(name) for name in _OF_DIRECTORIES if name in document
    }
    # An error message about a value at the top must not name a directory.
    for name, value in everywhere.items():
        BY_NAME[name].checked(value, f"{path}: {name}")
    directories = []
    for number, table in enumerate(tables, 1):
        where = f"{path}: directory {number}"
        if isinstance(table.get("mount"), str):
            where += f" ({table['mount']})"
        _refuse_unknown(table, [*_OF_DIRECTORIES, "permission"], f"{where}: ")
        directories.append(
            _directory(table, everywhere, f"{where}: ", "", base, groups)
        )
        if "backend" not in table:
            raise InvalidSetting(
                f"{where}: backend: missing; write, for example, "
                'backend = "disk:/srv/uploads"'
            )
    _refuse_shared_mounts(directories)
    _refuse_without_scheme(everywhere, directories, f"{path}: ")
    if not any(one.notification for one in directories) and not everywhere.get(
        "notify-url"
    ):
        _refuse_without_application(everywhere, f"{path}: ")
    return _server(Configuration(directories=tuple(directories)), document, f"{path}: ")


def _refuse_unknown(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for name in table:
        if name in known:
            continue
        if name in BY_NAME:
            raise InvalidSetting(
                f"{where}{name}: applies to the whole server; move it to the top of "
                "the file"
            )
        hint = closest(name, known)
        if name == "permission":
            hint = "; write [[directory.permission]] after its [[directory]]"
        raise InvalidSetting(f"{where}unknown key {name!r}{hint}")


def _directory(
    table: Mapping[str, Any],
    everywhere: Mapping[str, Any],
    where: str,
    dashes: str,
    base: str = "",
    groups: Mapping[str, tuple[str, ...]] | None = None,
) -> Directory:
    """
    Build one virtual directory.

    :param table: Its own values.
    :param everywhere: Defaults from the top of the file.
    :param where: What an error message begins with.
    :param dashes: What precedes a key's name there.
    :param groups: The members of each group.
    """
    before = f"{where}{dashes}"
    values = {**everywhere, **table}
    permissions = _permissions(values.pop("permission", []), before)
    found = _checked(values, before)
    notification = None
    if found[Notification].get("url") is not None:
        notification = _notification(found[Notification], before, base)
    else:
        _refuse_without_application(table, before)
    directory = Directory(
        where=where or dashes,
        creates_root=not where,
        settings=Settings(**found[Settings]),
        access=_access(found[Access], permissions, groups or {}, base),
        notification=notification,
        **found[Directory],
    )
    _refuse_without_scheme(table, [directory], before)
    if notification is not None:
        try:
            check_url(notification.url, directory.public_url)
        except InvalidSetting:
            raise InvalidSetting(
                f"{before}notify-url: {shown(notification.url)} is relative and "
                f"requires {dashes}public-url"
            ) from None
    return directory


def _checked(table: Mapping[str, Any], before: str) -> dict[type, dict[str, Any]]:
    """
    Check values.

    :param before: What an error message begins with, before the key's name.
    :returns: For each class, the attributes that they become.
    """
    found: dict[type, dict[str, Any]] = defaultdict(dict)
    for name, value in table.items():
        key = BY_NAME[name]
        found[key.owner][key.attribute.name] = key.checked(value, f"{before}{name}")
    return found


def _notification(values: Mapping[str, Any], before: str, base: str) -> Notification:
    """
    Build the settings of a server application.

    :param before: What an error message begins with, before the key's name.
    """
    notification = Notification(**values)
    if notification.secret_file is None:
        return notification
    try:
        secret = read_secret(join(base, notification.secret_file))
    except InvalidSetting as error:
        raise InvalidSetting(f"{before}notify-secret-file: {error}") from None
    return evolve(notification, secret=secret)


def _access(
    values: Mapping[str, Any],
    permissions: tuple[Permission, ...],
    groups: Mapping[str, tuple[str, ...]],
    base: str,
) -> Access:
    """Build the settings of who may use a directory, with the paths of their files."""
    access = Access(**values, permissions=permissions, groups=groups)
    files: dict[str, Any] = {
        # The same at the start and at each reload.
        name: abspath(join(base, path))
        for name in FILES_OF_ACCESS
        if (path := getattr(access, name)) is not None and "://" not in path
    }
    return evolve(access, **files)


def _groups(table: object, where: str) -> dict[str, tuple[str, ...]]:
    """Check the members of groups."""
    example = 'helpdesk = ["alice", "bob"]'
    if not isinstance(table, dict):
        raise InvalidSetting(
            f"{where}: must be written as [groups], with lines such as {example}"
        )
    for group, members in table.items():
        if not isinstance(members, list) or not all(
            isinstance(member, str) for member in members
        ):
            raise InvalidSetting(
                f"{where}: {group}: must be a list of users, such as {example}, not "
                f"{shown(members)}"
            )
        for name in (group, *members):
            try:
                checked_user_name(name)
            except CredentialsRejected as error:
                raise InvalidSetting(f"{where}: {group}: {error}") from None
    return {group: tuple(members) for group, members in table.items()}


def _permissions(tables: object, before: str) -> tuple[Permission, ...]:
    """Check the permissions of a directory."""
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise InvalidSetting(
            f"{before}permission: must be written as [[directory.permission]], one "
            "table for each permission"
        )
    return tuple(
        _permission(table, f"{before}permission {number}: ")
        for number, table in enumerate(tables, 1)
    )


def _permission(table: Mapping[str, Any], where: str) -> Permission:
    names = {"users": list, "path": str, "may": list}
    for name in table:
        if name not in names:
            raise InvalidSetting(
                f"{where}unknown key {name!r}; the keys are: {', '.join(names)}"
            )
    for name, kind in names.items():
        if name not in table:
            raise InvalidSetting(f"{where}{name}: missing")
        value = table[name]
        if not isinstance(value, kind) or (
            kind is list and not all(isinstance(one, str) for one in value)
        ):
            what = "a string" if kind is str else "a list of strings"
            raise InvalidSetting(f"{where}{name}: must be {what}, not {shown(value)}")
    try:
        return Permission(table["users"], table["path"], table["may"])
    except InvalidSetting as error:
        raise InvalidSetting(f"{where}{error}") from None


def _refuse_without_scheme(
    table: Mapping[str, Any], directories: Sequence[Directory], before: str
) -> None:
    """
    Refuse settings of authentication schemes that no directory uses.

    An unknown scheme may be a misspelled one that uses them. It is refused later, with
    a better message.
    """
    used = {one for directory in directories for one in directory.access.authenticate}
    if not {one.partition(":")[0] for one in used}.issubset(known_schemes()):
        return
    dashes = "--" if before.endswith("--") else ""
    for name, value in table.items():
        # What is empty in a directory only cancels the value from the top.
        if name not in BY_NAME or value is False or value in ("", []):
            continue
        schemes = BY_NAME[name].schemes
        if schemes and used.isdisjoint(schemes):
            raise InvalidSetting(
                f"{before}{name}: requires {dashes}authenticate with "
                f"{' or '.join(schemes)}"
            )


def _refuse_without_application(table: Mapping[str, Any], before: str) -> None:
    for name in table:
        # An empty URL or file in a directory only cancels the value from the top.
        if name in _OF_NOTIFICATION and table[name] != "":
            option = "--notify-url" if before.endswith("--") else "notify-url"
            raise InvalidSetting(f"{before}{name}: requires {option}")


def _refuse_shared_mounts(directories: Sequence[Directory]) -> None:
    taken: dict[tuple[bytes, ...], Directory] = {}
    for directory in directories:
        other = taken.setdefault(directory.segments, directory)
        if other is not directory:
            raise InvalidSetting(
                f"{directory.where}mount: {other.mount} is already used by another "
                "directory"
            )


def _server(
    configuration: Configuration, table: Mapping[str, Any], where: str
) -> Configuration:
    """
    Give a configuration the values of the whole server.

    :param where: What an error message begins with, before the key's name.
    """
    found = _checked(table, where)
    if "listen" in table:
        found[Configuration]["listen_from"] = where
    if "admin-listen" in table:
        found[Configuration]["admin_from"] = where
    limits = evolve(configuration.limits, **found[Limits])
    return evolve(configuration, limits=limits, **found[Configuration])
