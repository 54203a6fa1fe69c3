"""
Makes upload links, and tells what they are good for, from the settings of a server.

This is for an operator on the host of the server: ``txbits link``. It reads files, and
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from attrs import frozen

from txbits.access.links import (
    Link,
    LinkKeys,
    canonical_mount,
    is_revoked,
    new_id,
)
from txbits.backends import backend_from_description
from txbits.errors import CredentialsRejected, InvalidSetting
from txbits.interfaces import BackendContext, IClaimable, checked_user_name
from txbits.protocol.urls import LINK_PARAMETER, LONGEST_URL, links_of
from txbits.service._kinds import shown
from txbits.service._reading import from_file
from txbits.service.settings import Directory

__all__ = ["InvalidSetting", "MadeLink", "ShownLink", "make_link", "new_key", "show"]

#: Links that are valid for longer are mistakes.
_LONGEST_VALID = 10 * 366 * 24 * 3600.0

#: What stands for the name of a file in the URL of a folder.
_ANY_FILE = "FILE"


@frozen
class MadeLink:
    """
    A new link.

    :ivar url: Its URL. That of a folder is completed by the name of a file.
    :ivar powershell: A command that uses it.
    """

    url: str
    powershell: str


@frozen
class ShownLink:
    """
    What a link is good for.

    :ivar link: The link.
    :ivar path: The path of its URL; with a slash at the end, all below it.
    :ivar state: ``"valid"``, ``"expired"``, ``"revoked"``, or why else it is not valid.
    """

    link: Link
    path: str
    state: str


def new_key() -> str:
    """Make a key for a file of keys."""
    return LinkKeys.new_key()


def make_link(
    config: str,
    path: str,
    *,
    now: float,
    lasts: float,
    max_size: int | None,
    name: str | None,
    is_once: bool,
    reactor: Any,
) -> MadeLink:
    """
    Make a link.

    :param config: The settings file of the server.
    :param path: The path of the URL: a file, or with a slash at the end all below it.
    :param now: The time, in seconds since the epoch.
    :param lasts: For how many seconds it is valid.
    :param reactor: What a backend is made with; it is not started.
    :raises InvalidSetting: With one line.
    """
    if not 1 <= lasts <= _LONGEST_VALID:
        raise InvalidSetting("--expires: must be from 1 second to 10 years")
    directory, below = _directory_of(_directories(config), _segments(path), path)
    if directory.public_url is None:
        raise InvalidSetting(
            f"{directory.where}public-url: missing; a link begins with the URL at "
            "which clients reach this server"
        )
    keys = _keys_of(directory)
    is_tree = path.endswith("/")
    if not below and not is_tree:
        raise InvalidSetting(
            f"--path: {shown(path)} is a directory of the server; append a slash for "
            "all files below it"
        )
    if is_once:
        _require_claims(directory, reactor)
    link_id = new_id()
    link = Link(
        link_id,
        canonical_mount(directory.mount),
        below,
        is_tree,
        int(now + lasts),
        max_size,
        link_id if name is None else _checked(name),
        is_once,
    )
    query = f"{LINK_PARAMETER}={keys.sign(link)}"
    base = directory.public_url + _path_of(link)
    url = f"{base}?{query}"
    if len(url) > LONGEST_URL:
        raise InvalidSetting(
            f"--path: the URL has {len(url):,} characters, and {LONGEST_URL:,} are the "
            "maximum of BITS clients"
        )
    target = f"{base}{_ANY_FILE}?{query}" if is_tree else url
    file = _ANY_FILE if is_tree else below[-1].replace("'", "''")
    return MadeLink(
        url,
        f"Start-BitsTransfer -TransferType Upload -Source '{file}' "
        f"-Destination '{target}'",
    )


def show(config: str, url: str, *, now: float) -> ShownLink:
    """
    Tell what a link is good for.

    :param config: The settings file of the server.
    :param url: The URL with the link, or any URL that was made from it.
    :param now: The time, in seconds since the epoch.
    :raises InvalidSetting: With one line, if it is no link of the server.
    """
    found = links_of(urlsplit(url).query.encode("utf-8", "replace"))
    if len(found) != 1:
        raise InvalidSetting(
            f"--show: the URL must have one parameter {LINK_PARAMETER}; quote it, "
            "since a shell cuts it at &"
        )
    link, directory = _verified(_directories(config), found[0])
    if directory is None:
        state = f"not valid: no directory with this key is mounted at {link.mount}"
        return ShownLink(link, _path_of(link), state)
    access = directory.access
    grace = access.link_grace
    if grace is None:
        grace = directory.settings.session_timeout
    state = "valid"
    if is_revoked(link, access.revoked_links):
        state = "revoked"
    elif now >= link.expires + grace:
        state = "expired"
    elif now >= link.expires:
        state = "expired, and good for open sessions only"
    return ShownLink(link, _path_of(link), state)


def _verified(
    directories: Sequence[Directory], signed: bytes
) -> tuple[Link, Directory | None]:
    """
    Find the virtual directory of a link.

    :returns: The link, and its directory; ``None`` if only others have signed it.
    """
    link = None
    problem = InvalidSetting("--show: no key of this server has signed the link")
    for directory in directories:
        if "link" not in directory.access.authenticate:
            continue
        try:
            link = _keys_of(directory).verify(signed)
        except CredentialsRejected:
            continue
        except InvalidSetting as error:
            problem = error
            continue
        if link.mount == canonical_mount(directory.mount):
            return link, directory
    if link is None:
        raise problem
    return link, None


def _directories(config: str) -> Sequence[Directory]:
    return from_file(config).directories


def _segments(path: str) -> tuple[str, ...]:
    """
    Split the path of a URL.

    :raises InvalidSetting: If a link cannot have it.
    """
    if not path.startswith("/") or "?" in path or "#" in path:
        raise InvalidSetting(
            f"--path: must be the path of a URL, such as /cases/17/, not {shown(path)}"
        )
    inner = path.removeprefix("/").removesuffix("/")
    try:
        encoded = [one.encode() for one in inner.split("/")] if inner else []
        segments = tuple(unquote_to_bytes(one).decode() for one in encoded)
    except UnicodeError:
        raise InvalidSetting(f"--path: must be UTF-8, not {shown(path)}") from None
    for segment in segments:
        if segment in ("", ".", "..") or any(one in segment for one in "/\\\0"):
            raise InvalidSetting(
                f"--path: {shown(path)} can be no file; remove empty segments and dots"
            )
    return segments


def _directory_of(
    directories: Sequence[Directory], segments: tuple[str, ...], path: str
) -> tuple[Directory, tuple[str, ...]]:
    """
    Find the virtual directory of a path: that with the longest mount.

    :returns: The directory, and the segments below its mount.
    """
    best: Directory | None = None
    encoded = tuple(one.encode() for one in segments)
    for directory in directories:
        mount = directory.segments
        if encoded[: len(mount)] == mount and (
            best is None or len(mount) > len(best.segments)
        ):
            best = directory
    if best is None:
        mounts = ", ".join(sorted(one.mount for one in directories))
        raise InvalidSetting(
            f"--path: {shown(path)} is in no directory of the server; its mounts are: "
            f"{mounts}"
        )
    return best, segments[len(best.segments) :]


def _keys_of(directory: Directory) -> LinkKeys:
    access = directory.access
    if "link" not in access.authenticate:
        raise InvalidSetting(
            f"{directory.where}authenticate: has no link, so links are not accepted"
        )
    if access.link_key_file is None:
        raise InvalidSetting(
            f"{directory.where}link-key-file: missing; txbits link --new-key makes a "
            "key for it"
        )
    try:
        return LinkKeys.read(access.link_key_file)
    except InvalidSetting as error:
        raise InvalidSetting(f"{directory.where}link-key-file: {error}") from None


def _require_claims(directory: Directory, reactor: Any) -> None:
    notifies = directory.notification is not None
    context = BackendContext(reactor, directory.fsync, notifies)
    backend = backend_from_description(directory.backend, context)
    if not IClaimable.providedBy(backend):
        raise InvalidSetting(
            f"--once: {directory.backend} cannot remember that a link was used "
            "(IClaimable)"
        )


def _checked(name: str) -> str:
    try:
        return checked_user_name(name)
    except CredentialsRejected as error:
        raise InvalidSetting(f"--name: {error}") from None


def _path_of(link: Link) -> str:
    """The path of the URL of a link."""
    mount = link.mount.rstrip("/")
    below = "".join("/" + quote(one, safe="") for one in link.path)
    return mount + below + ("/" if link.is_tree else "")
