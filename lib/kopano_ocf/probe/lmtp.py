# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-dagent -l: LMTP (RFC 2033)."""

from kopano_ocf.talk import FINE, UNAVAILABLE, Closed, Seen, quote


def greeting(wire):
    """Does dagent greet?

    It opens a session with the server before it does, so its banner is a deep check already.  Ask the server
    first: each 421 costs a dagent of the thread model one of its lmtp_max_threads, until it is restarted.
    """
    code, text = yield from _reply(wire, "the LMTP greeting", begins=(b"2", b"3", b"4", b"5"))
    wire.send(b"QUIT\r\n")
    if code == b"220":
        try:
            # an open connection would delay dagent's stop by 30 s
            yield from _reply(wire, "the answer to QUIT")
        except Closed:
            pass
        return Seen(FINE, "greeting %s" % quote(text))
    if code.startswith(b"4"):
        return Seen(UNAVAILABLE, "greeting %s" % quote(text))
    raise wire.nonsense("the LMTP greeting", text)


def _reply(wire, what, begins=()):
    # RFC 5321 4.2: the last line of a reply has no hyphen after its code
    first = b""
    while True:
        line = yield from wire.line(what, begins=begins)
        first = first or line
        if not line[:3].isdigit() or len(line) > 3 and line[3:4] not in b" -" or line[:3] != first[:3]:
            raise wire.nonsense(what, line)
        if line[3:4] != b"-":
            return line[:3], first
