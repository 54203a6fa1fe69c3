"""
Notifies server applications of complete uploads.

:class:`HTTPNotifier` uses HTTP; :func:`notifier` wraps a Python function. Both provide
:class:`~txbits.interfaces.INotifier`. This package does not depend on packets or on the
web server.
"""

from txbits.notification._function import notifier
from txbits.notification._http import HTTPNotifier

__all__ = ["HTTPNotifier", "notifier"]
