"""
What txbits adds to Twisted: ``twistd txbits``, its kinds of backends, and the endpoint
``https:``.
"""

from typing import Any

from twisted.application.service import ServiceMaker

from txbits._loading import Loading
from txbits.backends.description import (
    DiskBackendParser,
    MemoryBackendParser,
    S3BackendParser,
)
from txbits.tls.description import HttpsEndpointParser


class _Maker(ServiceMaker):
    """Loads the server when ``twistd`` or ``twist`` is told to start one."""

    @property
    def options(self) -> Any:
        with Loading():
            return super().options


service = _Maker(
    "txbits",
    "txbits.service.maker",
    "Receives BITS uploads, as Windows sends them.",
    "txbits",
)
memory = MemoryBackendParser()
disk = DiskBackendParser()
s3 = S3BackendParser()
https = HttpsEndpointParser()
