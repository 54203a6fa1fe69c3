"""
Permissions that are good for one upload: of all sessions that have one in common, only
one is ever published, or handed to a server application.

The claim is taken in the store before that, and is never given back once
that may have happened. A process that is killed between the two leaves a session with a
claim: its Close-Session goes on, and if none comes, the permission is used up. That is
better than a second file.
"""

from __future__ import annotations

from txbits.errors import (
    AccessDenied,
    BackendError,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    ParentMissing,
)
from txbits.interfaces import IClaim, IClaimable
from txbits.sessions._active import ActiveSessions
from txbits.sessions._session import Session

#: After these failures of a publication it is certain that no file has appeared. After
#: others the store may have carried it out.
_NOTHING_APPEARED = (
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    ParentMissing,
)


async def require_unclaimed(active: ActiveSessions, name: str) -> None:
    """
    Refuse a new session whose file could not be published.

    :param name: The claim that it would need.
    :raises AccessDenied: If another session has it.
    :raises BackendError: If that cannot be told.
    """
    if await _claimable(active).is_claimed(name):
        raise AccessDenied("only one upload is permitted, and it was made")


async def claim_for(active: ActiveSessions, session: Session) -> IClaim | None:
    """
    Take the claim that a session needs, before its file is published or handed over.

    :returns: ``None`` if it needs none.
    :raises AccessDenied: If another session has it.
    :raises BackendError: If it cannot be taken.
    """
    grant = session.grant
    if grant.claim is None:
        return None
    claim = await _claimable(active).claim(
        grant.claim, session.upload.session_id, grant.claim_until
    )
    if claim is None:
        raise AccessDenied("only one upload is permitted, and it is another session's")
    return claim


async def withdraw_after(
    active: ActiveSessions, claim: IClaim | None, error: BackendError
) -> None:
    """
    Give a claim back after a publication has failed, if no file can have appeared.

    :param error: The failure.
    """
    if isinstance(error, _NOTHING_APPEARED):
        await withdraw(active, claim)


async def withdraw(active: ActiveSessions, claim: IClaim | None) -> None:
    """Give a claim back, if there is one, since its session is never published."""
    if claim is None:
        return
    try:
        await claim.withdraw()
    except BackendError as fault:
        # Only this session can be published now, which is safe.
        active.failed("close", fault)


def _claimable(active: ActiveSessions) -> IClaimable:
    if not IClaimable.providedBy(active.backend):
        active.report_no_claims()
        raise AccessDenied("the backend cannot limit a permission to one upload")
    return IClaimable(active.backend)
