"""
What ``twistd -n txbits`` is to do, as a value: from options, or from a TOML file.

Everything that can be told to be wrong from the words alone is told here, as
:class:`~txbits.errors.InvalidSetting` with one line; nothing here opens a store or a
port, but the files of secrets are read. What stands at the top of the file holds for
every ``[[directory]]`` that does not say otherwise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import getcwd
from os.path import abspath, join
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote_to_bytes

from attrs import NOTHING, evolve, field, fields_dict, frozen

from txbits.errors import InvalidSetting
from txbits.service._keys import BY_NAME, KEYS, Key
from txbits.service._kinds import closest, is_relative, shown
from txbits.service._notify import Notification, read_secret
from txbits.sessions.settings import Settings
from txbits.web import Limits

DEFAULT_LISTEN = ("tcp:8080",)
DEFAULT_BACKEND = "disk:uploads"
DEFAULT_MOUNT = "/"

_OF_DIRECTORIES = [key.name for key in KEYS if key.of_a_directory]
_OF_NOTIFICATION = [key.name for key in KEYS if key.scope == "notify"]


@frozen(kw_only=True)
class Directory:
    """
    One virtual directory.

    :ivar where: What an error message calls it.
    :ivar mount: The URL prefix that takes uploads, as the operator wrote it.
    :ivar backend: The description of its backend.
    :ivar fsync: As in :class:`~txbits.interfaces.BackendContext`.
    :ivar settings: Its rules.
    :ivar notification: The server application that is told of its uploads.
    :ivar public_url: The URL of the server's root as clients see it.
    """

    where: str
    mount: str = DEFAULT_MOUNT
    backend: str = DEFAULT_BACKEND
    fsync: Literal["close", "fragment", "never"] = "close"
    settings: Settings = field(factory=Settings)
    notification: Notification | None = None
    public_url: str | None = None

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
    :ivar trusted_proxies: Addresses and networks of proxies that are believed what they
        say of a client.
    :ivar path: The file that it was read from, if any.
    :ivar reread: Reads that again, and blocks meanwhile.
    """

    directories: tuple[Directory, ...]
    listen: tuple[str, ...] = DEFAULT_LISTEN
    listen_from: str = "--"
    limits: Limits = field(factory=Limits)
    trusted_proxies: tuple[str, ...] = ()
    path: str | None = None
    reread: Callable[[], Configuration] | None = field(
        default=None, eq=False, repr=False
    )


def default_of(key: Key) -> str:
    """
    Tell what holds where nothing is said, as one would write it.
    """
    if key.name == "listen":
        return ", ".join(DEFAULT_LISTEN)
    owner = {
        "place": Directory,
        "rules": Settings,
        "notify": Notification,
        "limits": Limits,
        "server": Configuration,
    }[key.scope]
    value = fields_dict(owner)[key.attribute].default
    if isinstance(value, bool):
        return str(value).lower()
    if value in (None, NOTHING, ()):
        return key.unset
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
    try:
        mount.encode()
    except UnicodeEncodeError:
        raise InvalidSetting(f"must be UTF-8, not {shown(mount)}") from None
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


def from_options(given: Mapping[str, object], base: str = "") -> Configuration:
    """
    Build the configuration of a command line.

    :param given: The values of the options that were given, by their names.
    :param base: Where relative paths in a file begin; nothing for the directory of the
        process.
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
    configuration = _server(from_file(str(path), base), server, "--")
    # A daemon may go to another directory after this.
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
        raise InvalidSetting(f"{path}: is not UTF-8: {error}") from None
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: numbers may be too long, and lists too deep.
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
    for name, value in everywhere.items():
        BY_NAME[name].checked(value, f"{path}: {name}")
    directories = []
    for number, table in enumerate(tables, 1):
        where = f"{path}: directory {number}"
        if isinstance(table.get("mount"), str):
            where += f" ({table['mount']})"
        _refuse_unknown(table, _OF_DIRECTORIES, f"{where}: ")
        directories.append(_directory(table, everywhere, f"{where}: ", "", base))
    _refuse_shared_mounts(directories)
    if not any(one.notification for one in directories) and not everywhere.get(
        "notify-url"
    ):
        _refuse_without_application(everywhere, f"{path}: ")
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
    table: Mapping[str, Any],
    everywhere: Mapping[str, Any],
    where: str,
    dashes: str,
    base: str = "",
) -> Directory:
    """
    Build one virtual directory.

    :param table: Its own values.
    :param everywhere: Values for what it does not say.
    :param where: What an error message begins with.
    :param dashes: What stands before a key's name there.
    """
    found: dict[str, dict[str, Any]] = {"place": {}, "rules": {}, "notify": {}}
    for name, value in {**everywhere, **table}.items():
        key = BY_NAME[name]
        checked = key.checked(value, f"{where}{dashes}{name}")
        found[key.scope][key.attribute] = checked
    before = f"{where}{dashes}"
    notification = None
    if found["notify"].get("url") is not None:
        notification = _notification(found["notify"], before, base)
    else:
        _refuse_without_application(table, before)
    directory = Directory(
        where=where or dashes,
        settings=Settings(**found["rules"]),
        notification=notification,
        **found["place"],
    )
    try:
        mount_segments(directory.mount)
    except InvalidSetting as error:
        raise InvalidSetting(f"{before}mount: {error}") from None
    if notification and directory.public_url is None and is_relative(notification.url):
        raise InvalidSetting(
            f"{before}notify-url: {shown(notification.url)} is relative, to a "
            f"{dashes}public-url that is not there"
        )
    return directory


def _notification(values: Mapping[str, Any], before: str, base: str) -> Notification:
    """
    Build what is known of a server application.

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


def _refuse_without_application(table: Mapping[str, Any], before: str) -> None:
    for name in table:
        # An empty URL or file says in a directory that it has none, nothing else.
        if name in _OF_NOTIFICATION and table[name] != "":
            raise InvalidSetting(f"{before}{name}: there is no notify-url")


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
        elif key.name == "listen":
            listen = cast(tuple[str, ...], checked)
            configuration = evolve(configuration, listen=listen, listen_from=where)
        else:
            proxies = cast(tuple[str, ...], checked)
            configuration = evolve(configuration, trusted_proxies=proxies)
    return evolve(configuration, limits=evolve(configuration.limits, **limits))
