"""
A server application in Flask, notified by value: count the lines of each upload.

The count is the reply to the client. Start it with the secret of txbits::

    BITS_SECRET=... python flask_app.py 5000

and set ``http://127.0.0.1:5000/uploads`` as ``notify-url``.
"""

import os
import sys
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from bits_signature import NotGenuine, digest_of, verify
from flask import Flask, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import make_server

SECRET = os.environ["BITS_SECRET"].encode()
RESULTS = Path("results")

app = Flask(__name__)


@app.post("/uploads")
def upload() -> ResponseReturnValue:
    headers = {name.lower(): value for name, value in request.headers.items()}
    # The encoded target; request.path is decoded. In Gunicorn, use RAW_URI.
    target = request.environ["REQUEST_URI"]
    try:
        verify(SECRET, "POST", app.config["AUTHORITY"], target, headers)
        expected = digest_of(headers)
    except NotGenuine as error:
        # Not 403, which is final: the secret may have changed just now.
        return f"{error}\n", 503

    digest = sha256()
    lines = 0
    while piece := request.stream.read(1 << 16):
        digest.update(piece)
        lines += piece.count(b"\n")
    if digest.digest() != expected:
        return "the upload is incomplete\n", 503

    # One file for each session, so that a repeated notification gets the same answer
    # and does the work only once.
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / f"{UUID(headers['bits-session-id'])}.txt"
    if not result.exists():
        unfinished = result.with_suffix(f".{os.getpid()}")
        unfinished.write_text(f"{lines} lines\n")
        unfinished.replace(result)
    return result.read_bytes(), 200, {"BITS-Copy-File-To-Destination": "1"}


if __name__ == "__main__":
    server = make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True)
    app.config["AUTHORITY"] = f"127.0.0.1:{server.server_port}"
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
