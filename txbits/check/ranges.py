"""
Content-Range: valid and invalid ranges.
"""

from __future__ import annotations

from txbits.check._bench import DATA, LENGTH, Bench
from txbits.check._messages import content_range
from txbits.check._model import MUST, TXBITS, Group
from txbits.check._rows import (
    ACCEPTED,
    HALF,
    INVALID,
    Request,
    Row,
    add_rows,
    fragment,
    half,
)

GROUP = Group("Ranges")


def _hundred(*values: bytes | None) -> dict[str, Request]:
    """Fragments of 100 bytes with these ranges."""
    return {
        "no range" if value is None else value[:40].decode(): fragment(
            {b"Content-Range": value}, 0, 100
        )
        for value in values
    }


def _with_body(value: bytes, body: bytes) -> Request:
    return lambda bench, session: bench.fragment(
        session, headers={b"Content-Range": value}
    ).with_body(body)


# fmt: off
add_rows(GROUP, (
    Row("range-is-there", "2.2.6.1", MUST, "A Fragment without Content-Range",
        Bench.session, _hundred(None), INVALID),
    Row("range-is-well-formed", "3.2.5.2.6", MUST, "A malformed Content-Range",
        Bench.session, _hundred(b"bytes 0-99", b"bytes=0-99/1000", b"lines 0-99/1000",
                                b"bytes a-b/c"), INVALID),
    Row("range-runs-forward", "3.2.5.2.6", MUST, "A range that ends before its start",
        Bench.session, _hundred(b"bytes 99-0/1000"), INVALID),
    Row("range-is-within-total", "3.2.5.2.6", MUST,
        "A range that ends beyond the total",
        Bench.session, _hundred(b"bytes 0-99/99"), INVALID),
    Row("range-is-as-long-as-body", "3.2.5.2.6", MUST,
        "A range that is shorter or longer than the body", Bench.session,
        _hundred(b"bytes 0-98/1000", b"bytes 0-100/1000"), INVALID),
    Row("range-is-below-2-to-63", "3.1.1.1", TXBITS,
        "A range with a total of 40 digits",
        Bench.session, _hundred(b"bytes 0-99/" + b"9" * 40), INVALID),
    Row("range-unit-in-any-case", "2.2.6.1", TXBITS, "The unit Bytes of a range",
        Bench.session,
        fragment({b"Content-Range": content_range(0, LENGTH, LENGTH).title()}),
        ACCEPTED),
    Row("range-total-is-constant", "2.2.1.2", MUST,
        "A total that changes within a session", half,
        fragment({b"Content-Range": content_range(HALF, HALF, LENGTH + 1)}, HALF),
        INVALID),
    Row("range-of-nothing", "2.2.6.1", TXBITS,
        "For an empty file, a Fragment without a body and with the range bytes 0-0/0, "
        "bytes */0 or bytes 0--1/0", Bench.session,
        {value.decode(): _with_body(value, b"")
         for value in (b"bytes 0-0/0", b"bytes */0", b"bytes 0--1/0")}, ACCEPTED),
    Row("range-of-one-byte", "2.2.6.1", MUST, "A file of one byte, bytes 0-0/1,",
        Bench.session, _with_body(b"bytes 0-0/1", DATA[:1]), ACCEPTED),
))
# fmt: on
