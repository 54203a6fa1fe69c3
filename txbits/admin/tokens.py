"""
Tokens in forms, which tell that a form is one of ours.

A browser sends a user's credentials with every request to a site, also if the form is
another site's (cross-site request forgery). That site cannot read our pages, and so
does not know the token.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable

from attrs import define, field

from txbits.sessions import Caller

#: Seconds that a token is valid: as long as a page may stay open.
LIFETIME = 24 * 3600.0


@define(eq=False)
class FormTokens:
    """
    Makes tokens for one user each, and recognizes them.

    :param seconds: Tells the time, by a steady clock.
    :param key: What they are signed with. By default it is a new one, which no other
        process knows and none after a restart.
    """

    _seconds: Callable[[], float]
    _key: bytes = field(factory=lambda: secrets.token_bytes(32), repr=False)

    def make(self, caller: Caller) -> str:
        """
        Make a token for a form.

        :param caller: Who the page with the form is for.
        """
        return self._signed(f"{int(self._seconds() + LIFETIME)}", caller)

    def check(self, token: str, caller: Caller) -> bool:
        """
        Whether a token is valid.

        :param caller: Who sent the form.
        """
        expires, _, _ = token.partition("-")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 20):
            return False
        signed = self._signed(expires, caller)
        is_ours = hmac.compare_digest(signed.encode(), token.encode("utf-8", "replace"))
        return is_ours and self._seconds() < int(expires)

    def _signed(self, expires: str, caller: Caller) -> str:
        said = f"{expires}/{caller.user or ''}".encode("utf-8", "surrogateescape")
        return f"{expires}-{hmac.new(self._key, said, 'sha256').hexdigest()}"
