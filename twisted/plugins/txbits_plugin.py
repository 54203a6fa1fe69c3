"""
What txbits adds to Twisted: ``twistd txbits``, and its kinds of backends.
"""

from twisted.application.service import ServiceMaker

from txbits.backends.description import (
    DiskBackendParser,
    MemoryBackendParser,
    S3BackendParser,
)

service = ServiceMaker(
    "txbits",
    "txbits.service.maker",
    "Receives BITS uploads, as Windows sends them.",
    "txbits",
)
memory = MemoryBackendParser()
disk = DiskBackendParser()
s3 = S3BackendParser()
