# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-gateway: POP3 (RFC 1939, RFC 2449, RFC 3206)."""

from kopano_ocf.talk import DENIED, FINE, UNAVAILABLE, Closed, Seen, quote


def capa(wire):
    """Does the gateway speak POP3?  Goes no further than the gateway itself."""
    bad = yield from _greeting(wire)
    if bad:
        return bad
    wire.send(b"CAPA\r\n")
    fine, _ = yield from _reply(wire, "the answer to CAPA")
    # one that does not know CAPA says -ERR, in good POP3
    while fine:
        line = yield from wire.line("the end of the answer to CAPA")
        if line == b".":
            break
    yield from _quit(wire)
    return Seen(FINE, "POP3 answers")


def login(wire, user, password):
    """Log in to a mailbox and out again.  user and password: str or bytes.

    With the server down Kopano says [SYS/TEMP]; with its database down it refuses right passwords too.
    """
    words = [word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word
             for word in (user, password)]
    if any(set(word) & {0, 10, 13} for word in words):
        wire.send(b"QUIT\r\n")
        return Seen(DENIED, "POP3 login not tried: a line break or NUL in user name or password")
    bad = yield from _greeting(wire)
    if bad:
        return bad
    wire.secret = True
    wire.send(b"USER " + words[0] + b"\r\n")
    fine, line = yield from _reply(wire, "the answer to USER")
    if fine:
        wire.send(b"PASS " + words[1] + b"\r\n")
        fine, line = yield from _reply(wire, "the answer to PASS")
    seen = _judge(fine, line)
    wire.verdict = None if fine else seen
    yield from _quit(wire)
    return seen


def _judge(fine, line):
    # type: (bool, bytes) -> Seen
    # The peer's own words are not repeated: it knows the password now, and may echo it
    upper = line.upper()
    if fine:
        return Seen(FINE, "POP3 login and logout")
    if b"[SYS/TEMP]" in upper or b"[SYS/PERM]" in upper:
        return Seen(UNAVAILABLE, "POP3 login not possible: the gateway reports a system error%s" % (
            ": HrLogin failed" if b"HRLOGIN FAILED" in upper else ""))
    if b"[IN-USE]" in upper or b"[LOGIN-DELAY]" in upper:
        return Seen(FINE, "POP3 login checked, the mailbox is in use")
    return Seen(DENIED, "POP3 login refused%s" % (
        ": wrong user name or password" if b"[AUTH]" in upper else ""))


def _greeting(wire):
    fine, line = yield from _reply(wire, "the POP3 greeting", begins=(b"+OK", b"-ERR"))
    if fine:
        return None
    wire.send(b"QUIT\r\n")
    return Seen(UNAVAILABLE, "POP3 greeting %s" % quote(line))


def _reply(wire, what, begins=()):
    line = yield from wire.line(what, begins=begins)
    status = line.split(b" ", 1)[0].upper()
    if status not in (b"+OK", b"-ERR"):
        raise wire.nonsense(what, line)
    return status == b"+OK", line


def _quit(wire):
    # an open session would delay the gateway's stop by 10 s
    wire.send(b"QUIT\r\n")
    try:
        yield from _reply(wire, "the answer to QUIT")
    except Closed:
        pass
