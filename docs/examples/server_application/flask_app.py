"""
A server application in Flask, told by value: counts the lines of each upload.

The count is the reply to the client. Start it with the secret that txbits has::

    BITS_SECRET=... python flask_app.py 5000

and point txbits at ``http://127.0.0.1:5000/uploads``.
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
    # The target as it was sent: request.path is decoded. Gunicorn calls it RAW_URI.
    target = request.environ["REQUEST_URI"]
    try:
        verify(SECRET, "POST", app.config["AUTHORITY"], target, headers)
        expected = digest_of(headers)
    except NotGenuine as error:
        # Not 403, which is for good: the secret may just have been changed.
        return f"{error}\n", 503

    digest = sha256()
    lines = 0
    while piece := request.stream.read(1 << 16):
        digest.update(piece)
        lines += piece.count(b"\n")
    if digest.digest() != expected:
        return "the upload is not whole\n", 503

    # One file for each session: who asks again gets the same answer, and what must
    # happen once is not done twice.
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
