"""
HTTPS: an endpoint that can require client certificates, and reads its files again.

The string ``https:443:certificate=FILE:key=FILE`` makes one in every program that uses
:func:`twisted.internet.endpoints.serverFromString`; programs can also make an
:class:`txbits.tls.endpoint.HttpsEndpoint` themselves.
"""
