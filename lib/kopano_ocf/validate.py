# SPDX-License-Identifier: GPL-2.0-or-later
"""validate-all: what is wrong with a resource's parameters, and with this host.

Level 0 looks at the parameters alone, level 10 at the host too (validate_host). Silent when all is well.
"""
from kopano_ocf import endpoint
from kopano_ocf.kopano_cfg import shown

MYPY = False
if MYPY:
    from typing import Any, Iterator, List  # noqa: F401

ERROR, WARNING = "ERROR", "WARNING"
INSTALLED, CONFIGURED = 5, 6        # OCF_ERR_INSTALLED, OCF_ERR_CONFIGURED

_BOOLEANS = ("1", "y", "yes", "t", "true", "on", "ja", "0", "n", "no", "f", "false", "off", "nein")
_SCHEMES = {
    "soap": ("http", "https", "unix"), "caldav": ("http", "https", "unix"), "lmtp": ("lmtp", "unix"),
    "imap": ("imap", "imaps", "pop3", "pop3s", "unix"),
}
_ATTRIBUTE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.#:-"


class Finding:
    """One thing that is wrong.

    severity  ERROR or WARNING
    code      exit code that an ERROR sets: 5 not usable on this host, 6 wrong in itself; 0 for a WARNING
    text      one line: what, where, and the way out; never a secret
    """

    __slots__ = ("severity", "code", "text")

    def __init__(self, severity, code, text):
        # type: (str, int, str) -> None
        self.severity, self.code, self.text = severity, code, text

    def __repr__(self):
        # type: () -> str
        return "Finding(%s: %s)" % (self.severity, self.text)


def validate(agent, call, level, root=""):
    # type: (Any, Any, int, str) -> List[Finding]
    """Everything that is wrong, errors first.

    agent  the declaration
    call   the run: raw(name), value(name), secret(name), deadline
    level  0: parameters alone, nothing of the host is looked at; 10 and more: this host too
    root   directory that stands for / (for tests)
    """
    found = list(_parameters(agent, call))
    if level >= 10 and not any(finding.severity == ERROR for finding in found):
        from kopano_ocf import validate_host
        found += validate_host.findings(agent, call, root)
    return sorted(found, key=lambda finding: finding.severity != ERROR)


def _parameters(agent, call):
    # type: (Any, Any) -> Iterator[Finding]
    for parameter in agent.parameters:
        text = call.raw(parameter.name)
        if text is None:
            continue
        try:
            if any(ord(c) < 32 or ord(c) == 127 for c in text):
                raise ValueError("a control character in it; remove it")
            if parameter.kind != "string":
                _typed(parameter, text)
            elif parameter.form in _FORMS:
                _FORMS[parameter.form](agent, text)
        except ValueError as err:
            yield Finding(ERROR, CONFIGURED, "parameter %s = %s: %s"
                          % (parameter.name, shown(text, 200), err))
    for given, other in (("test_user", "test_password_file"), ("test_password_file", "test_user")):
        if agent.parameter(given) and call.raw(given) and not call.raw(other):
            yield Finding(WARNING, 0, "parameter %s = %s: no login is possible without %s; set both or none"
                          % (given, shown(call.raw(given), 200), other))


def _typed(parameter, text):
    # type: (Any, str) -> None
    if parameter.kind == "boolean":
        if text.strip().lower() not in _BOOLEANS:
            raise ValueError("not a boolean; use true or false")
        return
    digits = text.strip()
    if not (digits.encode("utf-8", "replace").isdigit() and len(digits) < 10
            and parameter.least <= int(digits) <= parameter.most):
        raise ValueError("not a number from %d to %d" % (parameter.least, parameter.most))


def _path(_, text):
    # type: (Any, str) -> None
    if "/" in text and not text.startswith("/"):
        raise ValueError("a relative path; use a bare name or a path from /")


def _absolute(_, text):
    # type: (Any, str) -> None
    if not text.startswith("/"):
        raise ValueError("not a path from /")


def _url(_, text):
    # type: (Any, str) -> None
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in ("http", "https") or not rest:
        raise ValueError("not a URL; write it as http://HOST/PATH")
    if any(c.isspace() for c in text):
        raise ValueError("white space in it; remove it or write it as %20")
    place = rest.replace("?", "/").replace("#", "/").partition("/")[0].rpartition("@")[2]
    try:
        host, _, device = endpoint.host_port(place, "")
    except ValueError as err:
        raise ValueError(str(err).partition(": ")[2])
    if host in endpoint.ANY or device:
        raise ValueError("'%s' is no host to fetch a page from" % shown(place))


def _endpoints(agent, text):
    # type: (Any, str) -> None
    allowed = _SCHEMES.get(agent.listens, ())
    for word in text.split():
        if word.partition(":")[0] not in allowed:
            schemes = " ".join(scheme + ":" for scheme in allowed)
            raise ValueError("'%s': not one of %s" % (shown(word), schemes))
    try:
        endpoint.parse_list(text, agent.listens)
    except ValueError as err:
        raise ValueError(shown(str(err), 300))


def _regex(_, text):
    # type: (Any, str) -> None
    import re
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as err:
        raise ValueError("not a regular expression: %s" % shown(str(err), 200))


def _attribute(_, text):
    # type: (Any, str) -> None
    if any(c not in _ATTRIBUTE for c in text) or len(text) > 255:
        raise ValueError("not a node attribute's name; use letters, digits and _ . # : -")


def _words(agent, text):
    # type: (Any, str) -> None
    import shlex
    try:
        words = shlex.split(text)
    except ValueError as err:
        raise ValueError("%s; close the quotes" % err)
    for word in words:
        if word.startswith("--config") and word[8:9] in ("", "=") or word.startswith("-c"):
            raise ValueError("'%s' would be hidden from the agent; use the parameter config" % shown(word))
        if word in ("--dump-config", "-V", "--version", "-h", "--help"):
            raise ValueError("with '%s' the daemon ends at once; remove it" % word)
        if agent.name == "dagent" and (word.startswith("-F") or word in ("-d", "--daemonize")):
            raise ValueError("'%s' makes it another program than the LMTP server; remove it" % shown(word))


_FORMS = {"path": _path, "absolute": _absolute, "url": _url, "endpoints": _endpoints, "regex": _regex,
          "attribute": _attribute, "words": _words}
