"""
The user of the system that this process runs as.
"""

from __future__ import annotations

import os
import pwd


def system_user() -> str:
    """The name of the user that this process runs as, or its number."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
