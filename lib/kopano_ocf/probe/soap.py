# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-server: SOAP over HTTP, by TCP or unix socket."""

from kopano_ocf.probe import http
from kopano_ocf.talk import CLOSED, DENIED, FINE, NONSENSE, UNAVAILABLE, Closed, Nonsense, Seen

MYPY = False
if MYPY:
    from typing import Optional  # noqa: F401

# provider/include/kcore.hpp: KCERR_*
_DATABASE_ERROR, _LOGON_FAILED, _END_OF_SESSION = 0x80000007, 0x80000009, 0x80000010
_NAMES = {
    0x80000002: "NOT_FOUND", _DATABASE_ERROR: "DATABASE_ERROR", _LOGON_FAILED: "LOGON_FAILED",
    _END_OF_SESSION: "END_OF_SESSION", 0x80000014: "INVALID_ENTRYID", 0x80000031: "BAD_CHARWIDTH",
}
_ENVELOPE = (
    '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" xmlns:ns="urn:zarafa">'
    '<SOAP-ENV:Body><ns:%s>%s</ns:%s></SOAP-ENV:Body></SOAP-ENV:Envelope>')
# An empty szImpersonateUser must be there, and capability 0x200, or the server says LOGON_FAILED
_LOGON = (
    "<szUsername>SYSTEM</szUsername><szPassword></szPassword><szImpersonateUser></szImpersonateUser>"
    "<szVersion>8.7.0</szVersion><ulCapabilities>512</ulCapabilities><szClientApp>ocf</szClientApp>")


def head(wire):
    """Does kopano-server answer HTTP?  A dead database goes unnoticed; a hung or starting server does not."""
    http.request(wire, "HEAD", "/")
    answer = yield from http.response(wire, "the HTTP answer", head=True)
    server = answer.header("server")
    if not server.startswith("gSOAP"):
        raise Nonsense("some other HTTP server answers (%s, Server: %s)" % (
            answer.line, _plain(server) or "not named"))
    return Seen(FINE, answer.line)


def deep(wire):
    """Does kopano-server reach its database?  Logs on as SYSTEM, opens its store and logs off.

    All on one connection, as a session belongs to one peer.  Over a unix socket this needs no password, but
    to run as root, run_as_user or one of local_admin_users.  A logon alone is answered from the cache, so it
    is getStore whose word counts.  data: call (the last one begun), er (the server's error code), version.
    """
    wire.data = {"call": "logon"}
    answer = yield from _call(wire, "logon", _LOGON)
    er = _number(answer, "er")
    session = _number(answer, "ulSessionId")
    if er is None or session is None and not er:
        raise wire.nonsense("a logonResponse", answer)
    wire.data["er"] = er
    if er == _LOGON_FAILED:
        return Seen(DENIED, "logon of SYSTEM refused: is the caller in local_admin_users of server.cfg, "
                    "and a unix socket used?", data=wire.data)
    if er:
        return Seen(UNAVAILABLE, "logon of SYSTEM: %s" % _error(er), data=wire.data)
    session = session or 0
    version = _version(_text(answer, "lpszVersion"))
    wire.data = {"call": "getStore", "version": version}
    try:
        answer = yield from _call(wire, "getStore", "<ulSessionId>%d</ulSessionId>" % session)
        er = _number(answer, "er")
        if er is None:
            raise wire.nonsense("a getStoreResponse", answer)
        wire.data["er"] = er
        if er:
            seen = Seen(UNAVAILABLE, "getStore: %s" % _error(er), data=wire.data)
        else:
            seen = Seen(FINE, "server %s reaches its database" % version, data=wire.data)
    except Nonsense as e:
        seen = Seen(NONSENSE, str(e), data=wire.data)
    except Closed as e:
        return Seen(CLOSED, str(e), data=wire.data)
    # Else the session would be kept for session_timeout, 300 s.  Its answer changes nothing.
    wire.verdict = seen
    try:
        yield from _call(wire, "logoff", "<ulSessionId>%d</ulSessionId>" % session)
    except (Closed, Nonsense):
        pass
    return seen


def _call(wire, name, parameters):
    body = (_ENVELOPE % (name, parameters, name)).encode("ascii")
    http.request(wire, "POST", "/", (
        ("Content-Type", "text/xml"), ("Content-Length", str(len(body))), ("Connection", "keep-alive")), body)
    answer = yield from http.response(wire, "the answer to %s" % name)
    if "%sResponse>" % name not in answer.body.decode("latin-1") or answer.status != 200:
        fault = _text(answer.body, "faultstring")
        raise Nonsense("the answer to %s is %s%s" % (name, answer.line, ": " + fault if fault else ""))
    return answer.body


def _text(body, name):
    # type: (bytes, str) -> str
    # the content of the first such element, when it is short and plain
    _, _, rest = body.partition(b"<%s>" % name.encode("ascii"))
    value, end, _ = rest[:200].partition(b"<")
    return _plain(value.decode("latin-1")) if end else ""


def _plain(text):
    # type: (str) -> str
    return "".join(c for c in text[:60] if " " <= c < "\x7f")


def _number(body, name):
    # type: (bytes, str) -> Optional[int]
    text = _text(body, name)
    return int(text) if text.isdigit() and len(text) < 21 else None


def _version(text):
    # type: (str) -> str
    # "0,11,0,2" is 11.0.2
    numbers = text.split(",")
    if len(numbers) == 4 and numbers[0] == "0":
        del numbers[0]
    return ".".join(numbers)


def _error(er):
    # type: (int) -> str
    return "error 0x%08x %s" % (er, _NAMES.get(er, ""))
