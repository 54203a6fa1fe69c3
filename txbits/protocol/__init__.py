"""
The protocol, and nothing else: no socket, no file, no Twisted.

Client and server share it, and so cannot disagree on the wire.

- :mod:`~txbits.protocol.packets`: the packets and their Acks, as values.
- :mod:`~txbits.protocol.codec`: from a request's head to a packet and back, from an
  Ack to status and headers and back.
- :mod:`~txbits.protocol.refusals`: the failure table.
- :mod:`~txbits.protocol.placement`: where a fragment falls against what is held.
- :mod:`~txbits.protocol.session`: the life of a session on the server.
- :mod:`~txbits.protocol.upload`: the life of an upload on the client.
"""
