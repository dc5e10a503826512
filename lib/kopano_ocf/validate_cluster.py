# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong on this host with the cluster around Kopano: Corosync, names, DRBD, and what the CIB says of this host.

Only told where there is a cluster: more than one node in corosync.conf, or resources in the CIB.
"""
import os
import stat

from kopano_ocf import address, foreign_cluster
from kopano_ocf.foreign_cluster import true
from kopano_ocf.host import (COROSYNC, DRBD, HOSTS, UNIT_FOLDERS, beside_the_cluster, has_unit, is_here, is_loopback,
                             names, on_link, same, started_at_boot, warning)
from kopano_ocf.kopano_cfg import shown

MYPY = False
if MYPY:
    from typing import Dict, Iterator, List, Optional, Set, Tuple  # noqa: F401
    from kopano_ocf.foreign_cluster import Node, Primitive, Resource  # noqa: F401
    from kopano_ocf.host import Host  # noqa: F401
    from kopano_ocf.validate import Finding  # noqa: F401

_AUTHKEY = "/etc/corosync/authkey"
_FSTAB = "/etc/fstab"
_DEPS = "/etc/systemd/system/resource-agents-deps.target.d"
_DROP_INS = tuple(folder + "/resource-agents-deps.target.d" for folder in UNIT_FOLDERS) \
    + ("/etc/systemd/system/pacemaker.service.d",)
# What resources need until they are stopped, the targets that stand for it too, and the types of the resources when
# not all need it. From crm/node's drop-in, but what nobody misses then, as clocks and networks (network.target,
# which Pacemaker's own unit has).
_NEEDED = (("iscsid", (), ()), ("open-iscsi", (), ()), ("multipathd", (), ()),
           ("sssd", ("nss-user-lookup.target",), ()), ("nslcd", ("nss-user-lookup.target",), ()),
           ("lvm2-monitor", (), ("LVM", "LVM-activate", "lvm")),
           ("libvirtd", (), ("VirtualDomain",)), ("virtqemud", (), ("VirtualDomain",)), ("postfix", (), ()))
# Resources that bring a disk here, so that it may rightly be missing.
_DISKS = ("LVM", "LVM-activate", "iscsi", "Raid1", "mdraid", "rbd", "ZFS", "zfs", "SAN", "lvm")
_SHORTEST, _LONGEST = 1000, 60000           # milliseconds of Corosync's token


# ---------------------------------------------------------------- Corosync

def corosync(host):
    # type: (Host) -> Iterator[Finding]
    """corosync.conf."""
    tree, nodes = host.corosync(), host.nodelist()
    if any(section.get("name") == "pacemaker" for section in tree.all("service")) \
            or os.path.exists(host.path("/etc/corosync/service.d/pcmk")):
        yield warning(COROSYNC, "service.name", "pacemaker", "Corosync 2 and later don't start Pacemaker",
                      "remove the section, and /etc/corosync/service.d; systemctl enable pacemaker")
    totem, quorum = tree.first("totem"), tree.first("quorum")
    if not nodes and totem.settings and totem.get("transport") not in ("udp", "udpu"):
        yield warning(COROSYNC, "", "", "no nodelist, without it Corosync does not start with links by knet",
                      "list each node: name, nodeid, ring0_addr, ring1_addr")
    if len(nodes) < 2:
        return
    for check in (_votes(quorum, nodes, host), _totem(totem, nodes, host), _nodes(nodes, totem), _links(nodes, host),
                  _this_node(nodes, host)):
        for finding in check:
            yield finding


def _votes(quorum, nodes, host):
    # type: (foreign_cluster.Section, List[Node], Host) -> Iterator[Finding]
    device = quorum.first("device")
    has_device = bool(quorum.all("device"))
    if quorum.get("provider") != "corosync_votequorum":
        yield warning(COROSYNC, "quorum.provider", quorum.get("provider") or "(none)",
                      "nobody counts votes: both halves of a cut cluster go on", "use corosync_votequorum")
    two = true(quorum.get("two_node"))
    if two and len(nodes) != 2:
        yield warning(COROSYNC, "quorum.two_node", "1", "the nodelist has %d nodes" % len(nodes), "remove it")
    if two and has_device:
        yield warning(COROSYNC, "quorum.two_node", "1", "a quorum device has the casting vote", "remove it")
    if not two and not has_device and len(nodes) == 2:
        yield warning(COROSYNC, "quorum.two_node", quorum.get("two_node") or "0",
                      "when one of two nodes is lost, the other one stops everything", "use two_node: 1")
    wait = quorum.get("wait_for_all")
    if two and len(nodes) == 2 and wait is not None and not true(wait):
        yield warning(COROSYNC, "quorum.wait_for_all", wait,
                      "a node that comes up alone fences the other one, perhaps in turns",
                      "remove it: two_node: 1 brings wait_for_all: 1")
    expected = quorum.get("expected_votes")
    weighed = any(section.get("quorum_votes") for section in host.corosync().first("nodelist").all("node"))
    if expected is not None and not has_device and not weighed and expected != "%d" % len(nodes):
        yield warning(COROSYNC, "quorum.expected_votes", expected, "the nodelist has %d nodes" % len(nodes),
                      "remove it: it is counted")
    qnetd = device.first("net").get("host") or ""
    if qnetd and any(qnetd == node.name or qnetd in _texts(node) for node in nodes):
        yield warning(COROSYNC, "quorum.device.net.host", qnetd, "the quorum device is one of the nodes",
                      "use a third machine")


def _totem(totem, nodes, host):
    # type: (foreign_cluster.Section, List[Node], Host) -> Iterator[Finding]
    transport = totem.get("transport") or "knet"
    if transport in ("udp", "udpu") and any(len(node.links) > 1 for node in nodes):
        yield warning(COROSYNC, "totem.transport", transport, "it uses one link only", "use knet")
    token = totem.get("token")
    if token is not None:
        number = int(token) if token.encode("utf-8", "replace").isdigit() and len(token) < 10 else -1
        wrong = "not a number" if number < 0 else \
            "less than a second: a busy node is taken for a dead one, and fenced" if number < _SHORTEST else \
            "a dead node is given up after %d s only" % (number // 1000) if number > _LONGEST else ""
        if wrong:
            yield warning(COROSYNC, "totem.token", token, wrong, "use 3000 (milliseconds)")
    for section in totem.all("interface"):
        net = section.get("bindnetaddr")
        if net and transport not in ("udp", "udpu"):
            yield warning(COROSYNC, "totem.interface.bindnetaddr", net, "with a nodelist it counts for nothing",
                          "remove it; ring0_addr and ring1_addr say which networks are used")
    crypto = [(key, totem.get(key) or "") for key in ("secauth", "crypto_cipher", "crypto_hash")]
    used = [(key, value) for key, value in crypto if value not in ("", "none", "off")]
    path = totem.get("keyfile") or _AUTHKEY
    if used and not totem.get("key"):
        try:
            seen = os.stat(host.path(path))
        except OSError:
            yield warning(COROSYNC, "totem." + used[0][0], used[0][1], "there is no key %s" % shown(path, 200),
                          "corosync-keygen, and copy it to all nodes")
        else:
            if stat.S_IMODE(seen.st_mode) & 0o077:
                yield warning(path, "", "", "others than root can read it", "chmod 400 %s" % shown(path, 200))


def _texts(node):
    # type: (Node) -> List[str]
    return [text for _, text in node.links.values()]


def _nodes(nodes, totem):
    # type: (List[Node], foreign_cluster.Section) -> Iterator[Finding]
    for what, values in (("nodeid", [node.id for node in nodes]), ("name", [node.name for node in nodes])):
        for value in sorted(set(value for value in values if value and values.count(value) > 1)):
            yield warning(COROSYNC, "nodelist.node." + what, value, "two nodes have it", "give each its own")
    for node in nodes:
        if not node.id and totem.get("transport") in (None, "knet"):
            yield warning(COROSYNC, "nodelist.node.nodeid", "(none)",
                          "node %s has none, and Corosync does not start with links by knet" % shown(node.called),
                          "number the nodes from 1")
    places = [(key, text, node) for node in nodes for key, text in node.links.values()]
    for key, text, node in places:
        if text.startswith("["):
            yield warning(COROSYNC, "nodelist.node." + key, text, "not an address", "write it without brackets")
    for number, (key, text, node) in enumerate(places):
        for _, other, owner in places[:number]:
            if text == other or same(text, other):
                who = "another link of this node" if owner is node else "node " + shown(owner.called)
                yield warning(COROSYNC, "nodelist.node." + key, text, "%s has it already" % who,
                              "give each node its own address on each link")
                break


def _links(nodes, host):
    # type: (List[Node], Host) -> Iterator[Finding]
    most = max(nodes, key=lambda node: len(node.links))
    for node in nodes:
        for number in sorted(set(most.links) - set(node.links)):
            yield warning(COROSYNC, "nodelist.node." + most.links[number][0], "(none)",
                          "node %s has no such link, %s has" % (shown(node.called), shown(most.called)),
                          "give all nodes the same links")
    networks = _networks(host)
    if len(most.links) == 1 and len(networks) > 1:
        yield warning(COROSYNC, "nodelist.node.ring1_addr", "(none)",
                      "one link only, though this host is in the networks of %s: with one cable the cluster is cut"
                      % " and ".join(sorted(networks)), "add the other network's addresses as ring1_addr")
    for node in nodes:
        local = [(key, _network(host, place)) for key, text in node.links.values() for place in host.resolved(text)]
        for number, (key, network) in enumerate(local):
            if network and network in [other for _, other in local[:number]]:
                yield warning(COROSYNC, "nodelist.node." + key, node.links[int(key[4])][1],
                              "in the same network (%s) as another link of this node: one cable cuts both" % network,
                              "use the other network's address")
                return


_VIRTUAL = ("lo", "docker", "virbr", "veth", "br-", "tun", "tap", "wg", "cni", "vnet", "podman")


def _networks(host):
    # type: (Host) -> Dict[str, List[Tuple[int, int]]]
    """Devices of this host's own IPv4 networks, by their routes."""
    found = {}      # type: Dict[str, List[Tuple[int, int]]]
    for device, network, mask in host.routes():
        if not device.startswith(_VIRTUAL) and mask != 0xffffffff:
            found.setdefault(device, []).append((network, mask))
    return found


def _network(host, place):
    # type: (Host, str) -> str
    """Device of the network that a literal IPv4 address is in; "" when none is."""
    import _socket
    if address.family(place) != _socket.AF_INET:
        return ""
    raw = int.from_bytes(_socket.inet_pton(_socket.AF_INET, place), "big")
    for device, networks in _networks(host).items():
        if any(raw & mask == network for network, mask in networks):
            return device
    return ""


def _short(name):
    # type: (str) -> str
    return name.lower().partition(".")[0]


def _this_node(nodes, host):
    # type: (List[Node], Host) -> Iterator[Finding]
    """Which of the nodes this host is, by name and by address."""
    name = host.hostname()

    def places(node):
        # type: (Node) -> List[Tuple[str, str, str]]
        return [(key, text, place) for key, text in node.links.values() for place in host.resolved(text)
                if not is_loopback(place)]

    here = [node for node in nodes if any(is_here(host, place) for _, _, place in places(node))]
    called = [node for node in nodes if _short(name) in [_short(text) for text in [node.name] + _texts(node)]]
    if not name or not any(places(node) for node in nodes):
        return
    if not here and not called:
        yield warning(COROSYNC, "nodelist.node.name", " ".join(node.called for node in nodes),
                      "this host is none of the nodes: it calls itself %s, and has no node's address" % shown(name),
                      "add it, or correct name and addresses")
    elif here and here[0].name and here[0] not in called:
        yield warning(COROSYNC, "nodelist.node.name", here[0].name,
                      "the host with this node's address calls itself %s" % shown(name),
                      "use what `uname -n` says")
    for node in (here or called)[:1]:
        for key, text, place in places(node):
            if not is_here(host, place):
                yield warning(COROSYNC, "nodelist.node." + key, text, "this host does not have the address %s"
                              % shown(place), "correct it, or the host's addresses")


def hosts(host):
    # type: (Host) -> Iterator[Finding]
    """Names of nodes in /etc/hosts."""
    nodes = host.nodelist()
    if len(nodes) < 2:
        return
    for node in nodes:
        names_ = [(key, text) for key, text in node.links.values() if not address.family(text)]
        for key, text in names_:
            if not host.resolved(text) and not is_loopback(text) and not text.startswith("["):
                yield warning(HOSTS, text, "(none)", "corosync.conf: %s needs it: the cluster can't come up when "
                              "name servers are away" % key, "add the line: ADDRESS %s" % shown(text))
        literal = [text for text in _texts(node) if address.family(text)]
        if node.name and node.name not in _texts(node) and not host.hosts().get(node.name.lower()) \
                and _short(node.name) != _short(host.hostname()) and not host.asks_name_servers():
            yield warning(HOSTS, node.name, "(none)", "corosync.conf: a node's name, and this host asks no name "
                          "server: crm, pcs and ssh don't find it",
                          "add the line: %s %s" % (literal[0] if literal else "ADDRESS", shown(node.name)))
        for name in sorted(set([node.name] + [text for _, text in names_]) - set([""])):
            places = host.hosts().get(name.lower(), [])
            loop = [place for place in places if is_loopback(place)]
            strange = [place for place in places if not any(same(place, text) for text in literal)]
            others = [(place, other) for place in strange for other in nodes
                      if other is not node and any(same(place, text) for text in _texts(other))]
            if loop:
                yield warning(HOSTS, loop[0], name, "who asks for the node by its name gets a loopback address",
                              "write %s %s" % (literal[0] if literal else "ADDRESS", shown(name)))
            elif others:
                yield warning(HOSTS, others[0][0], name, "by corosync.conf this is the address of %s"
                              % shown(others[0][1].called),
                              "write %s %s" % (literal[0] if literal else "ADDRESS", shown(name)))


# ---------------------------------------------------------------- what is on and off at boot

def cluster_at_boot(host):
    # type: (Host) -> Iterator[Finding]
    """Corosync and Pacemaker on; drbd off; and what resources need is still there while they are stopped."""
    if not host.in_a_cluster():
        return
    device = bool(host.corosync().first("quorum").all("device"))
    for unit in ("corosync", "pacemaker") + (("corosync-qdevice",) if device else ()):
        if has_unit(host, unit) and not started_at_boot(host, unit):
            yield warning("/etc/systemd/system/multi-user.target.wants/%s.service" % unit, "", "",
                          "missing: after a boot this node does not join the cluster",
                          "systemctl enable %s.service" % unit)
    cib = host.cib()
    if cib.of_type("drbd") or not cib.primitives and host.drbd():
        for finding in beside_the_cluster(host, "drbd"):
            yield finding
    ordered = set()     # type: Set[str]
    for folder in _DROP_INS:
        for name in names(host.path(folder)):
            for line in (host.file("%s/%s" % (folder, name)) or "").split("\n") if name.endswith(".conf") else ():
                key, _, value = line.partition("=")
                if key.strip() == "After":
                    ordered.update(value.split())
    lacking = [unit + ".service" for unit, targets, types in _NEEDED
               if has_unit(host, "pacemaker") and not ordered & set((unit + ".service",) + targets)
               and (not types or cib.of_type(*types)) and started_at_boot(host, unit) and not cib.of_type(unit)]
    if lacking:
        yield warning(_DEPS, "After", "(without %s)" % " ".join(lacking),
                      "at a shutdown what resources need may be gone before they are stopped",
                      "add a file *.conf with [Unit] and After=%s, as crm/node has one" % " ".join(lacking))


# ---------------------------------------------------------------- DRBD

def drbd(host):
    # type: (Host) -> Iterator[Finding]
    """DRBD's resource files: that what Pacemaker promotes has all data, and only once."""
    used = host.cib().of_type("drbd")
    if not host.in_a_cluster() or host.cib().primitives and not used:
        return
    resources = host.drbd()
    wanted = [entry.params.get("drbd_resource", "") for entry in used]
    for entry, name in zip(used, wanted):
        if name not in [resource.name for resource in resources]:
            yield warning(DRBD, "resource", name or "(none)", "%s needs it, and no file has it" % entry.id,
                          "copy the resource file from the other node")
    judged = [resource for resource in resources if resource.name in wanted or not used]
    for resource in judged:
        for finding in _policy(resource, host):
            yield finding
        for finding in _replicas(resource, host):
            yield finding
    for finding in _twice(judged):
        yield finding


def _module(host):
    # type: (Host) -> str
    """First digit of the version of the loaded DRBD module, "" when none is loaded."""
    return ((host.file("/sys/module/drbd/version") or "").strip()
            or (host.file("/proc/drbd") or "").partition("version:")[2].strip())[:1]


def _policy(resource, host):
    # type: (Resource, Host) -> Iterator[Finding]
    where = "resource %s: " % shown(resource.name)
    protocol = resource.option("protocol", "net", "")
    if protocol is not None and protocol != "C":
        yield warning(resource.file, where + "protocol", protocol,
                      "what is acknowledged may be on one node only: a mail is lost with it", "use protocol C")
    if true(resource.option("allow-two-primaries", "net")):
        yield warning(resource.file, where + "allow-two-primaries", "yes", "the file system could be mounted twice",
                      "remove it")
    if resource.option("become-primary-on", "startup"):
        yield warning(resource.file, where + "become-primary-on", resource.option("become-primary-on", "startup") or "",
                      "DRBD would promote behind Pacemaker's back", "remove it")
    module = _module(host)
    home = "net" if module == "9" else "disk" if module == "8" else "net or disk"
    policy = resource.option("fencing", "net", "disk")
    if resource.option("quorum", "options") in ("majority", "all"):
        return                      # three replicas: the minority does nothing, so nobody has to be fenced
    if policy != "resource-and-stonith":
        yield warning(resource.file, where + "fencing", policy or "(none)",
                      "replication cut, then the primary dead: the peer is promoted with old data",
                      "use fencing resource-and-stonith, in %s { }" % home)
    elif module in ("8", "9") and resource.option("fencing", home) is None:
        yield warning(resource.file, where + "fencing", policy, "DRBD %s looks for it in %s { }" % (module, home),
                      "put it there")
    if policy == "resource-and-stonith" and host.cib().properties.get("stonith-enabled", "").lower() == "false":
        yield warning("CIB", "stonith-enabled", "false",
                      "DRBD's fencing resource-and-stonith freezes all writes until a lost peer is fenced",
                      "set up fencing, stonith-enabled=true")
    for key, others in (("fence-peer", ()), ("unfence-peer", ("after-resync-target",))):
        text = resource.option(key, "handlers")
        for other in others:
            text, key = (text, key) if text else (resource.option(other, "handlers"), other if module == "8" else key)
        program = (text or "").split()[0] if (text or "").split() else ""
        name, example = where + key, "crm-fence-peer.9.sh" if key == "fence-peer" else "crm-unfence-peer.9.sh"
        example = "/usr/lib/drbd/" + (example if module != "8" else example.replace(".9", ""))
        if not program:
            yield warning(resource.file, name, "(none)",
                          "nobody forbids the peer's promotion" if key == "fence-peer" else
                          "the constraint that forbids a promotion is never taken away", "use \"%s\"" % example)
        elif program.startswith("/") and not os.access(host.path(program), os.X_OK):
            yield warning(resource.file, name, program, "no such executable", "install drbd-utils, or correct it")
        elif "fence-peer" in program and (module == "8" and ".9." in program or module == "9" and ".9." not in program):
            yield warning(resource.file, name, program, "not for DRBD %s, which is loaded" % module,
                          "use \"%s\"" % example)


def _replicas(resource, host):
    # type: (Resource, Host) -> Iterator[Finding]
    where, name = "resource %s: " % shown(resource.name), host.hostname()
    replicas = resource.replicas()
    here = next((replica for replica in replicas if name in replica.hosts), None)
    mine = None         # type: Optional[foreign_cluster.Replica]
    seen = []           # type: List[Tuple[str, int]]
    for replica in replicas:
        for family, text in replica.addresses:
            if family not in ("ipv4", "ipv6"):
                continue
            try:
                place = foreign_cluster.drbd_host_port(family, text)
            except ValueError as err:
                yield warning(resource.file, where + "address", text, str(err), "correct it")
                continue
            if place[0] in [other for other, _ in seen]:
                yield warning(resource.file, where + "address", text, "two nodes have the same address",
                              "give each its own")
            seen.append(place)
            if replica is here and not is_here(host, place[0]):
                yield warning(resource.file, where + "address", text, "%s does not have this address" % shown(name),
                              "correct it, or the host's addresses")
            if here is None and name and not is_loopback(place[0]) and is_here(host, place[0]):
                mine = replica
    written = [owner for replica in replicas for owner in replica.hosts if _short(owner) == _short(name)]
    if here is None and (mine and mine.hosts or written):
        yield warning(resource.file, where + "on", " ".join(written or mine and mine.hosts or []),
                      "this host calls itself %s" % shown(name), "use what `uname -n` says")
    for device, disk in here.volumes if here else ():
        path = disk.split()[0] if disk else ""
        if not disk or not device:
            yield warning(resource.file, where + ("device" if disk else "disk"), "(none)",
                          "none is set for %s" % shown(name), "name it")
        elif path.startswith("/") and not os.path.exists(host.path(path)):
            yield warning(resource.file, where + "disk", disk, "this host has no such device", "correct or make it")


def _twice(resources):
    # type: (List[Resource]) -> Iterator[Finding]
    known = {}      # type: Dict[Tuple[str, str, str], Resource]
    for resource in resources:
        for replica in resource.replicas():
            for owner in replica.hosts:
                places = [("address", text) for _, text in replica.addresses]
                for device, disk in replica.volumes:
                    places += [("device", device.split(" minor ")[0]), ("disk", disk)]
                for key, text in places:
                    first = known.setdefault((owner, key, text), resource)
                    if first is not resource and text not in ("", "none"):
                        yield warning(resource.file, "resource %s: %s" % (shown(resource.name), key), text,
                                      "resource %s has it too" % shown(first.name), "give each its own")


# ---------------------------------------------------------------- what the CIB says of this host

def site(host):
    # type: (Host) -> Iterator[Finding]
    """Addresses, devices and directories in the CIB, for what stands beside Kopano and its database."""
    cib = host.cib()
    ours = [entry for entry in cib.primitives if entry.kind.startswith("ocf:kopano:")]
    beside = cib.beside(*(ours + cib.databases()))
    for finding in _cluster_addresses(host, [entry for entry in beside if entry.type in ("IPaddr2", "IPaddr")]):
        yield finding
    brings_disks = any(entry.type in _DISKS for entry in cib.primitives)
    for finding in _file_systems(host, [entry for entry in beside if entry.type == "Filesystem"], brings_disks):
        yield finding


def _cluster_addresses(host, entries):
    # type: (Host, List[Primitive]) -> Iterator[Finding]
    seen = []       # type: List[Tuple[str, Primitive]]
    for entry in entries:
        place, nic = entry.params.get("ip", ""), entry.params.get("nic", "").partition(":")[0]
        edit = "crm configure edit %s, or pcs resource update" % shown(entry.id)
        who = "CIB, " + entry.id
        if not address.family(place):
            yield warning(who, "ip", place or "(none)", "not an address", edit)
            continue
        for other, owner in seen:
            if same(place, other):
                yield warning(who, "ip", place, "%s has it already" % shown(owner.id), edit)
        seen.append((place, entry))
        for node in host.nodelist() if host.nodes() > 1 else ():
            if any(same(place, text) for text in _texts(node)):
                yield warning(who, "ip", place, "by corosync.conf this is %s's own address" % shown(node.called), edit)
        if nic and not os.path.lexists(host.path("/sys/class/net/" + nic)):
            yield warning(who, "nic", nic, "this host has no such network device", edit)
        elif nic != "lo" and not is_here(host, place) and not on_link(host, place):
            yield warning(who, "ip", place, "not in a network of this host", edit)


def _file_systems(host, entries, brings_disks):
    # type: (Host, List[Primitive], bool) -> Iterator[Finding]
    known = {}      # type: Dict[Tuple[str, str], Primitive]
    table = foreign_cluster.fstab(host.file(_FSTAB) or "")
    for entry in entries:
        who, edit = "CIB, " + entry.id, "crm configure edit %s, or pcs resource update" % shown(entry.id)
        device, folder = entry.params.get("device", ""), entry.params.get("directory", "").rstrip("/")
        for key, text in (("device", device), ("directory", folder)):
            first = known.setdefault((key, text), entry)
            if first is not entry and text:
                yield warning(who, key, text, "%s has it already" % shown(first.id), edit)
        if device.startswith("/dev/drbd"):
            made = [text for resource in host.drbd() for replica in resource.replicas() for text, _ in replica.volumes]
            minors = ["/dev/drbd" + text.split("minor ")[1] for text in made if "minor " in text]
            if device not in [text.split(" minor ")[0] for text in made] + minors \
                    and not device.startswith("/dev/drbd/") and host.cib().of_type("drbd"):
                yield warning(who, "device", device, "no resource file of DRBD has it", edit)
        elif device.startswith("/dev/") and not brings_disks and not os.path.exists(host.path(device)):
            yield warning(who, "device", device, "this host has no such device", edit)
        for source, mounted, options in table:
            if mounted.rstrip("/") == folder and folder and "noauto" not in options \
                    or device.startswith("/dev/") and source == device and "noauto" not in options:
                yield warning(_FSTAB, source, mounted, "mounted at boot too, beside the cluster (%s)" % shown(entry.id),
                              "remove the line, or add noauto")
