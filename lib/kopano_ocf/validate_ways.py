# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong on this host with the ways between services: who is looked for where nobody listens."""
import os

from kopano_ocf import foreign, kopano_cfg
from kopano_ocf.endpoint import ANY, Endpoint
from kopano_ocf.host import elsewhere, has_unit, is_loopback, started_at_boot, warning
from kopano_ocf.kopano_cfg import ConfigError, shown

MYPY = False
if MYPY:
    from typing import Dict, Iterator, List, Tuple  # noqa: F401
    from kopano_ocf.host import Host  # noqa: F401
    from kopano_ocf.validate import Finding  # noqa: F401

WEBAPP = "/etc/kopano/webapp/config.php"
MAIN_CF, MASTER_CF = "/etc/postfix/main.cf", "/etc/postfix/master.cf"


def _same_place(one, other):
    # type: (str, str) -> bool
    # /var/run is a link to /run
    return os.path.realpath(one) == os.path.realpath(other)


def _reaches(target, listener):
    # type: (Endpoint, Endpoint) -> bool
    """Whether a client that connects to target gets to listener, once both are on the same host."""
    if target.path or listener.path:
        return bool(target.path and listener.path) and _same_place(target.path, listener.path)
    if target.port != listener.port or target.tls != listener.tls:
        return False
    local = is_loopback(target.host)
    if listener.device == "lo" or is_loopback(listener.host):
        return local
    if listener.host in ANY:
        return not (local and listener.device)
    from kopano_ocf import address
    family = address.family(target.host)
    if not family:
        return not local            # a name: not looked up
    import _socket
    return family == address.family(listener.host) and \
        _socket.inet_pton(family, target.host) == _socket.inet_pton(family, listener.host)


def _listening(entries):
    # type: (List[Tuple[str, str, Endpoint]]) -> str
    """The settings that say where a daemon listens, for a message."""
    texts = {}      # type: Dict[str, List[str]]
    for key, text, _ in entries:
        texts.setdefault(key, []).append(text)
    return ", ".join("%s = %s" % (key, shown(" ".join(texts[key]))) for key in sorted(texts))


def _places(host, target):
    # type: (Host, Endpoint) -> List[Endpoint]
    """Where a client that is given this target connects to, as far as /etc/hosts tells."""
    found = [] if target.path or target.host == "localhost" else host.resolved(target.host)
    return [Endpoint(target.protocol, target.tls, place, target.port, device=target.device)
            for place in found] or [target]


def _misses(host, target, entries, listener):
    # type: (Host, Endpoint, List[Tuple[str, str, Endpoint]], Tuple[str, str]) -> str
    """What is wrong with a client's idea of where a daemon is, "" when it gets there.

    listener  the daemon, and its configuration's name, for the message
    """
    places = _places(host, target)
    if any(elsewhere(host, place) or _reaches(place, endpoint) for place in places for _, _, endpoint in entries):
        return ""
    wrong = "%s does not listen there (%s: %s)" % (listener[0], shown(listener[1], 200), _listening(entries))
    return wrong + _by_hosts(host, target)


def _by_hosts(host, target):
    # type: (Host, Endpoint) -> str
    if target.path or _places(host, target)[0].host == target.host:
        return ""
    return " and /etc/hosts says that %s is %s" % (shown(target.host), shown(_places(host, target)[0].host))


def _here_only(host, target):
    # type: (Host, Endpoint) -> bool
    """Whether only clients on the same node get there."""
    return bool(target.path) or all(is_loopback(place.host) for place in _places(host, target))


def _place(host):
    # type: (str) -> str
    """A listener's address as clients write it."""
    return "ADDRESS" if host in ANY else "[%s]" % host if ":" in host else host


def _url(entries):
    # type: (List[Tuple[str, str, Endpoint]]) -> str
    """What a client should name to get to a server: its address, else its socket."""
    for _, _, endpoint in entries:
        if not endpoint.path and endpoint.device != "lo" and not is_loopback(endpoint.host):
            return "http%s://%s:%d/" % ("s" if endpoint.tls else "", _place(endpoint.host), endpoint.port)
    paths = [endpoint.path for _, _, endpoint in entries if endpoint.path]
    return "file://" + paths[0] if paths else "where it listens"


def server_socket(host):
    # type: (Host) -> Iterator[Finding]
    """A client daemon's way to kopano-server, when both are configured here."""
    settings, server = host.settings(), host.server()
    if not settings:
        return
    target = settings.server()      # a wrong one is told by way of its ConfigError
    text = settings.get("server_socket") or "(empty)"
    # kopano-server believes a peer of its own user on the unix socket; IMAP and POP3 opt out of that, CalDAV doesn't
    if host.name == "ical" and target.path:
        yield warning(host.config, "server_socket", text, "over a unix socket kopano-ical accepts any password",
                      "use http://localhost:236/")
    wrong = _misses(host, target, server.bindspecs(), ("kopano-server", server.path)) if server else ""
    if wrong and server:
        entries = [entry for entry in server.bindspecs() if host.name != "ical" or not entry[2].path]
        yield warning(host.config, "server_socket", text, wrong, "use %s" % _url(entries))


def webapp(host):
    # type: (Host) -> Iterator[Finding]
    """WebApp's way to kopano-server."""
    path = host.config if host.agent.kind == "page" else WEBAPP
    try:
        target = kopano_cfg.default_server(host.path(path))
    except kopano_cfg.Missing as err:
        if host.agent.kind == "page":
            yield warning(path, "", "", err.wrong, "correct the parameter config")
        return
    except ConfigError as err:
        yield warning(path, err.key, err.value, err.wrong, err.remedy)
        return
    server = host.server()
    entries = server.bindspecs() if server else []
    wrong = _misses(host, target, entries, ("kopano-server", server.path)) if server else ""
    text = "file://" + target.path if target.path else str(target)
    if not wrong and host.nodes() > 1 and _here_only(host, target):
        wrong = "WebApp on a node where kopano-server does not run can't reach it" + _by_hosts(host, target)
    if wrong:
        yield warning(path, "DEFAULT_SERVER", text, wrong,
                      "use the server's cluster IP, as %s"
                      % (_url(entries) if entries else "http://ADDRESS:236/"))


def postfix(host):
    # type: (Host) -> Iterator[Finding]
    """Postfix's way to dagent."""
    text = host.text(MAIN_CF)
    settings = host.settings()
    if text is None or not settings:
        return
    values = foreign.postfix_settings(text)
    entries = settings.bindspecs()
    domains = foreign.postfix_value(values, "virtual_mailbox_domains")
    transport = foreign.postfix_value(values, "virtual_transport")
    if domains and not values.get("transport_maps") and _goes_elsewhere(host, transport):
        yield warning(MAIN_CF, "virtual_transport", transport or "(none)",
                      "mail for virtual_mailbox_domains (%s) does not go to kopano-dagent" % shown(domains),
                      "use %s" % _lmtp(entries))
    for key in ("virtual_transport", "mailbox_transport"):
        value = foreign.postfix_value(values, key)
        if foreign.bare_ipv6(value):
            yield warning(MAIN_CF, key, value, "an IPv6 address without brackets", "write it as lmtp:[ADDRESS]:2003")
        target = foreign.lmtp_target(value)
        if target is None or elsewhere(host, target):
            continue
        wrong = _misses(host, target, entries, ("kopano-dagent", host.config))
        if not wrong and host.nodes() > 1 and _here_only(host, target):
            wrong = "Postfix on a node where kopano-dagent does not run can't deliver" + _by_hosts(host, target)
        if wrong:
            yield warning(MAIN_CF, key, value, wrong, "use its cluster IP, as %s" % _lmtp(entries))
        protocols = foreign.postfix_value(values, "inet_protocols").replace(",", " ").split()
        if ":" in target.host and protocols and "all" not in protocols and "ipv6" not in protocols:
            yield warning(MAIN_CF, "inet_protocols", " ".join(protocols),
                          "%s = %s can't be reached without IPv6" % (key, shown(value)), "use all")
        if host.in_a_cluster() and has_unit(host, "postfix") and not started_at_boot(host, "postfix") \
                and not host.cib().of_type("postfix"):
            yield warning(MAIN_CF, key, value, "no postfix.service is started at boot, nor is it in the cluster",
                          "systemctl enable postfix.service")


def _goes_elsewhere(host, transport):
    # type: (Host, str) -> bool
    """Whether a transport is none that speaks LMTP, or hands mail to kopano-dagent, as master.cf says."""
    name = transport.partition(":")[0].strip() or "virtual"
    program = foreign.postfix_services(host.text(MASTER_CF) or "").get(name, "")
    if not program:
        return name in ("virtual", "local", "error", "discard", "smtp", "relay")
    return program.split()[0] != "lmtp" and "dagent" not in program


def _lmtp(entries):
    # type: (List[Tuple[str, str, Endpoint]]) -> str
    for _, _, endpoint in entries:
        if not endpoint.path and endpoint.device != "lo" and not is_loopback(endpoint.host):
            return "lmtp:%s:%d" % (_place(endpoint.host), endpoint.port)
    return "lmtp:ADDRESS:2003"
