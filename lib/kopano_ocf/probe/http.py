# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of HTTP/1.x (RFC 9112) as the probes need: one request, one response, over a Wire."""

from kopano_ocf.talk import Closed, Nonsense

MYPY = False
if MYPY:
    from typing import List, Tuple  # noqa: F401
    from kopano_ocf.talk import Wire  # noqa: F401

_HEADERS = 65536        # bytes of all header lines together
_BODY = 1 << 19         # bytes of a body


class Response:
    """An HTTP response.

    status, reason  as in the status line
    headers         list of (name in lower case, value); a name may occur more than once
    body            bytes
    """

    __slots__ = ("status", "reason", "headers", "body")

    def __init__(self, status, reason, headers, body):
        # type: (int, str, List[Tuple[str, str]], bytes) -> None
        self.status, self.reason, self.headers, self.body = status, reason, headers, body

    def header(self, name):
        # type: (str) -> str
        """All values of a header, joined by commas; "" when it is not there."""
        return ", ".join(value for key, value in self.headers if key == name)

    @property
    def line(self):
        # type: () -> str
        """Status and reason for people."""
        reason = "".join(c for c in self.reason[:40] if " " <= c < "\x7f")
        return ("HTTP status %d %s" % (self.status, reason)).rstrip()


def request(wire, method, target, headers=(), body=b"", host="localhost"):
    # type: (Wire, str, str, Tuple[Tuple[str, str], ...], bytes, str) -> None
    """Send a request; headers are (name, value) pairs of ASCII text."""
    lines = ["%s %s HTTP/1.1" % (method, target), "Host: " + host]
    lines += ["%s: %s" % pair for pair in headers]
    wire.send(("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body)


def response(wire, what, head=False):
    """Hear a response; `what` names it in messages, head=True says that it answers a HEAD.

    Interim responses (100 Continue) are passed over.  Raises Closed and Nonsense.
    """
    while True:
        status, reason, version = yield from _status(wire, what)
        headers = yield from _headers(wire, what)
        # 101 changes the protocol: it is final for one who did not ask for that
        if not 100 <= status < 200 or status == 101:
            break
    found = Response(status, reason, headers, b"")
    if not (head or status in (101, 204, 304)):
        found.body = yield from _body(wire, what, found)
    return found


def _status(wire, what):
    line = yield from wire.line(what, begins=(b"HTTP/1.",))
    if not line:
        # RFC 9112 2.2: an empty line before it is forgiven
        line = yield from wire.line(what, begins=(b"HTTP/1.",))
    words = line.split(None, 2)
    if len(words) < 2 or words[0] not in (b"HTTP/1.1", b"HTTP/1.0") or len(words[1]) != 3 \
            or not words[1].isdigit() or words[1] < b"100":
        raise wire.nonsense(what, line)
    return int(words[1]), words[2].decode("latin-1") if len(words) > 2 else "", words[0]


def _headers(wire, what):
    headers = []    # type: List[Tuple[str, str]]
    size = 0
    while True:
        line = yield from wire.line(what)
        size += len(line) + 2
        if size > _HEADERS:
            raise Nonsense("%s has more than %d bytes of headers" % (what, _HEADERS))
        if not line:
            return headers
        text = line.decode("latin-1")
        if text[0] in " \t" and headers:
            # obs-fold
            headers[-1] = (headers[-1][0], headers[-1][1] + " " + text.strip())
            continue
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or text[0] in " \t":
            raise wire.nonsense("a header of " + what, line)
        headers.append((name.strip().lower(), value.strip()))


def _body(wire, what, found):
    what = "the rest of " + what
    if "chunked" in found.header("transfer-encoding").lower():
        return (yield from _chunks(wire, what))
    lengths = {length.strip() for length in found.header("content-length").split(",") if length.strip()}
    if not lengths:
        return (yield from wire.rest(what, _BODY))
    length = lengths.pop()
    # digits of other scripts are none
    if lengths or length.strip("0123456789") or len(length) > 15:
        raise Nonsense("%s has no sensible Content-Length" % what)
    if int(length) > _BODY:
        raise Nonsense("%s is longer than %d bytes" % (what, _BODY))
    return (yield from wire.exactly(int(length), what))


def _chunks(wire, what):
    body = bytearray()
    while True:
        line = yield from wire.line(what)
        size = line.partition(b";")[0].strip()
        if not 0 < len(size) < 9 or size.strip(b"0123456789abcdefABCDEF"):
            raise wire.nonsense("a chunk's size in " + what, line)
        count = int(size, 16)
        if len(body) + count > _BODY:
            raise Nonsense("%s is longer than %d bytes" % (what, _BODY))
        if not count:
            break
        body += yield from wire.exactly(count, what)
        line = yield from wire.line(what)
        if line:
            raise wire.nonsense("a chunk's end in " + what, line)
    try:
        # trailers
        yield from _headers(wire, what)
    except Closed:
        pass
    return bytes(body)
