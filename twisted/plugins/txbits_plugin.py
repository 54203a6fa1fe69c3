"""
What txbits adds to Twisted: ``twistd txbits``, its kinds of backends, and the endpoint
``https:``.
"""

from twisted.application.service import ServiceMaker

from txbits.backends.description import (
    DiskBackendParser,
    MemoryBackendParser,
    S3BackendParser,
)
from txbits.tls.description import HttpsEndpointParser

service = ServiceMaker(
    "txbits",
    "txbits.service.maker",
    "Receives BITS uploads, as Windows sends them.",
    "txbits",
)
memory = MemoryBackendParser()
disk = DiskBackendParser()
s3 = S3BackendParser()
https = HttpsEndpointParser()
