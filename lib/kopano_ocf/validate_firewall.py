# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host's own firewall shuts, though its configuration needs it: nftables.conf, firewalld's zones.

Judged only where the boot loads it, and where a port is shut for sure: for everybody, not for some.
"""
import os

from kopano_ocf import address, foreign_cluster, foreign_firewall, kopano_cfg
from kopano_ocf.host import COROSYNC, elsewhere, is_loopback, names, started_at_boot, warning
from kopano_ocf.kopano_cfg import ConfigError, shown
from kopano_ocf.validate_ways import WEBAPP

MYPY = False
if MYPY:
    from typing import Dict, Iterator, List, Optional, Set, Tuple  # noqa: F401
    from kopano_ocf.foreign_firewall import Ports  # noqa: F401
    from kopano_ocf.host import Host  # noqa: F401
    from kopano_ocf.validate import Finding  # noqa: F401

_NFTABLES = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
_FIREWALLD = ("/etc/firewalld", "/usr/lib/firewalld")
_KNET_PORT = 5405           # of link 0; each further link has the next but one
_MOST_FILES = 200


class _Need:
    """A port that others must reach.

    ports  any of them will do
    file   the configuration that says so, with key and value
    """

    def __init__(self, protocol, ports, place, who, file, key, value):
        # type: (str, List[int], str, str, str, str, str) -> None
        import _socket
        self.protocol, self.ports, self.who = protocol, ports, who
        self.family = {_socket.AF_INET: "ip", _socket.AF_INET6: "ip6"}.get(address.family(place), "")
        self.why = "%s: %s = %s" % (shown(file, 200), key, shown(value, 200))

    def open(self, ports):
        # type: (Ports) -> bool
        return any(ports.has(self.protocol, port) for port in self.ports)


def firewall(host):
    # type: (Host) -> Iterator[Finding]
    """nftables, firewalld."""
    needs = None        # type: Optional[List[_Need]]
    for name, family, where, value, remedy, ports in _firewalls(host):
        needs = list(_needs(host)) if needs is None else needs
        told = set()        # type: Set[Tuple[str, int]]
        for need in needs:
            if family in ("ip", "ip6") and need.family not in ("", family) or family == "ip6" and not need.family:
                continue
            port = need.ports[0]
            if not need.open(ports) and (need.protocol, port) not in told:
                told.add((need.protocol, port))
                yield warning(name, where, value, "nothing lets %s %d in, for %s (%s)"
                              % (need.protocol, port, need.who, need.why),
                              remedy.format(port=port, protocol=need.protocol))


def _firewalls(host):
    # type: (Host) -> Iterator[Tuple[str, str, str, str, str, Ports]]
    """(file, family or "", key, value, remedy, what is let in) of each firewall that the boot loads."""
    if started_at_boot(host, "nftables"):
        for path in [path for path in _NFTABLES if os.path.lexists(host.path(path))][:1]:

            def included(pattern):
                # type: (str) -> List[str]
                return [host.text(found) or "" for found in host.matching(os.path.join("/etc", pattern))]

            ports_by_name = foreign_firewall.services(host.file("/etc/services") or "")
            for chain in foreign_firewall.nft_inputs(host.text(path) or "", included, ports_by_name):
                yield (path, chain.family, "chain " + chain.name, chain.drops, "add: {protocol} dport {port} accept",
                       chain.ports)
    if started_at_boot(host, "firewalld"):
        ports = _zones(host)
        if ports:
            yield (_FIREWALLD[0] + "/zones", "", "", "", "firewall-cmd --permanent --add-port={port}/{protocol}, in "
                   "the zone of those who come; firewall-cmd --reload", ports)


# ---------------------------------------------------------------- what is needed

def _needs(host):
    # type: (Host) -> Iterator[_Need]
    settings = host.settings()
    if host.name in ("gateway", "ical"):
        for need in _listeners(host, "its clients", given=True):
            yield need
    if host.nodes() < 2 or not settings:
        return
    if host.name == "dagent":
        for need in _listeners(host, "Postfix on the other nodes"):
            yield need
    if host.name == "server":
        for check in (_corosync, _drbd, _database, _webapp):
            for need in check(host):
                yield need
        for need in _listeners(host, "clients on the other nodes"):
            yield need


def _listeners(host, who, given=False):
    # type: (Host, str, bool) -> Iterator[_Need]
    """For each protocol that is offered to others, with or without TLS: either will do.

    given  only those that the file itself sets: nobody may have thought of the others
    """
    settings = host.settings()
    found = {}      # type: Dict[str, List[Tuple[str, str, int, str]]]
    for key, text, endpoint in settings.bindspecs() if settings else ():
        port_key = "%s%s_port" % (endpoint.protocol.replace("caldav", "ical"), "s" if endpoint.tls else "")
        own = port_key if key == "server_bind" else key         # before 8.7 one address was for all ports
        if not endpoint.path and endpoint.device != "lo" and not is_loopback(endpoint.host) \
                and settings and (settings.given(own) or not given):
            found.setdefault(endpoint.protocol, []).append((key, text, endpoint.port, endpoint.host))
    for _, entries in sorted(found.items()):
        key, text, _, place = entries[0]
        yield _Need("tcp", [port for _, _, port, _ in entries], place, who, host.config, key, text)


def _corosync(host):
    # type: (Host) -> Iterator[_Need]
    totem = host.corosync().first("totem")
    if totem.get("transport") not in (None, "knet"):
        return
    given = dict((section.get("linknumber") or section.get("ringnumber") or "0", section.get("mcastport") or "")
                 for section in totem.all("interface"))
    for node in host.nodelist()[:1]:
        for number, (key, text) in sorted(node.links.items()):
            port = kopano_cfg.number(given.get("%d" % number) or "") or _KNET_PORT + 2 * number
            yield _Need("udp", [port], text, "Corosync's link %d" % number, COROSYNC, key, text)


def _drbd(host):
    # type: (Host) -> Iterator[_Need]
    used = host.cib().of_type("drbd")
    if host.cib().primitives and not used:
        return
    wanted = [entry.params.get("drbd_resource", "") for entry in used]
    for resource in host.drbd():
        here = [replica for replica in resource.replicas() if host.hostname() in replica.hosts]
        for family, text in here[0].addresses if here and (resource.name in wanted or not used) else ():
            try:
                place, port = foreign_cluster.drbd_host_port(family, text)
            except ValueError:
                continue            # said elsewhere
            yield _Need("tcp", [port], place, "DRBD", resource.file, "resource %s: address" % shown(resource.name),
                        text)


def _database(host):
    # type: (Host) -> Iterator[_Need]
    """When kopano-server may ask it from the other node."""
    settings, cib = host.settings(), host.cib()
    database = settings.database() if settings else None
    beside = cib.beside(*cib.servers())
    if database and database.host not in ("", "localhost") and not is_loopback(database.host) and cib.servers() \
            and cib.databases() and not any(entry in beside for entry in cib.databases()):
        yield _Need("tcp", [database.port], database.host, "kopano-server on the other nodes", host.config,
                    "mysql_host", database.host)


def _webapp(host):
    # type: (Host) -> Iterator[_Need]
    """WebApp runs on all nodes, the server on one."""
    try:
        target = kopano_cfg.default_server(host.path(WEBAPP))
    except ConfigError:
        return
    if not target.path and not is_loopback(target.host) and not elsewhere(host, target) and host.resolved(target.host):
        yield _Need("tcp", [target.port], host.resolved(target.host)[0], "WebApp on the other nodes", WEBAPP,
                    "DEFAULT_SERVER", str(target))


# ---------------------------------------------------------------- firewalld

def _zones(host):
    # type: (Host) -> Optional[Ports]
    """What any zone in use lets in; None when that can't be told."""
    own = _FIREWALLD[0]
    if names(host.path(own + "/policies")) or "<rule" in (host.file(own + "/direct.xml") or "") \
            or "<passthrough" in (host.file(own + "/direct.xml") or ""):
        return None
    used = _zones_by_name(host)
    found = foreign_firewall.Ports()
    for path in host.matching(own + "/zones/*.xml"):
        zone = host.parsed(path, foreign_firewall.firewalld_zone)
        if zone.bound:
            used.add(os.path.basename(path)[:-4])
    pending = ["zones/" + name for name in sorted(used)]
    done = set()        # type: Set[str]
    while pending and len(done) < _MOST_FILES:
        name = pending.pop()
        if name in done:
            continue
        done.add(name)
        places = ["%s/%s.xml" % (folder, name) for folder in _FIREWALLD]
        places = [place for place in places if os.path.lexists(host.path(place))]
        if not places:
            return None
        reader = foreign_firewall.firewalld_zone if name.startswith("zones/") else foreign_firewall.firewalld_service
        part = host.parsed(places[0], reader)
        found.update(part.ports)
        pending += ["services/" + service for service in part.services]
    return None if pending else found


def _zones_by_name(host):
    # type: (Host) -> Set[str]
    """The default zone, and those that NetworkManager or ifcfg files give an interface to."""
    used = set()        # type: Set[str]
    places = [_FIREWALLD[0] + "/firewalld.conf"] + host.matching("/etc/NetworkManager/system-connections/*") \
        + host.matching("/etc/sysconfig/network-scripts/ifcfg-*")
    for path in places:
        for line in (host.file(path) or "").split("\n"):
            key, _, value = line.partition("=")
            if key.strip().lower() in ("defaultzone", "zone") and value.strip():
                used.add(value.strip().strip('"').strip("'"))
                break
        else:
            if path == places[0]:
                used.add("public")
    return used
