"""
What one peer, and all peers together, may take of a site.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import field, frozen, validators


@frozen(kw_only=True)
class Limits:
    """
    What one peer, and all peers together, may take of a site.

    :ivar header_timeout: Seconds for a request's head to arrive.
    :ivar body_timeout: Seconds within which at least 1 KiB of a body must arrive, or be
        taken of what is sent.
    :ivar idle_timeout: Seconds that a connection may rest between two requests. Windows
        keeps one a job, and proxies pool them: at least 120.
    :ivar max_other_body: How many bytes the body of a request for another resource may
        have: ``twisted.web`` collects it, and may parse it as a form, before the
        resource sees it.
    :ivar max_connections: How many connections there may be at a time.
    :ivar max_connections_per_peer: How many of them from one address; a proxy in front,
        or a company behind one address, needs many.
    """

    header_timeout: float = field(default=60.0, validator=validators.gt(0))
    body_timeout: float = field(default=60.0, validator=validators.gt(0))
    idle_timeout: float = field(default=180.0, validator=validators.ge(120))
    max_other_body: int = field(default=1024 * 1024, validator=validators.ge(0))
    max_connections: int = field(default=10_000, validator=validators.gt(0))
    max_connections_per_peer: int = field(default=5_000, validator=validators.gt(0))

    #: Seconds that a peer has to take its last answer and close. This is not a setting.
    close_timeout: ClassVar[float] = 30.0
