"""
Packets that have reached another worker than the one that has their session.

The worker that a client is connected to passes such a request on, before anyone is
authenticated, and passes the answer back. The worker that has the session does all the
rest, as if the client had connected there. The two speak HTTP over a Unix socket: one
relay connection for each connection of a client and worker, so that what a connection
remembers, such as a login, stays that of one client.
"""

from __future__ import annotations

from txbits.web._relay.incoming import RelayedChannel, RelaySite
from txbits.web._relay.relay import Relay

__all__ = ["Relay", "RelaySite", "RelayedChannel"]
