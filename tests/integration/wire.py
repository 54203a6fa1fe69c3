"""
A client that speaks raw bytes to a server in a process of its own.

The :class:`Wire` blocks, and so belongs in a thread.
"""

import socket

PROTOCOL = b"{7df0354d-249b-430f-820d-3d2a9bef4931}"


class Lost(Exception):
    """The connection is gone."""


class Wire:
    """
    A connection to a server, for one packet after the other.

    :param port: The server's.

    :ivar rest: What was not sent of the packet that was cut last.
    """

    def __init__(self, port):
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError as error:
            raise Lost from error

    def close(self):
        self.socket.close()

    def packet(self, path, packet_type, body=b"", cut=None, **headers):
        """
        Send a packet.

        :param cut: After how many bytes to stop, instead of sending all of it.
        :returns: Status and headers (names in lower case) of its Ack; nothing if cut.
        """
        lines = [
            b"BITS_POST %b HTTP/1.1" % path,
            b"Host: localhost",
            b"BITS-Packet-Type: %b" % packet_type,
            b"Content-Length: %d" % len(body),
        ]
        for name, value in headers.items():
            lines.append(name.replace("_", "-").encode() + b": " + value)
        data = b"\r\n".join([*lines, b"", b""]) + body
        self.rest = b"" if cut is None else data[cut:]
        try:
            self.socket.sendall(data[:cut])
            return self.ack() if cut is None else None
        except OSError as error:
            raise Lost from error

    def ack(self):
        """The status and the headers of the next Ack."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more:
                raise Lost
            data += more
        head = data.split(b"\r\n\r\n")[0].split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in head[1:])
        return int(head[0].split()[1]), {k.lower(): v for k, v in headers.items()}

    def create(self, path):
        """Create a session; its id."""
        status, headers = self.packet(
            path, b"Create-Session", BITS_Supported_Protocols=PROTOCOL
        )
        assert status == 200, headers
        return headers[b"bits-session-id"]

    def fragment(self, path, session, data, first, last, cut=None):
        """Send bytes *first* to *last* (not included) of *data*."""
        return self.packet(
            path,
            b"Fragment",
            data[first:last],
            cut,
            BITS_Session_Id=session,
            Content_Range=b"bytes %d-%d/%d" % (first, last - 1, len(data)),
        )

    def close_session(self, path, session):
        return self.packet(path, b"Close-Session", BITS_Session_Id=session)

    def cancel_session(self, path, session):
        return self.packet(path, b"Cancel-Session", BITS_Session_Id=session)


def leftovers(root):
    """What is below the staging area, but for the lock and remembered closes."""
    staging = root.child(".bits-sessions")
    files = {path.basename() for path in staging.children()}
    records = staging.child("sessions-1").getContent().splitlines()
    return sorted(files - {"lock", "closed", "sessions-1"}) + [
        record for record in records if not record.startswith(b"free")
    ]
