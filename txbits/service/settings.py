"""
What ``twistd -n txbits`` is to do, as a value: from options, or from a TOML file.

Everything that can be told to be wrong from the words alone is told here, as
:class:`~txbits.errors.InvalidSetting` with one line; nothing here opens a store or a
port. What stands at the top of the file holds for every ``[[directory]]`` that does
not say otherwise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote_to_bytes

from attrs import evolve, field, fields_dict, frozen

from txbits.errors import InvalidSetting
from txbits.service._keys import BY_NAME, KEYS, Key, closest, shown
from txbits.sessions.settings import Settings
from txbits.web import Limits

DEFAULT_LISTEN = ("tcp:8080",)
DEFAULT_BACKEND = "disk:uploads"
DEFAULT_MOUNT = "/"

_OF_DIRECTORIES = [key.name for key in KEYS if key.of_a_directory]


@frozen(kw_only=True)
class Directory:
    """
    One virtual directory.

    :ivar where: What an error message calls it.
    :ivar mount: The URL prefix that takes uploads, as the operator wrote it.
    :ivar backend: The description of its backend.
    :ivar fsync: As in :class:`~txbits.interfaces.BackendContext`.
    :ivar settings: Its rules.
    """

    where: str
    mount: str = DEFAULT_MOUNT
    backend: str = DEFAULT_BACKEND
    fsync: Literal["close", "fragment", "never"] = "close"
    settings: Settings = field(factory=Settings)

    @property
    def segments(self) -> tuple[bytes, ...]:
        """The prefix as percent-decoded segments of a path, none for ``/``."""
        return mount_segments(self.mount)


@frozen(kw_only=True)
class Configuration:
    """
    All that the service is told.

    :ivar directories: The virtual directories, at least one.
    :ivar listen: Endpoint strings of Twisted.
    :ivar listen_from: What an error message about one of them begins with.
    :ivar limits: Limits on connections.
    """

    directories: tuple[Directory, ...]
    listen: tuple[str, ...] = DEFAULT_LISTEN
    listen_from: str = "--"
    limits: Limits = field(factory=Limits)


def default_of(key: Key) -> str:
    """
    Tell what holds where nothing is said, as one would write it.
    """
    if key.name == "listen":
        return ", ".join(DEFAULT_LISTEN)
    owner = {"place": Directory, "rules": Settings, "limits": Limits}[key.scope]
    value = fields_dict(owner)[key.attribute].default
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "0"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def mount_segments(mount: str) -> tuple[bytes, ...]:
    """
    Take a URL prefix apart.

    :param mount: Such as ``/``, ``/logs`` or ``/a%20b/c/``; the last slash is of no
        consequence.
    :returns: Its percent-decoded segments.
    :raises InvalidSetting: If it is no such prefix; the text goes behind the key.
    """
    if not mount.startswith("/"):
        raise InvalidSetting(f"must begin with a slash, not {shown(mount)}")
    path = mount.removeprefix("/").removesuffix("/")
    if not path:
        return ()
    segments = tuple(unquote_to_bytes(segment) for segment in path.split("/"))
    if "?" in mount or "#" in mount:
        raise InvalidSetting(f"must be a path without ? and #, not {shown(mount)}")
    if any(segment in (b"", b".", b"..") for segment in segments):
        raise InvalidSetting(
            f"must have no empty segment, no '.' and no '..', not {shown(mount)}"
        )
    return segments


def from_options(given: Mapping[str, object]) -> Configuration:
    """
    Build the configuration of a command line.

    :param given: The values of the options that were given, by their names.
    :raises InvalidSetting: If one cannot be used, or two do not go together.
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
            f"--{name} cannot be combined with --config; write it into a "
            f"[[directory]] of {path}"
        )
    return _server(from_file(str(path)), server, "--")


def from_file(path: str) -> Configuration:
    """
    Read a TOML file.

    :raises InvalidSetting: If it cannot be read or understood; the text names the
        file and the key.
    """
    try:
        document = tomllib.loads(Path(path).read_bytes().decode())
    except OSError as error:
        raise InvalidSetting(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"{path}: is not UTF-8: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"{path}: is not TOML: {error}") from None
    tables = document.pop("directory", [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise InvalidSetting(
            f"{path}: directory: must be written as [[directory]], a table for each "
            "virtual directory"
        )
    _refuse_unknown(document, [*BY_NAME, "directory"], f"{path}: ")
    if not tables:
        raise InvalidSetting(
            f"{path}: directory: there is none; write a [[directory]] table for each "
            "virtual directory, with its mount and backend"
        )
    for name in ("mount", "backend"):
        if name in document:
            raise InvalidSetting(
                f"{path}: {name} stands at the top; it belongs into a [[directory]]"
            )
    everywhere = {
        name: document.pop(name) for name in _OF_DIRECTORIES if name in document
    }
    # Said at the top, a wrong value is the top's fault, not the first directory's.
    _directory(everywhere, {}, f"{path}: ", "")
    directories = []
    for number, table in enumerate(tables, 1):
        where = f"{path}: directory {number}"
        if isinstance(table.get("mount"), str):
            where += f" ({table['mount']})"
        _refuse_unknown(table, _OF_DIRECTORIES, f"{where}: ")
        directories.append(_directory(table, everywhere, f"{where}: ", ""))
    _refuse_shared_mounts(directories)
    return _server(Configuration(directories=tuple(directories)), document, f"{path}: ")


def _refuse_unknown(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for name in table:
        if name in known:
            continue
        key = BY_NAME.get(name)
        if key is not None:
            raise InvalidSetting(
                f"{where}{name} holds for the whole server; "
                "it belongs to the top of the file"
            )
        raise InvalidSetting(f"{where}unknown key {name!r}{closest(name, known)}")


def _directory(
    table: Mapping[str, Any], everywhere: Mapping[str, Any], where: str, dashes: str
) -> Directory:
    """
    Build one virtual directory.

    :param table: Its own values.
    :param everywhere: Values for what it does not say.
    :param where: What an error message begins with.
    :param dashes: What stands before a key's name there.
    """
    places: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    for name, value in {**everywhere, **table}.items():
        key = BY_NAME[name]
        checked = key.checked(value, f"{where}{dashes}{name}")
        (rules if key.scope == "rules" else places)[key.attribute] = checked
    directory = Directory(where=where or dashes, settings=Settings(**rules), **places)
    try:
        mount_segments(directory.mount)
    except InvalidSetting as error:
        raise InvalidSetting(f"{where}{dashes}mount: {error}") from None
    return directory


def _refuse_shared_mounts(directories: Sequence[Directory]) -> None:
    taken: dict[tuple[bytes, ...], Directory] = {}
    for directory in directories:
        other = taken.setdefault(directory.segments, directory)
        if other is not directory:
            raise InvalidSetting(
                f"{directory.where}mount: {other.mount} is taken by another directory"
            )


def _server(
    configuration: Configuration, table: Mapping[str, Any], where: str
) -> Configuration:
    """
    Give a configuration the values that hold for the whole server.

    :param where: What an error message begins with, before the key's name.
    """
    limits: dict[str, Any] = {}
    for name, value in table.items():
        key: Key = BY_NAME[name]
        checked = key.checked(value, f"{where}{name}")
        if key.scope == "limits":
            limits[key.attribute] = checked
        else:
            listen = cast(tuple[str, ...], checked)
            configuration = evolve(configuration, listen=listen, listen_from=where)
    return evolve(configuration, limits=evolve(configuration.limits, **limits))
