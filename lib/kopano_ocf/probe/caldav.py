# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-ical: CalDAV (RFC 4791) over HTTP."""

from kopano_ocf.probe import http
from kopano_ocf.talk import DENIED, FINE, UNAVAILABLE, Nonsense, Seen

_PROPFIND = (b'<?xml version="1.0" encoding="utf-8"?>'
             b'<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>')


def options(wire):
    """Does kopano-ical answer HTTP?  Goes no further than kopano-ical itself."""
    http.request(wire, "OPTIONS", "/")
    answer = yield from http.response(wire, "the answer to OPTIONS")
    if answer.header("allow") or answer.status == 401:
        return Seen(FINE, answer.line)
    raise Nonsense("%s, without an Allow header: some other HTTP server?" % answer.line)


def login(wire, user, password, path="/caldav/%s/"):
    """Look at a user's calendars with his password.  user and password: str or bytes; path: %s is the user.

    Kopano answers 401 also when it can't reach its server, or that its database.
    """
    import binascii
    user, password = (word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word
                      for word in (user, password))
    wire.secret = True
    token = binascii.b2a_base64(user + b":" + password).strip().decode("ascii")
    http.request(wire, "PROPFIND", path % _escaped(user), (
        ("Authorization", "Basic " + token), ("Depth", "0"), ("Content-Type", "text/xml; charset=utf-8"),
        ("Content-Length", str(len(_PROPFIND))), ("Connection", "close")), _PROPFIND)
    answer = yield from http.response(wire, "the answer to PROPFIND")
    # The peer's own words are not repeated: it knows the password now, and may echo it
    words = "HTTP status %d" % answer.status
    if answer.status in (200, 207, 404):
        return Seen(FINE, "CalDAV login, " + words)
    if answer.status in (401, 403):
        return Seen(DENIED, "CalDAV login refused, " + words)
    if answer.status >= 500:
        return Seen(UNAVAILABLE, words)
    raise Nonsense(words)


def _escaped(name):
    # type: (bytes) -> str
    """One segment of a path (RFC 3986 2.3)."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 or byte in b"-._~" else "%%%02X" % byte
                   for byte in name)
