"""
Permissions: which users may do what, and where.

They are a list. The first one that names the user and contains the path decides,
whatever it allows; without one, nothing is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from txbits.errors import AccessDenied, CredentialsRejected, InvalidSetting
from txbits.interfaces import (
    Grant,
    IAccessPolicy,
    Identity,
    checked_user_name,
    contains,
)

#: What a permission can allow.
ACTIONS = ("upload", "overwrite", "download")

#: Everyone who is known, and clients without credentials.
EVERYONE, ANONYMOUS = "*", "anonymous"

#: What stands for the user's name in a path.
USER = "{user}"

_READING = frozenset({"GET", "HEAD"})


def path_segments(path: str) -> tuple[str, ...]:
    """
    Split the path of a permission.

    :param path: Such as ``/``, ``/cases/17`` or ``/{user}``, percent-encoded as in
        URLs; a trailing slash is ignored.
    :returns: Its percent-decoded segments; ``{user}`` stays as it is.
    :raises InvalidSetting: If it cannot be one.
    """
    if not path.startswith("/"):
        raise InvalidSetting(f"path: must begin with a slash, not {path[:80]!a}")
    if path == "/":
        return ()
    if "?" in path or "#" in path:
        raise InvalidSetting(f"path: must be a path without ? and #, not {path[:80]!a}")
    return tuple(_segment(one, path) for one in path[1:].removesuffix("/").split("/"))


def _segment(written: str, path: str) -> str:
    if written == USER:
        return written
    if "{" in written or "}" in written:
        raise InvalidSetting(
            f"path: only a whole segment can be {USER}, a literal brace is %7B or "
            f"%7D, not {path[:80]!a}"
        )
    try:
        segment = unquote_to_bytes(written).decode()
    except UnicodeError:
        raise InvalidSetting(f"path: must be UTF-8, not {path[:80]!a}") from None
    if segment in ("", ".", "..") or any(one in segment for one in "/\\\0"):
        raise InvalidSetting(
            "path: must have no empty segment, no '.', no '..', and no slash, "
            f"backslash or NUL in a segment, not {path[:80]!a}"
        )
    return segment


def _checked_users(users: Iterable[str]) -> tuple[str, ...]:
    names = tuple(users)
    for name in names:
        if name in (EVERYONE, ANONYMOUS):
            continue
        if _is_group(name):
            continue
        try:
            checked_user_name(name.removeprefix("@"))
        except CredentialsRejected as error:
            raise InvalidSetting(f"users: {error}") from None
    return names


def _is_group(name: str) -> bool:
    """
    Whether this may be a group of tokens. Its name is never part of a path: Keycloak
    has groups such as ``/helpdesk``, and other issuers have URNs.
    """
    group = name[1:]
    return (
        name.startswith("@")
        and group.isprintable()
        and not group.startswith("@")
        and group not in ("", EVERYONE, ANONYMOUS)
    )


def _checked_actions(may: Iterable[str]) -> frozenset[str]:
    actions = tuple(may)
    for action in actions:
        if action not in ACTIONS:
            raise InvalidSetting(
                f"may: must be a list of some of {', '.join(map(repr, ACTIONS))}, not "
                f"{action[:80]!a}"
            )
    if "overwrite" in actions and "upload" not in actions:
        raise InvalidSetting("may: 'overwrite' requires 'upload'")
    return frozenset(actions)


@frozen
class Permission:
    """
    What some users may do at and below a path.

    :ivar users: Names of users, ``@group``, ``*`` for everyone who is known, and
        ``anonymous`` for clients without credentials.
    :ivar path: The path of a folder or a file below the virtual directory, as
        :func:`path_segments` splits it; a segment ``{user}`` stands for the name of the
        user.
    :ivar may: Some of ``upload``, ``overwrite`` and ``download``; none refuses
        everything.
    :raises InvalidSetting: If one of them cannot be used.
    """

    users: tuple[str, ...] = field(converter=_checked_users)
    path: str
    may: frozenset[str] = field(converter=_checked_actions)
    segments: tuple[str, ...] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "segments", path_segments(self.path))

    @property
    def of_each_user(self) -> bool:
        """Whether the path depends on the name of the user."""
        return USER in self.segments


@frozen
class _Rule:
    """A permission in a form that is quickly looked up."""

    anonymous: bool
    everyone: bool
    names: frozenset[str]
    groups: frozenset[str]
    path: tuple[str, ...]
    of_each_user: bool
    may: frozenset[str]
    grant: Grant

    def names_sender(self, identity: Identity | None) -> bool:
        if identity is None:
            # Without a name, there is no path of the user.
            return self.anonymous and not self.of_each_user
        return (
            self.everyone
            or identity.name in self.names
            or not self.groups.isdisjoint(identity.groups)
        )

    def path_for(self, identity: Identity | None) -> tuple[str, ...]:
        if identity is None or not self.of_each_user:
            return self.path
        return tuple(identity.name if one == USER else one for one in self.path)


@implementer(IAccessPolicy)
class Permissions:
    """
    Decides by a list of permissions.

    :param permissions: The first one that names the user and contains the destination
        decides.
    :param groups: The members of each group, in addition to the groups that
        credentials name.
    """

    def __init__(
        self,
        permissions: Iterable[Permission],
        groups: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        members = {} if groups is None else groups
        self._rules = tuple(_rule(one, members) for one in permissions)

    def check(
        self, identity: Identity | None, destination: tuple[str, ...], packet_type: str
    ) -> Deferred[Grant | None]:
        """Permit or refuse a packet. The Deferred has already fired."""
        action = "download" if packet_type in _READING else "upload"
        for number, rule in enumerate(self._rules, 1):
            if rule.names_sender(identity) and contains(
                rule.path_for(identity), destination
            ):
                if action in rule.may:
                    return succeed(rule.grant)
                reason = f"permission {number} does not allow {action}"
                return fail(AccessDenied(reason))
        return fail(AccessDenied("no permission names the user and contains the path"))


def _rule(permission: Permission, members: Mapping[str, Iterable[str]]) -> _Rule:
    groups = frozenset(one[1:] for one in permission.users if one.startswith("@"))
    names = {one for one in permission.users if not one.startswith("@")}
    for group in groups:
        names.update(members.get(group, ()))
    return _Rule(
        ANONYMOUS in permission.users,
        EVERYONE in permission.users,
        frozenset(names - {ANONYMOUS, EVERYONE}),
        groups,
        permission.segments,
        permission.of_each_user,
        permission.may,
        Grant(overwrite="overwrite" in permission.may),
    )
