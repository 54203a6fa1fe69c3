"""
Settings that need what their backend cannot do are refused at the start.
"""

from __future__ import annotations

from typing import Any

from txbits.errors import InvalidSetting
from txbits.interfaces import (
    IAbilities,
    IAddressable,
    IAnswerable,
    IBackend,
    IDownloadable,
    INotifier,
    IOverwriting,
    IReadable,
)
from txbits.notification import HTTPNotifier
from txbits.service.settings import Directory

#: Which setting asks for each ability of uploads, and what is said without it.
_NEEDED = (
    (IAnswerable, "notify-url", "it cannot keep what an application answers"),
    (IReadable, "notify-url", "its uploads cannot be read back"),
    (IAddressable, "notify-by", "other programs cannot find its uploads"),
)


def notifier_of(directory: Directory, reactor: Any) -> INotifier | None:
    """
    Make what tells a directory's server application.

    :raises InvalidSetting: With a whole line, if its settings cannot be used.
    """
    told = directory.notification
    if told is None:
        return None
    try:
        return HTTPNotifier(
            reactor,
            told.url,
            by=told.by,
            public_url=directory.public_url,
            secret=told.secret,
            **told.timeouts,
        )
    except InvalidSetting as error:
        raise InvalidSetting(f"{directory.where}notify-url: {error}") from None


def refuse_unable(
    directory: Directory, backend: IBackend, notifier: INotifier | None
) -> None:
    """
    Look whether a backend can do what its directory's settings ask for.

    :param notifier: What :func:`notifier_of` has made.
    :raises InvalidSetting: With a whole line, if not.
    """
    unfit = f"cannot be used with {directory.backend}"
    if directory.settings.allow_downloads and not IDownloadable.providedBy(backend):
        raise InvalidSetting(
            f"{directory.where}allow-downloads: {unfit}: its files cannot be read"
        )
    if not directory.settings.allow_overwrites and IOverwriting.providedBy(backend):
        # None before it has started; the manager asks again then.
        reason = IOverwriting(backend).why_only_overwriting()
        if reason is not None:
            raise InvalidSetting(f"{directory.where}allow-overwrites: {reason}")
    if notifier is None:
        return
    abilities = (
        IAbilities(backend).session_abilities if IAbilities.providedBy(backend) else ()
    )
    for ability, key, reason in _NEEDED:
        is_wanted = ability is not IAddressable or ability in notifier.needs
        if is_wanted and ability not in abilities:
            raise InvalidSetting(f"{directory.where}{key}: {unfit}: {reason}")
