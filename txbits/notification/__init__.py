"""
Telling server applications of complete uploads.

:class:`HTTPNotifier` asks one over HTTP; :func:`notifier` makes one of a Python
function. Both are :class:`~txbits.interfaces.INotifier`; nothing here knows of packets,
or of who the clients are.
"""

from txbits.notification._function import notifier
from txbits.notification._http import HTTPNotifier

__all__ = ["HTTPNotifier", "notifier"]
