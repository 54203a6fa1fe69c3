"""
The web: requests become packets, and results become Acks.

:class:`BITSResource` is a virtual directory, an ordinary ``twisted.web`` resource. In a
:class:`BITSSite` its uploads stream.
"""

from txbits.web._gate import Gate
from txbits.web._relay import Relay
from txbits.web._streaming import BITSSite, Limits
from txbits.web.mounts import NotMounted
from txbits.web.resource import BITSResource

__all__ = ["BITSResource", "BITSSite", "Gate", "Limits", "NotMounted", "Relay"]
