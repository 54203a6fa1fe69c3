"""
What the operator of a server looks at: whether it is ready, and its figures.

All of it is served by a site of its own, apart from the uploads'.
"""

from __future__ import annotations

from txbits.admin.health import Health, HealthResource
from txbits.admin.pages import Page
from txbits.admin.resource import AdminResource

__all__ = ["AdminResource", "Health", "HealthResource", "Page"]
