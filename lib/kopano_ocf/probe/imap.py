# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-gateway: IMAP (RFC 3501)."""

from kopano_ocf.talk import DENIED, FINE, UNAVAILABLE, Closed, Seen, quote


def noop(wire):
    """Does the gateway speak IMAP?  Goes no further than the gateway itself."""
    bad = yield from _greeting(wire)
    if bad:
        return bad
    wire.send(b"a1 NOOP\r\n")
    status, line = yield from _tagged(wire, b"a1", "the answer to NOOP")
    if status == b"BYE":
        return Seen(UNAVAILABLE, "says goodbye: %s" % quote(line))
    if status != b"OK":
        yield from _logout(wire, b"a2")
        raise wire.nonsense("OK to NOOP", line)
    yield from _logout(wire, b"a2")
    return Seen(FINE, "IMAP answers")


def login(wire, user, password):
    """Log in to a mailbox and out again.  user and password: str or bytes.

    With the server down Kopano says BAD; with its database down it refuses right passwords too.
    """
    bad = yield from _greeting(wire)
    if bad:
        return bad
    wire.secret = True
    parts = [b"a1 LOGIN"]
    for word in (user, password):
        word = word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word
        if _quotable(word):
            parts[-1] += b' "' + word + b'"'
        else:
            parts[-1] += b" {%d}" % len(word)
            parts.append(word)
    status, line = b"", b""
    for part in parts[:-1]:
        # a literal may be sent once the server has agreed to hear it
        wire.send(part + b"\r\n")
        status, line = yield from _tagged(wire, b"a1", "leave to send a literal", go_ahead=True)
        if status != b"+":
            break
    else:
        wire.send(parts[-1] + b"\r\n")
        status, line = yield from _tagged(wire, b"a1", "the answer to LOGIN")
    seen = _judge(status, line)
    if status != b"BYE":
        wire.verdict = None if seen.how == FINE else seen
        try:
            yield from _logout(wire, b"a2")
        except Closed:
            pass
    return seen


def _judge(status, line):
    # type: (bytes, bytes) -> Seen
    # The peer's own words are not repeated: it knows the password now, and may echo it
    upper = line.upper()
    if status == b"OK":
        return Seen(FINE, "IMAP login and logout")
    if status == b"NO" and b"[UNAVAILABLE]" not in upper:
        if b"WRONG USERNAME OR PASSWORD" in upper or b"[AUTHENTICATIONFAILED]" in upper:
            return Seen(DENIED, "IMAP login refused: wrong user name or password")
        return Seen(DENIED, "IMAP login refused")
    if b"OPENECSESSION FAILED" in upper:
        return Seen(UNAVAILABLE, "IMAP login: OpenECSession failed: the gateway does not reach its server")
    return Seen(UNAVAILABLE, "IMAP login not possible: the gateway says %s" % status.decode("ascii"))


def _greeting(wire):
    line = yield from wire.line("the IMAP greeting", begins=(b"* ",))
    words = line.upper().split(None, 2)
    if len(words) > 1 and words[0] == b"*":
        if words[1] in (b"OK", b"PREAUTH"):
            return None
        if words[1] == b"BYE":
            return Seen(UNAVAILABLE, "IMAP greeting %s" % quote(line))
    raise wire.nonsense("the IMAP greeting", line)


def _tagged(wire, tag, what, go_ahead=False):
    # (status, line) of the tagged response; (BYE, line) when the server ends the session instead
    bye = None
    while True:
        try:
            line = yield from wire.line(what)
        except Closed:
            if bye is None:
                raise
            return b"BYE", bye
        words = line.split(None, 2)
        first = words[0] if words else b""
        if go_ahead and first == b"+":
            return b"+", line
        status = words[1].upper() if len(words) > 1 else b""
        if first == tag:
            if status not in (b"OK", b"NO", b"BAD"):
                raise wire.nonsense(what, line)
            return status, line
        if first != b"*":
            raise wire.nonsense(what, line)
        if status == b"BYE":
            bye = line
        # a response goes on after a literal
        size = _literal(line)
        while size >= 0:
            yield from wire.exactly(size, what)
            line = yield from wire.line(what)
            size = _literal(line)


def _literal(line):
    # type: (bytes) -> int
    # "... {SIZE}": so many bytes follow; -1: none
    _, brace, size = line.rpartition(b"{")
    return int(size[:-1]) if brace and size[-1:] == b"}" and size[:-1].isdigit() and len(size) < 8 else -1


def _logout(wire, tag):
    # an open session would delay the gateway's stop by 10 s
    wire.send(tag + b" LOGOUT\r\n")
    try:
        yield from _tagged(wire, tag, "the answer to LOGOUT")
    except Closed:
        pass


def _quotable(word):
    # type: (bytes) -> bool
    # kopano-gateway takes the backslash of an escaped quote for a part of the word
    return len(word) < 1000 and all(32 <= byte < 127 and byte not in b'"\\' for byte in word)
