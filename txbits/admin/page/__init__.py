"""
The operator's page: what is going on now, at a glance.

It is HTML that works without a script. With the script, which is small, the server
sends what changes. :class:`OperatorPage` answers requests, :class:`Gatherer` and
:class:`Sampler` know what is to be shown.
"""

from __future__ import annotations

from txbits.admin.page.glance import Gatherer, Glance, merged
from txbits.admin.page.overview import OperatorPage
from txbits.admin.page.samples import Sampler

__all__ = ["Gatherer", "Glance", "OperatorPage", "Sampler", "merged"]
