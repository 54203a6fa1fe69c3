"""
Faults in ranges.
"""

from __future__ import annotations

from tests.check.faults._registry import before, taken
from tests.check.scripted import FAIL, INVALID


def is_range(request, *values):
    return request.kind == "fragment" and request["content-range"] in values


@before("range-is-there")
def _(server, request):
    return is_range(request, "") and server.refuse(500, FAIL)


@before("range-is-well-formed")
def _(server, request):
    return is_range(request, "lines 0-99/1000") and taken(request)


@before("range-runs-forward")
def _(server, request):
    return is_range(request, "bytes 99-0/1000") and server.refuse(416, 0, received=0)


@before("range-is-within-total")
def _(server, request):
    return is_range(request, "bytes 0-99/99") and taken(request)


@before("range-is-as-long-as-body")
def _(server, request):
    return is_range(request, "bytes 0-98/1000") and taken(request)


@before("range-is-below-2-to-63")
def _(server, request):
    return len(request["content-range"]) > 40 and server.refuse(500, FAIL)


@before("range-unit-in-any-case")
def _(server, request):
    return request["content-range"].startswith("Bytes") and server.refuse(400, INVALID)


@before("range-total-is-constant")
def _(server, request):
    return request["content-range"].endswith("/1001") and taken(request)


@before("range-of-nothing")
def _(server, request):
    return is_range(request, "bytes */0") and server.refuse(400, INVALID)


@before("range-of-one-byte")
def _(server, request):
    return is_range(request, "bytes 0-0/1") and server.refuse(400, INVALID)
