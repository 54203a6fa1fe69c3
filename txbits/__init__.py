"""
txbits receives what every Windows machine can send: BITS uploads.

A two-minute tour. The protocol is MC-BUP: a client creates a *session* for a URL,
sends *fragments* of a file, over minutes or weeks and any number of connections, and
closes the session; then the file appears at the URL. Or it cancels, and nothing is
left. :mod:`txbits.protocol` reads and writes the packets.

A *backend* keeps the bytes. :mod:`txbits.interfaces` says what one is;
:mod:`txbits.backends` has memory and disk, and finds others as plugins.

:class:`txbits.sessions.SessionManager` stands between: which packet acts next in a
session, when it times out, and that nothing of a session is left when its Close or
Cancel is acknowledged.

:class:`txbits.web.BITSResource` is an ordinary ``twisted.web`` resource over it.
Under :class:`txbits.web.BITSSite` the bodies of uploads stream; embedding takes
three lines::

    root.putChild(b"upload", BITSResource(backend, settings))
    site = BITSSite(root)
    endpoint.listen(site)

``twistd -n txbits`` does this from a command line (:mod:`txbits.service`), and
``txbits upload FILE URL`` is the other end (:mod:`txbits.client`).
"""
