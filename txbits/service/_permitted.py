"""
Permissions that cannot mean what their author meant.

A list of permissions decides by its first match, so one that nobody can reach, or that
takes the place of another, is a mistake that no test of the server shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from txbits.access.permissions import ANONYMOUS, EVERYONE, USER, Permission
from txbits.errors import InvalidSetting
from txbits.service.settings import Directory

#: Schemes that permit by themselves: no permission is asked.
_PERMITS_ITSELF = ("link",)

#: Schemes of ours whose users have no groups but those of the settings.
_WITHOUT_GROUPS = ("basic", "negotiate", "certificate", "header", "link")

_Path = tuple[str, ...]


@frozen
class _Who:
    """
    Some of the users of a permission, who are all alike to every permission.

    :ivar name: The name of a user, ``*`` for everyone else who is known, ``@group`` for
        those whose credentials name that group, or ``anonymous``.
    """

    name: str

    @property
    def is_user(self) -> bool:
        return self.name not in (EVERYONE, ANONYMOUS) and self.name[0] != "@"

    def path_in(self, permission: Permission) -> _Path:
        """The path of a permission for these users."""
        if not self.is_user:
            return permission.segments
        return tuple(self.name if one == USER else one for one in permission.segments)


@frozen
class _Listed:
    """
    The permissions of a directory, with what they are to be checked against.

    :ivar permissions: The permissions.
    :ivar groups: The members of each group of the settings.
    :ivar has_other_groups: Whether credentials may name groups.
    """

    permissions: Sequence[Permission]
    groups: Mapping[str, tuple[str, ...]]
    has_other_groups: bool

    def users_of(self, permission: Permission) -> Iterator[_Who]:
        """All who can match a permission, whatever the others are."""
        for written in permission.users:
            if written == ANONYMOUS and permission.of_each_user:
                continue
            if not written.startswith("@"):
                yield _Who(written)
                continue
            for member in self.groups.get(written[1:], ()):
                yield _Who(member)
            if self.has_other_groups:
                yield _Who(written)

    def decides(self, permission: Permission, who: _Who, path: _Path) -> bool:
        """Whether a permission always decides for these users at and below a path."""
        named = who in self.users_of(permission) or (
            EVERYONE in permission.users and who.name != ANONYMOUS
        )
        return named and _is_within(path, who.path_in(permission))

    def is_taken(self, before: int, who: _Who, path: _Path) -> bool:
        """Whether one of the first permissions always decides."""
        return any(self.decides(one, who, path) for one in self.permissions[:before])


def _is_within(path: _Path, other: _Path) -> bool:
    return path[: len(other)] == other


def check_permissions(directory: Directory) -> None:
    """
    Refuse permissions that are a mistake.

    :raises InvalidSetting: With a whole line.
    """
    access = directory.access
    schemes = [one.partition(":")[0] for one in access.authenticate]
    asking = [one for one in schemes if one not in _PERMITS_ITSELF]
    listed = _Listed(
        access.permissions,
        access.groups,
        any(one not in _WITHOUT_GROUPS for one in schemes),
    )
    if asking and all(set(one.users) <= {ANONYMOUS} for one in access.permissions):
        line = (
            f"{directory.where}authenticate: {asking[0]} requires a "
            "[[directory.permission]] for its users"
        )
        if directory.where.endswith("--"):
            line += ", which only a file for --config has"
        raise InvalidSetting(line)
    for number, permission in enumerate(access.permissions):
        where = f"{directory.where}permission {number + 1}: "
        _check_users(permission, listed, asking, where)
        _check_reachable(number, listed, where)
    _check_anonymous(directory, listed)


def _check_users(
    permission: Permission, listed: _Listed, asking: Sequence[str], where: str
) -> None:
    """Refuse names that nobody can have."""
    for name in permission.users:
        if name == ANONYMOUS:
            continue
        if not asking:
            raise InvalidSetting(
                f"{where}users: {name!r} can never match, because authenticate has no "
                "scheme whose users need a permission"
            )
        if (
            name.startswith("@")
            and name[1:] not in listed.groups
            and not listed.has_other_groups
        ):
            raise InvalidSetting(
                f"{where}users: there is no group {name[1:]!r} in [groups]"
            )
        if set(asking) == {"negotiate"} and "@" in name[1:]:
            raise InvalidSetting(
                f"{where}users: {name!r} can never match; write the name without its "
                "realm"
            )


def _check_reachable(number: int, listed: _Listed, where: str) -> None:
    """Refuse a permission that can never decide."""
    permission = listed.permissions[number]
    users = list(listed.users_of(permission))
    if not users:
        reason = "it has no users"
        if ANONYMOUS in permission.users:
            reason = f"anonymous clients have no {USER}"
        elif permission.users:
            reason = "its groups are empty"
        raise InvalidSetting(f"{where}can never match: {reason}")
    if all(listed.is_taken(number, one, one.path_in(permission)) for one in users):
        raise InvalidSetting(
            f"{where}can never match: for its users and path, an earlier one decides"
        )


def _check_anonymous(directory: Directory, listed: _Listed) -> None:
    """
    Refuse uploads of anonymous clients where known users may upload.

    Windows sends no credentials before it is asked, and would never be asked.
    """
    uploading = [
        (number, one)
        for number, one in enumerate(listed.permissions)
        if "upload" in one.may
    ]
    anonymous = _Who(ANONYMOUS)
    for number, permission in uploading:
        if anonymous not in listed.users_of(permission):
            continue
        for other_number, other in uploading:
            known = {
                who.path_in(other)
                for who in listed.users_of(other)
                if who.name != ANONYMOUS
            }
            for path in known:
                inner = max(permission.segments, path, key=len)
                if (
                    not _is_within(inner, permission.segments)
                    or not _is_within(inner, path)
                    or listed.is_taken(number, anonymous, inner)
                ):
                    continue
                raise InvalidSetting(
                    f"{directory.where}permission {number + 1}: anonymous clients "
                    f"could upload where permission {other_number + 1} names users, "
                    "who would then never be asked who they are; separate the paths"
                )


def without_effect(directory: Directory) -> list[str]:
    """
    Find what permissions allow and the directory does not.

    :returns: A line for each.
    """
    bounds = {
        "overwrite": ("allow-overwrites", directory.settings.allow_overwrites),
        "download": ("allow-downloads", directory.settings.allow_downloads),
    }
    return [
        f"{directory.where}permission {number}: {action!r} has no effect without {key}"
        for number, one in enumerate(directory.access.permissions, 1)
        for action, (key, is_allowed) in bounds.items()
        if action in one.may and not is_allowed
    ]
