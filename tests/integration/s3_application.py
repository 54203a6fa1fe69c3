"""
A server application that is told of uploads in S3 by reference, in a process of its
own.

It reads each upload from its ``s3://`` URL with botocore, writes its reply to where
that goes, and lets the upload be published::

    python -m tests.integration.s3_application ENDPOINT
"""

import sys
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote, urlsplit

from tests.seaweedfs import new_client


def reply_to(data):
    """What it replies to an upload."""
    return f"{len(data)} bytes, {sha256(data).hexdigest()}\n".encode()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        client = self.server.client
        data = client.get_object(**self.named("Request"))["Body"].read()
        client.put_object(**self.named("Response"), Body=reply_to(data))
        self.send_response(200)
        self.send_header("BITS-Copy-File-To-Destination", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def named(self, which):
        """Bucket and key of an object that the request names."""
        url = urlsplit(self.headers[f"BITS-{which}-DataFile-Name"])
        assert url.scheme == "s3", url
        return {"Bucket": url.netloc, "Key": unquote(url.path[1:])}


def main(endpoint):
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.client = new_client(endpoint)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
