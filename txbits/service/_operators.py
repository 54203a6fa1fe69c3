"""
Who may connect to the operator's listener: the rules for its settings.
"""

from __future__ import annotations

from txbits.errors import InvalidSetting
from txbits.service._kinds import mount_segments
from txbits.service._listeners import listening
from txbits.service.settings import Configuration, Directory


def check_admin(configuration: Configuration) -> None:
    """
    Refuse settings with which not only the operator could connect.

    :raises InvalidSetting: With a whole line.
    """
    where = configuration.admin_from
    endpoint = configuration.admin_listen
    if endpoint is None:
        for name in ("admin-users", "admin-directory"):
            if getattr(configuration, name.replace("-", "_")):
                raise InvalidSetting(f"{where}{name}: requires admin-listen")
    elif configuration.admin_users:
        admin_directory(configuration)
    elif configuration.admin_directory is not None:
        raise InvalidSetting(f"{where}admin-directory: requires admin-users")
    else:
        _require_private(endpoint, f"{where}admin-listen: {endpoint}")


def _require_private(endpoint: str, where: str) -> None:
    """Refuse an endpoint that not only some users of this machine can connect to."""
    said = listening(endpoint)
    if not said.is_file:
        raise InvalidSetting(
            f"{where}: requires admin-users, unless it is a Unix socket, such as "
            "unix:/run/txbits/admin:mode=600"
        )
    if not said.is_private:
        raise InvalidSetting(
            f"{where}: every user of this machine could connect; append :mode=600, or "
            ":mode=660 for a group"
        )


def admin_directory(configuration: Configuration) -> Directory:
    """
    Find the directory whose authentication schemes know the operators.

    :raises InvalidSetting: With a whole line, if there is none, or more than one.
    """
    wanted = configuration.admin_directory
    able = [
        one
        for one in configuration.directories
        # Upload links are for uploads.
        if any(scheme != "link" for scheme in one.access.authenticate)
    ]
    if wanted is not None:
        able = [one for one in able if one.segments == mount_segments(wanted)]
    if len(able) == 1:
        return able[0]
    where = configuration.admin_from
    if wanted is not None:
        raise InvalidSetting(
            f"{where}admin-directory: {wanted} must be the mount of a directory with "
            "authentication schemes other than link"
        )
    if able:
        mounts = ", ".join(one.mount for one in able)
        raise InvalidSetting(
            f"{where}admin-users: several directories have authentication schemes: "
            f"{mounts}; set admin-directory to the one that knows these users"
        )
    raise InvalidSetting(
        f"{where}admin-users: requires a directory with authentication schemes other "
        "than link"
    )
