# SPDX-License-Identifier: GPL-2.0-or-later
"""A first, cheap look at WebApp's page and at Apache's status: plain HTTP on this host, the usual good answer.

FINE is what webapp would say too. Whatever else comes is webapp's to judge: that costs the loading of requests,
six times of all the rest of a monitor.
"""
from kopano_ocf import endpoint
from kopano_ocf.probe import http
from kopano_ocf.probe.webapp import BROKEN
from kopano_ocf.talk import FINE, NONSENSE, Seen

_HEADERS = (("User-Agent", "kopano-ocf"), ("Accept", "text/html, */*"), ("Accept-Encoding", "identity"),
            ("Connection", "close"))
_LOCAL = ("localhost", "127.0.0.1")


def place(url):
    """(Endpoint, host for the header, target) of a plain http URL on this host; None for any other."""
    scheme, _, rest = url.partition("://")
    name, _, target = rest.partition("/")
    host, colon, port = name.partition(":")
    if scheme != "http" or host not in _LOCAL or not all("!" <= c <= "~" for c in target):
        return None
    number = 80
    if colon:
        # digits of other scripts are none
        if not 0 < len(port) < 6 or port.strip("0123456789") or not 0 < int(port) < 65536:
            return None
        number = int(port)
    return endpoint.Endpoint("caldav", False, host, number), name, "/" + target.partition("#")[0]


def _get(wire, name, target, what):
    http.request(wire, "GET", target, _HEADERS, host=name)
    return (yield from http.response(wire, what))


def _fields(text):
    # The names of the page's input fields. Linear in time, unlike LOGIN_FORM on a page made to be slow
    import re
    name = re.compile(r"""\bname=["']?(\w+)""", re.IGNORECASE)
    return [found.lower() for tag in re.findall(r"(?i)<input\b([^>]*)", text) for found in name.findall(tag)]


def page(name, target):
    """Probe: the login form, as webapp.page() finds it when no expression is configured."""
    def ask(wire):
        answer = yield from _get(wire, name, target, "the page")
        text = answer.body.decode("utf-8", "replace")
        fields = _fields(text) if answer.status == 200 and BROKEN not in text else []
        if "username" in fields and "password" in fields[fields.index("username"):]:
            return Seen(FINE, "%s, with the login form" % answer.line)
        return Seen(NONSENSE, answer.line)
    return ask


def status(name, target):
    """Probe: mod_status with an idle worker."""
    def ask(wire):
        answer = yield from _get(wire, name, target, "Apache's status")
        found = dict(line.partition(b": ")[::2] for line in answer.body.splitlines())
        busy, idle = found.get(b"BusyWorkers", b""), found.get(b"IdleWorkers", b"")
        if answer.status == 200 and busy.isdigit() and idle.isdigit() and idle.strip(b"0"):
            return Seen(FINE, "%s workers busy, %s idle" % (busy.decode()[:9], idle.decode()[:9]))
        return Seen(NONSENSE, answer.line)
    return ask
