"""
What settings and notifiers require of a backend.
"""

from __future__ import annotations

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
from txbits.sessions.settings import Settings

#: What every notifier needs: the answer is kept with the session, and the upload is
#: read back if its digest is not known.
_NOTIFICATION = frozenset({IAnswerable, IReadable})


def require_abilities(
    backend: IBackend,
    settings: Settings,
    notifier: INotifier | None,
    name: str = "this backend",
) -> None:
    """
    Check that a backend can do what settings and a notifier require.

    :param name: The backend, for the error message.
    :raises InvalidSetting: If it cannot; the text begins with the setting's name.
    """
    if settings.allow_downloads and not IDownloadable.providedBy(backend):
        raise InvalidSetting(
            "allow-downloads: requires a backend whose files can be read "
            f"(IDownloadable); {name} does not support this"
        )
    if (reason := why_only_overwriting(backend, settings)) is not None:
        raise InvalidSetting(f"allow-overwrites: {reason}")
    if notifier is None:
        return
    abilities = (
        IAbilities(backend).session_abilities if IAbilities.providedBy(backend) else ()
    )
    missing = (_NOTIFICATION | set(notifier.needs)).difference(abilities)
    if not missing:
        return
    if missing == {IAddressable}:
        required = "notify-by: 'reference' requires a backend whose uploads other "
        required += "programs can open"
    else:
        required = "notify-url: requires a backend that keeps uploads until an "
        required += "application has answered"
    names = ", ".join(sorted(one.__name__ for one in missing))
    raise InvalidSetting(f"{required} ({names}); {name} does not support this")


def why_only_overwriting(backend: IBackend, settings: Settings) -> str | None:
    """
    Find out whether a backend can keep existing files, if settings ask for that.

    :returns: Why not, and what to do about it; ``None`` if it can, or has not started.
    """
    if settings.allow_overwrites or not IOverwriting.providedBy(backend):
        return None
    return IOverwriting(backend).why_only_overwriting()
