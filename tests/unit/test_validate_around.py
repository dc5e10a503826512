# SPDX-License-Identifier: GPL-2.0-or-later
"""validate-all and what is around Kopano: each mistake that an administrator makes there is found, and no other.

The host is crm/node as it is shipped, with what the distribution's packages bring.
"""
import binascii
import os
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kopano_ocf import address, talk, validate_cluster, validate_firewall, validate_services
from kopano_ocf.validate import ERROR, WARNING

from .tree import ADDRESSES, AGENTS, HANDLERS, ME, NODE, OTHER, NodeTree, primitive

COROSYNC = "/etc/corosync/corosync.conf"
MYSQL_RES, KOPANO_RES, COMMON = "/etc/drbd.d/mysql.res", "/etc/drbd.d/kopano.res", "/etc/drbd.d/common-8.4.conf"
MY_CNF = "/etc/mysql/mariadb.conf.d/90-cluster.cnf"
SERVER_CFG, MAIN_CF, HAPROXY = "/etc/kopano/server.cfg", "/etc/postfix/main.cf", "/etc/haproxy/haproxy.cfg"


def only(node, agent, *words):
    """The one finding, a warning in which all these words are."""
    found = node.texts(agent)
    assert len(found) == 1, found
    for word in ("WARNING: ",) + words:
        assert word in found[0], found[0]


@pytest.mark.parametrize("cib", [False, True])
@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_the_shipped_configuration_is_right(node, agent, cib):
    if cib:
        node.cib()
    assert node.texts(agent) == []


def test_also_as_the_other_node(node, monkeypatch):
    monkeypatch.setattr(address, "is_local", lambda place: place in ADDRESSES["alice"] or place.startswith("127."))
    node.write("/proc/sys/kernel/hostname", "alice.example.com\n")
    for name in ("mysql", "kopano"):
        node.replace("/etc/drbd.d/%s.res" % name, "on alice", "on alice.example.com")
    assert node.texts("server") == []


def test_a_third_node_without_drbd(node, monkeypatch):
    monkeypatch.setattr(address, "is_local", lambda place: place in ("192.168.122.27", "10.0.0.27"))
    node.write("/proc/sys/kernel/hostname", "carol\n")
    node.replace(COROSYNC, "quorum {", "quorum {\n")
    node.replace(COROSYNC, "two_node: 1\n", "\n")
    node.replace(COROSYNC, "nodelist {", "nodelist {\n node {\n name: carol\n nodeid: 3\n"
                 " ring0_addr: 192.168.122.27\n ring1_addr: 10.0.0.27\n }\n")
    node.cib()
    assert node.texts("server") == []


def test_shared_storage_needs_no_drbd(node):
    for path in ("/etc/drbd.d/mysql.res", "/etc/drbd.d/kopano.res"):
        os.remove(node.root + path)
    disks = {"mysql_fs": {"device": "/dev/mapper/mysql"}, "kopano_fs": {"device": "/dev/mapper/kopano"}}
    for name in disks.values():
        node.write(name["device"], "")
    node.cib(drbd_mysql=None, drbd_kopano=None, **disks)
    node.enable("drbd")                     # for something else
    assert node.texts("server") == []


# ---------------------------------------------------------------- one text in one file

@pytest.mark.parametrize("agent, path, old, new, words", [
    # Corosync
    ("server", COROSYNC, "two_node: 1\n", "\n", "quorum.two_node = 0: when one of two nodes is lost"),
    ("server", COROSYNC, "two_node: 1\n", "two_node: 1\nwait_for_all: 0\n",
     "quorum.wait_for_all = 0: a node that comes up alone fences the other one"),
    ("server", COROSYNC, "two_node: 1\n", "two_node: 1\nexpected_votes: 3\n",
     "quorum.expected_votes = 3: the nodelist has 2 nodes; remove it"),
    ("server", COROSYNC, "two_node: 1\n", "two_node: 1\n device {\n model: net\n net {\n host: q\n }\n }\n",
     "quorum.two_node = 1: a quorum device has the casting vote"),
    ("server", COROSYNC, "two_node: 1\n", "device {\n model: net\n net {\n host: alice\n }\n }\n",
     "quorum.device.net.host = alice: the quorum device is one of the nodes"),
    ("server", COROSYNC, "provider: corosync_votequorum", "# none", "quorum.provider = (none): nobody counts votes"),
    ("server", COROSYNC, "nodelist {", "nodelist {\n node {\n nodeid: 3\n name: carol\n ring0_addr: 192.168.122.27\n"
     " ring1_addr: 10.0.0.27\n }\n", "quorum.two_node = 1: the nodelist has 3 nodes"),
    ("server", COROSYNC, "ring1_addr: 10.0.0.26", "ring1_addr: [fd00::26]", "= [fd00::26]: not an address; write it "
     "without brackets"),
    ("server", COROSYNC, "token: 3000", "token: 300", "totem.token = 300: less than a second"),
    ("server", COROSYNC, "token: 3000", "token: 3s", "totem.token = 3s: not a number; use 3000"),
    ("server", COROSYNC, "token: 3000", "token: 300000", "totem.token = 300000: a dead node is given up after 300 s"),
    ("server", COROSYNC, "linknumber: 0", "linknumber: 0\n bindnetaddr: 10.0.0.0",
     "totem.interface.bindnetaddr = 10.0.0.0: with a nodelist it counts for nothing"),
    ("server", COROSYNC, "transport: knet", "transport: udpu", "totem.transport = udpu: it uses one link only"),
    ("server", COROSYNC, "logging {", "service {\n name: pacemaker\n ver: 0\n}\nlogging {",
     "service.name = pacemaker: Corosync 2 and later don't start Pacemaker"),
    ("server", COROSYNC, "nodeid: 2", "nodeid: 1", "nodelist.node.nodeid = 1: two nodes have it"),
    ("server", COROSYNC, "nodeid: 2", "", "node alice has none"),
    ("server", COROSYNC, "ring0_addr: 192.168.122.26", "ring0_addr: 192.168.122.25",
     "ring0_addr = 192.168.122.25: node bob has it already; give each node its own"),
    ("server", COROSYNC, "ring1_addr: 10.0.0.26", "", "ring1_addr = (none): node alice has no such link, bob has"),
    ("server", COROSYNC, "ring1_addr: 10.0.0.25", "ring1_addr: 10.0.0.24",
     "ring1_addr = 10.0.0.24: this host does not have the address 10.0.0.24"),
    ("server", COROSYNC, "ring1_addr: 10.0.0.26", "ring1_addr: 192.168.122.27",
     "ring1_addr = 192.168.122.27: in the same network (eth0) as another link of this node"),
    ("server", COROSYNC, "name: bob", "name: rob",
     "nodelist.node.name = rob: the host with this node's address calls itself bob"),
    ("server", COROSYNC, "ring1_addr: 10.0.0.26", "ring1_addr: alice-hb",
     "/etc/hosts: alice-hb = (none): corosync.conf: ring1_addr needs it"),
    ("server", COROSYNC, "\nlogging {", "\n}\nlogging {", "'}' without '{'; correct it"),
    ("server", COROSYNC, "nodelist {", "nodelist {\n node {", "corosync.conf: '}' is missing: the section 'nodelist'"),
    # names
    ("server", "/etc/hosts", "192.168.122.25   bob", "127.0.1.1 bob",
     "/etc/hosts: 127.0.1.1 = bob: who asks for the node by its name gets a loopback address; write 192.168.122.25"),
    ("server", "/etc/hosts", "192.168.122.26   alice", "192.168.122.25 alice",
     "/etc/hosts: 192.168.122.25 = alice: by corosync.conf this is the address of bob; write 192.168.122.26 alice"),
    # DRBD
    ("server", COMMON, "protocol C;", "protocol A;",
     "/etc/drbd.d/kopano.res: resource kopano: protocol = A: what is acknowledged may be on one node only"),
    ("server", COMMON, "fencing resource-and-stonith;", "", "resource kopano: fencing = (none): replication cut, then"),
    ("server", COMMON, "fencing resource-and-stonith;", "fencing resource-only;", "fencing = resource-only: "),
    ("server", COMMON, "fence-peer \"/usr", "#", "resource kopano: fence-peer = (none): nobody forbids"),
    ("server", COMMON, "after-resync-target \"", "before-resync-target \"",
     "resource kopano: unfence-peer = (none): the constraint that forbids a promotion is never taken away"),
    ("server", COMMON, "/usr/lib/drbd/crm-fence-peer.sh", "/usr/lib/drbd/fence-peer.sh",
     "fence-peer = /usr/lib/drbd/fence-peer.sh: no such executable; install drbd-utils"),
    ("server", COMMON, "protocol C;", "protocol C;\n allow-two-primaries yes;", "could be mounted twice"),
    ("server", KOPANO_RES, "10.0.0.26:7799", "10.0.0.25:7799", "resource kopano: address = 10.0.0.25:7799: two nodes"),
    ("server", KOPANO_RES, "10.0.0.25:7799", "10.0.0.24:7799", "address = 10.0.0.24:7799: bob does not have this"),
    ("server", KOPANO_RES, "10.0.0.26:7799", "10.0.0.26", "address = 10.0.0.26: no port 1..65535"),
    ("server", KOPANO_RES, "10.0.0.26:7799", "fd00::26:7799", "an IPv6 address is written as ipv6 [ADDRESS]:PORT"),
    ("server", KOPANO_RES, "10.0.0.26:7799", "alice:7799", "address = alice:7799: not an IPv4 address"),
    ("server", KOPANO_RES, "disk /dev/sdb2", "disk /dev/sdc2", "disk = /dev/sdc2: this host has no such device"),
    ("server", KOPANO_RES, "disk /dev/sdb2", "disk /dev/sdb1",
     "mysql.res: resource mysql: disk = /dev/sdb1: resource kopano has it too"),
    ("server", KOPANO_RES, "    disk /dev/sdb2;", "", "resource kopano: disk = (none): none is set for bob"),
    ("server", KOPANO_RES, "on bob {", "on bob.example.com {", "on = bob.example.com: this host calls itself bob; use"),
    ("server", KOPANO_RES, "on bob {", "on rob {", "on = rob: this host calls itself bob; use what `uname -n` says"),
    ("server", KOPANO_RES, "on alice {", "on alice {\n{", "kopano.res: '}' is missing: the section 'resource'"),
    ("server", KOPANO_RES, "meta-disk internal;", "meta-disk \"internal;", ": the quotes are not closed"),
    # MariaDB
    ("server", MY_CNF, "bind-address = 192.168.122.101", "bind-address = 192.168.122.25",
     "90-cluster.cnf: bind-address = 192.168.122.25: MariaDB listens on this address, and kopano-server looks "
     "elsewhere (/etc/kopano/server.cfg: mysql_host = 192.168.122.101); use 192.168.122.101"),
    ("server", MY_CNF, "bind-address = 192.168.122.101\n", "",
     "50-server.cnf: bind-address = 127.0.0.1: MariaDB is reachable from this host only"),
    ("server", MY_CNF, "bind-address = 192.168.122.101", "bind-address = [fd00::101]", "write it without brackets"),
    ("server", MY_CNF, "[mysqld]", "[mariadb]\nskip-networking\n", "skip-networking = 1: kopano-server can't connect"),
    ("server", MY_CNF, "[mysqld]", "[mysqld]\nport=3307\n", "port = 3307: MariaDB's port and mysql_port differ"),
    # Kopano
    ("server", SERVER_CFG, "mysql_user = kopano", "mysql_user = root", "mysql_user = root: this account may do"),
    ("server", SERVER_CFG, "mysql_password = secret", "mysql_password =", "mysql_password = (empty): whoever reaches"),
    ("server", SERVER_CFG, "mysql_host = 192.168.122.101", "mysql_host = [fd00::101]", "write it without brackets"),
    ("server", SERVER_CFG, "mysql_port = 3306", "mysql_port = 33066", "mysql_port = 33066: MariaDB's port"),
    # Postfix
    ("dagent", MAIN_CF, "lmtp:192.168.122.100:2003\n#", "lmtp:192.168.122.10:2003\n#",
     "main.cf: virtual_transport = lmtp:192.168.122.10:2003: kopano-dagent does not listen there"),
    ("dagent", MAIN_CF, "lmtp:192.168.122.100:2003\n#", "lmtp:fd00::100:2003\n#",
     "virtual_transport = lmtp:fd00::100:2003: an IPv6 address without brackets; write it as lmtp:[ADDRESS]:2003"),
    ("dagent", MAIN_CF, "virtual_transport = lmtp:192.168.122.100:2003\n", "",
     "main.cf: virtual_transport = (none): mail for virtual_mailbox_domains (example.com) does not go to "
     "kopano-dagent; use lmtp:192.168.122.100:2003"),
    ("dagent", MAIN_CF, "lmtp:192.168.122.100:2003\n#", "smtp:[192.168.122.100]\n#",
     "main.cf: virtual_transport = smtp:[192.168.122.100]: mail for virtual_mailbox_domains"),
    # HAProxy
    ("webapp-health", HAPROXY, "    option httpchk\n", "    #",
     "backend apaches: option httpchk = (none): the check only connects: users are sent to an Apache that hangs, and "
     "to a WebApp that is broken; use option httpchk GET /webapp/"),
    ("webapp-health", HAPROXY, "http-check expect rstring name=.username", "http-check expect status 200",
     "backend apaches: http-check expect = status 200: a WebApp that is broken answers 200 too; use http-check expect"),
    ("webapp-health", HAPROXY, "http-check expect rstring name=.username", "",
     "backend apaches: http-check expect = (none): a WebApp that is broken"),
    ("webapp-health", HAPROXY, "192.168.122.26:80", "192.168.122.36:80",
     "backend apaches: server alice = 192.168.122.36: not an address of a node"),
])
def test_a_file_is_wrong(node, agent, path, old, new, words):
    node.replace(path, old, new)
    found = node.texts(agent)
    if path == COMMON:                      # it is true of both resources
        assert len(found) == 2 and "resource mysql" in found[1]
        found = found[:1]
    elif old == "bind-address = 192.168.122.101\n":
        assert len(found) == 1
    assert len(found) == 1 and found[0].startswith("WARNING: "), found
    assert words in found[0], found[0]


def test_servers_without_a_check(node):
    node.replace(HAPROXY, "default-server check", "default-server")
    found = node.texts("webapp-health")
    assert ["backend apaches: server %s" % name in text and "add check" in text
            for name, text in zip(("bob", "alice"), found)] == [True, True] and len(found) == 2
    node.replace(HAPROXY, "192.168.122.25:80", "192.0.2.1:80")
    node.replace(HAPROXY, "192.168.122.26:80", "192.0.2.2:80")
    assert node.texts("webapp-health") == []        # in front of others


@pytest.mark.parametrize("old, new", [
    ("http-check send meth GET uri /webapp/", "http-check send meth GET uri /alive.php"),    # what that says is its own
    ("option httpchk", "external-check command /bin/look\n    option external-check"),
    ("192.168.122.", "192.0.2."), (":80 ", ":143 "),
])
def test_checks_that_are_not_webapps(node, old, new):
    node.replace(HAPROXY, "http-check expect rstring name=.username", "http-check expect status 200")
    assert len(node.texts("webapp-health")) == 1
    node.replace(HAPROXY, old, new)
    assert node.texts("webapp-health") == []


def test_a_check_from_the_defaults(node):
    node.replace(HAPROXY, "    option httpchk\n", "")
    node.replace(HAPROXY, "    http-check expect rstring name=.username\n", "")
    node.replace(HAPROXY, "defaults\n",
                 "defaults\n  option httpchk GET /webapp/\n  http-check expect string username\n")
    assert node.texts("webapp-health") == []


# ---------------------------------------------------------------- corosync.conf as a whole

def test_the_manuals_own_corosync_conf(node):
    node.write(COROSYNC, "compatibility: whitetank\ntotem {\n version: 2\n interface {\n  ringnumber: 0\n"
               "  bindnetaddr: 10.0.0.0\n  mcastaddr: 226.94.1.1\n }\n}\n")
    node.write("/etc/corosync/service.d/pcmk", "service {\n name: pacemaker\n ver: 0\n}\n")
    found = node.texts("server")
    assert len(found) == 2 and "don't start Pacemaker" in found[0] and "no nodelist" in found[1]


def test_one_link_is_a_finding_where_there_are_two_networks(node):
    for name in ("25", "26"):
        node.replace(COROSYNC, "ring1_addr: 10.0.0." + name, "")
    only(node, "server", "ring1_addr = (none): one link only, though this host is in the networks of eth0 and eth1")
    node.write("/proc/net/route", "eth0\t007AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
               "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n")
    for path in (MYSQL_RES, KOPANO_RES):
        os.remove(node.root + path)
    assert node.texts("server") == []


def test_a_key_for_corosync(node):
    os.chmod(node.root + "/etc/corosync/authkey", 0o644)
    only(node, "server", "/etc/corosync/authkey: others than root can read it; chmod 400")
    os.remove(node.root + "/etc/corosync/authkey")
    only(node, "server", "totem.crypto_cipher = aes256: there is no key /etc/corosync/authkey; corosync-keygen")
    node.replace(COROSYNC, "crypto_cipher: aes256", "crypto_cipher: none")
    node.replace(COROSYNC, "crypto_hash: sha256", "crypto_hash: none")
    assert node.texts("server") == []


def test_a_host_that_is_no_node(node, monkeypatch):
    for path in (MYSQL_RES, KOPANO_RES):
        os.remove(node.root + path)
    monkeypatch.setattr(address, "is_local", lambda place: False)
    found = node.texts("server")
    assert len(found) == 2 and "ring0_addr = 192.168.122.25: this host does not have the address" in found[0], found
    node.write("/proc/sys/kernel/hostname", "carol\n")
    only(node, "server", "nodelist.node.name = bob alice: this host is none of the nodes: it calls itself carol")


def test_nodes_by_name(node):
    """Names that /etc/hosts knows are as good as addresses."""
    for name, number in (("bob", "25"), ("alice", "26")):
        node.replace(COROSYNC, "ring0_addr: 192.168.122." + number, "ring0_addr: " + name)
    assert node.texts("server") == []
    node.replace("/etc/hosts", "192.168.122.25   bob", "127.0.1.1 bob")
    only(node, "server", "/etc/hosts: 127.0.1.1 = bob: ")


def test_a_node_that_nobody_finds_by_its_name(node):
    node.replace("/etc/hosts", "192.168.122.26   alice", "")
    assert node.texts("server") == []       # a name server may know it
    os.remove(node.root + "/etc/resolv.conf")
    only(node, "server", "/etc/hosts: alice = (none): corosync.conf: a node's name, and this host asks no name server: "
         "crm, pcs and ssh don't find it; add the line: 192.168.122.26 alice")
    for line, found in (("hosts: files mymachines dns", 0), ("hosts: files dns", 1), ("hosts:files", 1),
                        ("#hosts: db", 1), ("hosts: files [NOTFOUND=return] resolve [!UNAVAIL=return] dns", 0)):
        node.write("/etc/nsswitch.conf", "passwd: files sss\n%s\n" % line)
        assert len(node.texts("server")) == found, line
    node.write("/etc/resolv.conf", "nameserver 192.168.122.1\n")
    node.write("/etc/nsswitch.conf", "hosts: files myhostname\n")
    assert len(node.texts("server")) == 1
    node.replace("/etc/hosts", "192.168.122.25   bob", "")
    assert len(node.texts("server")) == 1               # this host's own name is another matter


# ---------------------------------------------------------------- boot

@pytest.mark.parametrize("agent, unit", [("server", "mariadb"), ("server", "mysql"), ("server", "mysqld"),
                                         ("server", "drbd"), ("webapp-health", "apache2"), ("webapp-health", "httpd")])
def test_a_unit_that_must_be_off(node, agent, unit):
    node.cib()
    node.enable(unit)
    only(node, agent, "/etc/systemd/system/multi-user.target.wants/%s.service: systemd starts it at boot, beside the "
         "cluster; systemctl disable %s.service" % (unit, unit))


def test_before_the_cib_is_loaded_too(node):
    node.enable("mariadb")
    node.enable("drbd")
    assert len(node.texts("server")) == 2
    node.enable("apache2")                  # with or without the cluster: not known yet
    assert node.texts("webapp-health") == []


def test_a_galera_cluster_is_on_at_boot(node):
    node.cib(mysqld=None)
    node.write(MY_CNF, "[galera]\nwsrep_on = 1\n[mysqld]\nwsrep_cluster_address = gcomm://a,b\n")
    node.enable("mariadb")
    assert [text for text in node.texts("server") if "mariadb" in text or "bind" in text] == []


def test_the_shipped_kinds_of_quorum(node):
    """crm/quorum: two nodes and a device, three nodes."""
    with open(node.root + COROSYNC) as file:
        whole = file.read()
    totem, _, rest = whole.partition("nodelist {")
    nodelist = "nodelist {" + rest.partition("\nquorum {")[0] + "\n"
    for kind, before in (("quorum-device", totem + nodelist), ("three-nodes", totem)):
        with open(os.path.join(NODE, "..", "quorum", "corosync-%s.conf" % kind)) as file:
            node.write(COROSYNC, before + file.read())
        assert node.texts("server") == [], kind
    node.write(COROSYNC, whole)
    node.write("/usr/lib/systemd/system/corosync-qdevice.service", "")
    assert node.texts("server") == []
    node.replace(COROSYNC, "two_node: 1\n", "device {\n model: net\n }\n")
    only(node, "server", "systemctl enable corosync-qdevice.service")


@pytest.mark.parametrize("agent, unit", [("server", "corosync"), ("server", "pacemaker"), ("dagent", "postfix")])
def test_a_unit_that_must_be_on(node, agent, unit):
    os.remove(node.root + "/etc/systemd/system/multi-user.target.wants/%s.service" % unit)
    only(node, agent, "systemctl enable %s.service" % unit)
    node.write(COROSYNC, "")
    assert [text for text in node.texts(agent) if "systemctl" in text] == []        # no cluster


def test_what_resources_need_until_they_are_stopped(node):
    path = "/etc/systemd/system/resource-agents-deps.target.d/kopano.conf"
    node.enable("sssd")
    node.enable("multipathd")
    assert node.texts("server") == []
    os.remove(node.root + path)
    for name in ("kopano.conf.rpmsave", "none.conf"):
        node.write(os.path.dirname(path) + "/" + name, "[Unit]\nAfter=postfix.service\n" * name.endswith("save"))
    only(node, "server", "resource-agents-deps.target.d: After = (without multipathd.service sssd.service "
         "postfix.service): ", "add a file *.conf with [Unit] and After=multipathd.service sssd.service postfix.")
    node.write(path, "[Unit]\nAfter=nss-user-lookup.target postfix.service\nAfter = multipathd.service\n")
    assert node.texts("server") == []
    node.write(path, "[Unit]\nAfter=nss-user-lookup.target\nAfter = multipathd.service\n")
    only(node, "server", "(without postfix.service): ")
    node.write("/usr/lib/systemd/system/resource-agents-deps.target.d/site.conf", "[Unit]\nAfter=postfix.service\n")
    assert node.texts("server") == []


@pytest.mark.parametrize("unit, kind", [("lvm2-monitor", "ocf:heartbeat:LVM-activate"),
                                        ("libvirtd", "ocf:heartbeat:VirtualDomain")])
def test_what_only_some_resources_need(node, unit, kind):
    node.enable(unit)
    node.replace("/etc/systemd/system/resource-agents-deps.target.d/kopano.conf", unit + ".service", "")
    node.cib()
    assert node.texts("server") == []
    node.cib(more=primitive("more", kind, {}))
    only(node, "server", "(without %s.service): " % unit)


def test_the_cluster_runs_postfix_itself(node):
    os.remove(node.root + "/etc/systemd/system/resource-agents-deps.target.d/kopano.conf")
    node.cib()
    only(node, "server", "(without postfix.service): ")
    node.cib(more=primitive("smtp", "ocf:heartbeat:postfix", {}))
    assert node.texts("server") == []


def test_a_directory_for_another_user(node):
    path = "/etc/tmpfiles.d/kopano-cluster.conf"
    node.replace(path, "d /run/kopano   0775 %s" % ME, "d /run/kopano   0775 zarafa")
    only(node, "server", "%s: /run/kopano = zarafa: kopano-server runs as %s; let it belong to that user" % (path, ME))


def test_a_directory_that_nobody_makes_after_a_boot(node):
    path = "/etc/tmpfiles.d/kopano-cluster.conf"
    os.remove(node.root + path)
    assert node.texts("server") == []       # /run/kopano: the agent makes it
    node.add("monitor", "pid_file = /var/run/kopano/pids/monitor.pid\n")
    os.makedirs(node.root + "/var/run/kopano/pids")         # now it is there
    only(node, "monitor", "monitor.cfg: pid_file = /var/run/kopano/pids/monitor.pid: nobody makes /run/kopano/pids "
         "after a boot; d /run/kopano/pids 0775 %s - in a file of /etc/tmpfiles.d" % ME)
    for folder, owner in (("/var/run/kopano/pids", ME), ("/run/kopano", "root")):     # below root's it makes one too
        node.write(path, "d %s 0775 %s -\n" % (folder, owner))
        assert node.texts("monitor") == []


# ---------------------------------------------------------------- the database's login

REFUSED = "database 'kopano' at 192.168.122.101:3306, user 'kopano': refuses: error %s"


def test_a_login_that_the_database_refuses(node):
    node.database = talk.Seen(talk.DENIED, REFUSED % "1045 'Access denied for user 'kopano'@'bob'")
    only(node, "server", "/etc/kopano/server.cfg: mysql_user = kopano: kopano-server can't log in: database 'kopano' "
         "at 192.168.122.101:3306, user 'kopano': refuses: error 1045 'Access denied",
         "mysql_password, mysql_host, or the account, as in crm/node/sql/account.sql")
    [(database, seconds)] = node.asked
    assert (database.host, database.port, database.user, database.password) == (
        "192.168.122.101", 3306, "kopano", "secret") and 0 < seconds <= 2
    for name in sorted(set(AGENTS) - set(["server"])):
        assert node.texts(name) == []
    assert len(node.asked) == 1


@pytest.mark.parametrize("how, words", [
    (talk.FINE, "answers (10.11)"), (talk.REFUSED, "connection refused"), (talk.SILENT, "no answer"),
    (talk.UNREACHABLE, "no route to host"), (talk.UNAVAILABLE, REFUSED % "1040 'Too many connections'"),
    (talk.DENIED, REFUSED % "1049 'Unknown database 'kopano''"),        # the server makes it at its first start
])
def test_a_database_that_refuses_nobody(node, how, words):
    node.database = talk.Seen(how, words)
    assert node.texts("server") == [] and len(node.asked) == 1


def test_a_database_that_only_a_name_server_knows_is_not_asked(node):
    node.replace(SERVER_CFG, "mysql_host = 192.168.122.101", "mysql_host = db")
    assert (node.texts("server"), node.asked) == ([], [])


# ---------------------------------------------------------------- DRBD as a whole

def both(node, old, new):
    for path in (MYSQL_RES, KOPANO_RES):
        node.replace(path, old, new)


@pytest.mark.parametrize("version, file, fault", [
    ("8.4.11", "common-8.4.conf", None), ("9.2.9", "common-9.conf", None),
    ("8.4.11", "common-9.conf", ("fencing = resource-and-stonith: DRBD 8 looks for it in disk { }",
                                 "fence-peer = /usr/lib/drbd/crm-fence-peer.9.sh: not for DRBD 8",
                                 "crm-unfence-peer.9.sh: not for DRBD 8")),
    ("9.2.9", "common-8.4.conf", ("fencing = resource-and-stonith: DRBD 9 looks for it in net { }",
                                  "crm-fence-peer.sh: not for DRBD 9", "crm-unfence-peer.sh: not for DRBD 9")),
])
def test_drbd_generations(node, version, file, fault):
    node.write("/sys/module/drbd/version", version + "\n")
    node.replace("/etc/drbd.d/global_common.conf", 'include "common-8.4.conf"', 'include "%s"' % file)
    found = [text for text in node.texts("server") if "resource kopano" in text]
    assert len(found) == len(fault or ()), found
    for words, text in zip(fault or (), found):
        assert words in text


def test_three_replicas_with_quorum_need_no_fencing(node):
    node.replace(COMMON, "fencing resource-and-stonith;", "")
    node.replace(COMMON, "common {", "common {\n options {\n quorum majority;\n }\n")
    assert node.texts("server") == []


def test_the_manuals_own_drbd_conf(node):
    """8.3's syntax; what it lacks is told, and nothing else."""
    for path in (MYSQL_RES, KOPANO_RES):
        os.remove(node.root + path)
    one = "resource %s {\n on bob {\n device /dev/drbd%d;\n disk /dev/sdb%d;\n address 10.0.0.25:%d;\n" \
        " meta-disk internal;\n }\n on alice {\n device /dev/drbd%d;\n disk /dev/sdb%d;\n" \
        " address 10.0.0.26:%d;\n }\n}\n"
    node.write("/etc/drbd.conf", "global {\n usage-count no;\n}\ncommon {\n protocol C;\n syncer {\n rate 50M;\n }\n}\n"
               + one % ("mysql", 0, 1, 7788, 0, 1, 7788) + one % ("kopano", 1, 2, 7799, 1, 2, 7799))
    found = node.texts("server")
    assert [word in text for word, text in zip(("fencing", "fence-peer", "unfence-peer") * 2, found)] == [True] * 6


def test_volumes_and_connections(node):
    """DRBD 9's way to write it."""
    node.write(KOPANO_RES, """resource "kopano" {
    volume 0 { device minor 1; disk "/dev/sdb2"; meta-disk internal; }
    volume 1 { device /dev/drbd_log minor 7; disk /dev/sdb1; meta-disk internal; }
    on bob { node-id 0; }  on alice { node-id 1; volume 1 { disk none; } }
    connection { host bob address ipv4 10.0.0.25:7799; host alice address ipv4 10.0.0.26:7799; }
}""")
    node.cib()
    found = node.texts("server")
    assert found == ["WARNING: /etc/drbd.d/mysql.res: resource mysql: disk = /dev/sdb1: resource kopano has it too; "
                     "give each its own"]
    node.replace(KOPANO_RES, "host bob address ipv4 10.0.0.25", "host bob address ipv4 10.0.0.99")
    assert "address = 10.0.0.99:7799: bob does not have this address" in node.texts("server")[0]


def test_a_resource_that_no_file_has(node):
    os.remove(node.root + KOPANO_RES)
    node.cib()
    found = node.texts("server")
    assert len(found) == 2
    assert "/etc/drbd.conf: resource = kopano: drbd_kopano needs it, and no file has it; copy" in found[0]
    assert "CIB, kopano_fs: device = /dev/drbd1: no resource file of DRBD has it" in found[1]


def test_fencing_by_drbd_without_fencing_by_the_cluster(node):
    node.cib(properties={"stonith-enabled": "false"})
    only(node, "server", "CIB: stonith-enabled = false: DRBD's fencing resource-and-stonith freezes all writes")


def test_handlers_that_are_not_installed(node):
    for name in HANDLERS:
        os.remove(node.root + "/usr/lib/drbd/" + name)
    assert len(node.texts("server")) == 4


# ---------------------------------------------------------------- the CIB against this host

@pytest.mark.parametrize("change, words", [
    ({"kopano_ip": {"ip": "192.168.122.101"}}, "CIB, kopano_ip: ip = 192.168.122.101: mysql_ip has it already"),
    ({"kopano_ip": {"ip": "192.168.122.26"}}, "ip = 192.168.122.26: by corosync.conf this is alice's own address"),
    ({"kopano_ip": {"ip": "192.168.222.100"}}, "ip = 192.168.222.100: not in a network of this host; crm configure"),
    ({"kopano_ip": {"ip": "192.168.122.100/24"}}, "ip = 192.168.122.100/24: not an address"),
    ({"kopano_ip": {"nic": "ens3"}}, "CIB, kopano_ip: nic = ens3: this host has no such network device"),
    ({"kopano_fs": {"device": "/dev/drbd2"}}, "device = /dev/drbd2: no resource file of DRBD has it"),
    ({"kopano_fs": {"device": "/dev/sdc1"}}, "CIB, kopano_fs: device = /dev/sdc1: this host has no such device"),
    ({"kopano_fs": {"device": "/dev/drbd0"}}, "CIB, kopano_fs: device = /dev/drbd0: mysql_fs has it already"),
    ({"kopano_fs": {"directory": "/var/lib/mysql/"}}, "directory = /var/lib/mysql: mysql_fs has it already"),
    ({"kopano_fs": {"directory": "/srv/kopano"}}, "server.cfg: attachment_path = /var/lib/kopano/attachments: not on "
     "a file system that moves with the server (/srv/kopano), lost after a move"),
    ({"mysql_fs": {"directory": "/srv/mysql"}},
     "CIB, mysqld: datadir = /var/lib/mysql: not on a file system that moves with mysqld (/srv/mysql); put it there"),
    ({"kopano_ip": {"ip": "192.168.122.110"}}, "server.cfg: server_listen = 192.168.122.100: no resource of the "
     "cluster brings this address; use 192.168.122.110"),
    ({"mysql_ip": {"ip": "192.168.122.111"}}, "server.cfg: mysql_host = 192.168.122.101: no resource of the "
     "cluster brings this address; use 192.168.122.111"),
    ({"drbd_kopano": {"drbd_resource": "r0"}}, "/etc/drbd.conf: resource = r0: drbd_kopano needs it"),
])
def test_a_value_of_the_site_is_wrong(node, change, words):
    node.cib(**change)
    found = node.texts("server")
    assert any(words in text for text in found), found
    assert len(found) <= 2 and all(text.startswith("WARNING: ") for text in found), found


def test_a_device_that_another_resource_brings(node):
    node.cib(more=primitive("vg", "ocf:heartbeat:LVM-activate", {"vgname": "vg"}),
             kopano_fs={"device": "/dev/vg/kopano"})
    assert node.texts("server") == []


def test_what_has_nothing_to_do_with_kopano_is_not_judged(node):
    node.cib(more=primitive("web_ip", "ocf:heartbeat:IPaddr2", {"ip": "198.51.100.9", "nic": "ens9"})
             + primitive("web_fs", "ocf:heartbeat:Filesystem", {"device": "/dev/none", "directory": "/srv/www"})
             + primitive("web_drbd", "ocf:linbit:drbd", {"drbd_resource": "kopano"}))
    assert node.texts("server") == []


@pytest.mark.parametrize("line", ["/dev/drbd1 /var/lib/kopano ext4 defaults 0 0", "UUID=1 /var/lib/kopano/ ext4 rw 0 0",
                                  "/dev/drbd1 /mnt ext4 _netdev 0 0"])
def test_a_disk_that_the_boot_mounts_too(node, line):
    node.cib()
    node.write("/etc/fstab", "# x\n%s\n" % line)
    only(node, "server", "/etc/fstab: ", "mounted at boot too, beside the cluster (kopano_fs); remove the line")
    node.write("/etc/fstab", line.replace(" ext4 ", " ext4 noauto,") + "\n")
    assert node.texts("server") == []


def test_all_of_the_database_moves(node):
    node.replace(MY_CNF, "[mysqld]", "[mysqld]\ninnodb-log-group-home-dir = /srv/log\ndatadir = /srv/unused")
    node.cib()                              # the agent itself says where the data is
    only(node, "server", MY_CNF + ": innodb_log_group_home_dir = /srv/log: not on a file system that moves with mysqld "
         "(/var/lib/mysql); put it there")
    node.replace(MY_CNF, "/srv/log", "/var/lib/mysql/log")
    node.cib(mysqld={"kind": "systemd:mariadb"})
    only(node, "server", MY_CNF + ": datadir = /srv/unused: not on a file system that moves with mysqld")


def test_another_option_file_for_the_database(node):
    node.cib(mysqld={"config": "/etc/kopano-db.cnf"})
    node.write("/etc/kopano-db.cnf", "[mysqld]\nbind-address=192.168.122.25\n!include /etc/more.cnf\n")
    only(node, "server", "/etc/kopano-db.cnf: bind-address = 192.168.122.25: ")
    node.write("/etc/more.cnf", "[mariadbd]\nbind_address = \"192.168.122.101\"  \n")
    assert node.texts("server") == []


def test_localhost_for_a_database_that_may_be_elsewhere(node):
    node.cib()
    node.replace(SERVER_CFG, "mysql_host = 192.168.122.101", "mysql_host = localhost")
    only(node, "server", "mysql_host = localhost: mysqld may run on another node than kopano-server; use the")
    with open(node.root + "/var/lib/pacemaker/cib/cib.xml") as file:
        text = file.read()
    node.write("/var/lib/pacemaker/cib/cib.xml", text.replace('score="-100"', 'score="INFINITY"'))
    assert node.texts("server") == []


def test_an_address_that_comes_with_the_other_group(node):
    node.cib()
    node.replace("/etc/kopano/dagent.cfg", "lmtp_listen = 192.168.122.100", "lmtp_listen = 192.168.122.101")
    node.replace(MAIN_CF, "virtual_transport = lmtp:192.168.122.100", "virtual_transport = lmtp:192.168.122.101")
    only(node, "dagent", "dagent.cfg: lmtp_listen = 192.168.122.101: it comes with mysql_ip, which may be on another "
         "node than kopano-dagent; use 192.168.122.100")


def test_a_database_by_name(node):
    node.cib()
    node.replace(SERVER_CFG, "mysql_host = 192.168.122.101", "mysql_host = db")
    assert node.texts("server") == []       # only a name server knows
    node.replace("/etc/hosts", "alice", "alice\n127.0.1.1 db")
    assert "/etc/hosts: 127.0.1.1 = db: /etc/kopano/server.cfg: mysql_host names it" in node.texts("server")[0]
    node.replace("/etc/hosts", "127.0.1.1 db", "192.168.122.101 db")
    assert node.texts("server") == []


def test_a_server_by_name(node):
    node.replace("/etc/kopano/gateway.cfg", "http://192.168.122.100:236/", "http://mail:236/")
    assert node.texts("gateway") == []
    node.replace("/etc/hosts", "alice", "alice\n127.0.1.1 mail")
    only(node, "gateway", "gateway.cfg: server_socket = http://mail:236/: kopano-server does not listen there",
         "and /etc/hosts says that mail is 127.0.1.1; use http://192.168.122.100:236/")
    node.replace("/etc/hosts", "127.0.1.1 mail", "192.168.122.100 mail")
    assert node.texts("gateway") == []


@pytest.mark.parametrize("kind", ["lsb:kopano-dagent", "systemd:kopano-dagent"])
def test_two_resources_for_one_daemon(node, kind):
    node.cib(more=primitive("old", kind, {}))
    only(node, "dagent", "CIB, old: type = %s: a second resource for what ocf:kopano:dagent runs" % kind)


def test_attachments_where_the_file_system_is_mounted(node, monkeypatch):
    node.cib()
    path = "/var/lib/kopano/attachments"
    node.write("/var/lib/kopano/attachments", "")
    assert node.texts("server") == []               # not mounted: nobody knows
    monkeypatch.setattr(os.path, "ismount", lambda place: place.endswith("/var/lib/kopano"))
    found = node.findings("server")
    assert [(f.severity, f.code) for f in found] == [(ERROR, 5)]
    assert "attachment_path = %s: %s is not a directory" % (path, path) in found[0].text
    os.remove(node.root + path)
    os.makedirs(node.root + path, 0o700)
    node.add("server", "run_as_user = %s\n" % OTHER)
    node.replace("/etc/tmpfiles.d/kopano-cluster.conf", "%s %s" % (ME, ME), "%s %s" % (OTHER, OTHER))
    found = node.findings("server")
    assert [f.severity for f in found] == [WARNING]
    assert "%s can't write to %s; chown %s" % (OTHER, path, OTHER) in found[0].text


def test_a_broken_cib_is_pacemakers_own_matter(node):
    for text in ("", "<cib>", "<cib/>", "<!DOCTYPE x [<!ENTITY a 'b'>]><cib><configuration/></cib>", "\0\xff"):
        node.write("/var/lib/pacemaker/cib/cib.xml", text)
        assert node.texts("server") == []


# ---------------------------------------------------------------- Postfix, Apache

def test_ipv6(node, monkeypatch):
    """All of crm/node turned to the other family."""
    def turned(text):
        return subprocess.run(["sed", "-f", NODE + "/ipv6.sed"], input=text.encode(), stdout=subprocess.PIPE,
                              check=True).stdout.decode()
    own = turned("192.168.122.25 10.0.0.25").split()
    monkeypatch.setattr(address, "is_local", lambda place: place in own or place.startswith("127."))
    network = "%s 40 " + "0" * 32 + " 00 " + "0" * 32 + " 00000100 00000001 00000000 00000001 eth0\n"
    node.write("/proc/net/ipv6_route", network % "20010db8012200000000000000000000"
               + network % "fd000010000000000000000000000000")
    node.write("/proc/net/route", "")
    for folder in ("kopano", "kopano/webapp", "corosync", "drbd.d", "mysql/mariadb.conf.d", "postfix", "haproxy"):
        for name in os.listdir(node.root + "/etc/" + folder):
            path = "/etc/%s/%s" % (folder, name)
            if os.path.isfile(node.root + path):
                with open(node.root + path) as file:
                    node.write(path, turned(file.read()), os.stat(node.root + path).st_mode & 0o777)
    node.replace("/etc/hosts", "192.168.122.2", "2001:db8:122::2")
    node.cib(kopano_ip={"ip": "2001:db8:122::100", "cidr_netmask": "64"},
             mysql_ip={"ip": "2001:db8:122:0::101", "cidr_netmask": "64"})
    for name in AGENTS:
        assert node.texts(name) == []
    node.replace(MAIN_CF, "inet_protocols = all", "inet_protocols = ipv4")
    only(node, "dagent", "main.cf: inet_protocols = ipv4: ", "can't be reached without IPv6; use all")
    node.replace("/etc/kopano/webapp/config.php", "[2001:db8:122::100]", "2001:db8:122::100")
    only(node, "webapp-health", "config.php: DEFAULT_SERVER = http://2001:db8:122::100:236/kopano: ", "brackets")
    node.replace(KOPANO_RES, "address ipv6 ", "address ")
    assert len(node.texts("server")) == 3       # and WebApp's


@pytest.mark.parametrize("transport, master, good", [
    ("kopano:", "kopano unix - - n - 8 lmtp\n  -o x=y\n", True),
    ("kopano:", "kopano unix - n n - 8 pipe\n  flags=R user=vmail\n  argv=/usr/sbin/kopano-dagent ${user}\n", True),
    ("kopano:", "kopano unix - n n - - pipe argv=/usr/bin/maildrop\n", False), ("kopano:", "", True),
    ("kopano:", "#kopano unix - n n - - pipe\n", True),         # unknown
    ("virtual", "virtual unix - n n - - virtual\n", False), ("virtual:", "", False), ("error:closed", "", False),
])
def test_transports_of_other_names(node, transport, master, good):
    node.write("/etc/postfix/master.cf", "smtp inet n - y - - smtpd\n" + master)
    node.replace(MAIN_CF, "lmtp:192.168.122.100:2003\n#", transport + "\n#")
    if good:
        assert node.texts("dagent") == []
    else:
        only(node, "dagent", "main.cf: virtual_transport = %s: mail for virtual_mailbox_domains (example." % transport)
    node.replace(MAIN_CF, "virtual_mailbox_domains =", "transport_maps = hash:/etc/postfix/transport\n"
                 "virtual_mailbox_domains =")
    assert node.texts("dagent") == []       # what is in there is not known
    node.replace(MAIN_CF, "transport_maps = hash:/etc/postfix/transport\nvirtual_mailbox_domains =", "relay_domains =")
    assert node.texts("dagent") == []


STATUS = "/etc/apache2/mods-enabled/status.conf"


@pytest.mark.parametrize("rules, good", [
    ("Require local", True), ("Require all granted", True), ("", True), ("Require ip 127.0.0.1 ::1", True),
    ("Require ip 10.0.0.0/8\nRequire host localhost", True), ("<RequireAny>\nRequire local\n</RequireAny>", True),
    ("Require expr %{REQUEST_URI} == 'x'", True), ("Require valid-user", True),
    ("Order deny,allow\nDeny from all\nAllow from 127.0.0.1", True),
    ("Require all denied", False), ("Require ip 192.168.122.20", False),
    ("Order deny,allow\nDeny from all\nAllow from .example.com", False), ("Deny from all", False),
])
def test_who_may_read_apaches_status(node, rules, good):
    node.write(STATUS, "<Location /other>\n Require all denied\n</Location>\n<Location \"/server-status\">\n"
               " SetHandler server-status\n%s\n</Location>\n<Location /third>\nRequire all denied\n</Location>\n"
               % rules)
    if good:
        assert node.texts("webapp-health") == []
    else:
        only(node, "webapp-health", STATUS + ": server-status = ", "it must be readable from this host; Require local")


def test_apache_without_status(node):
    node.write(STATUS, "#<Location /server-status>\n#SetHandler server-status\n#</Location>\n")
    words = STATUS + ": SetHandler = (none): no server-status, so Apache can't be watched; a2enmod status"
    only(node, "webapp-health", words)
    assert node.texts("webapp-health", status_url="http://192.0.2.1/server-status") == []
    node.write("/etc/httpd/conf/httpd.conf", "<Location /server-status>\nSetHandler server-status\n</Location>\n")
    only(node, "webapp-health", words)      # Debian's is the one that counts here
    os.remove(node.root + "/etc/apache2/apache2.conf")
    assert node.texts("webapp-health") == []
    node.write("/etc/httpd/conf/httpd.conf", "ServerRoot \"/etc/httpd\"\nIncludeOptional conf.d/*.conf\n"
               "IncludeOptional conf.d/\nInclude conf/httpd.conf\n")
    only(node, "webapp-health", "/etc/httpd/conf.d/status.conf: SetHandler = (none)")
    node.write("/etc/httpd/conf.d/kopano.conf", "<Location /server-status>\nSetHandler server-status\n</Location>\n")
    assert node.texts("webapp-health") == []


def test_nothing_of_it_is_installed(node):
    for path in (MAIN_CF, HAPROXY, "/etc/apache2/apache2.conf", "/etc/mysql/my.cnf"):
        os.remove(node.root + path)
    node.write("/etc/haproxy/haproxy.cfg.dpkg-dist", "")
    node.cib()
    for name in AGENTS:
        assert node.texts(name) == []


# ---------------------------------------------------------------- whatever the files hold

FILES = (COROSYNC, "/etc/hosts", "/etc/fstab", "/etc/drbd.conf", KOPANO_RES, "/etc/mysql/my.cnf", MY_CNF, MAIN_CF,
         "/etc/apache2/apache2.conf", STATUS, HAPROXY, "/etc/tmpfiles.d/kopano-cluster.conf",
         "/var/lib/pacemaker/cib/cib.xml", "/proc/sys/kernel/hostname", "/sys/module/drbd/version",
         "/etc/nftables.conf", "/etc/nsswitch.conf", "/etc/postfix/master.cf")


def without_daemons(node):
    """Asking a shell script each time would take long."""
    for name in AGENTS:
        if os.path.exists(node.root + "/usr/sbin/kopano-" + name):
            os.remove(node.root + "/usr/sbin/kopano-" + name)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(FILES), st.tuples(st.integers(0, 400), st.binary(max_size=40)), min_size=1,
                       max_size=5), st.sampled_from(["server", "dagent", "webapp-health"]))
def test_files_with_any_bytes_in_them(tmp_path, bare, changes, agent):
    node = NodeTree(str(tmp_path / binascii.hexlify(os.urandom(8)).decode()))
    without_daemons(node)
    node.cib()
    for path, (at, data) in changes.items():
        before = b""
        if os.path.exists(node.root + path):
            with open(node.root + path, "rb") as file:
                before = file.read()
        node.write(path, before[:at] + data + before[at:])
    node.findings(agent)


@pytest.mark.parametrize("make, words", [
    (os.mkfifo, "not a regular file"), (os.mkdir, "not a regular file"),
    (lambda path: os.symlink(path, path), "symbolic"),
    (lambda path: os.symlink("/dev/zero", path), "not a regular file"),
    (lambda path: open(path, "wb").write(b"[mysqld]\nx\0y\n"), "binary data in line 2; restore the file"),
    (lambda path: open(path, "wb").write(b"#" * (2 << 20)), "larger than 1048576 bytes"),
])
@pytest.mark.parametrize("agent, path", [("server", COROSYNC), ("server", KOPANO_RES), ("server", MY_CNF),
                                         ("dagent", MAIN_CF), ("webapp-health", STATUS), ("webapp-health", HAPROXY)])
def test_odd_files(node, agent, path, make, words):
    without_daemons(node)
    node.cib()
    os.remove(node.root + path)
    make(node.root + path)
    begin = time.monotonic()
    found = [text for text in node.texts(agent) if words in text]
    assert len(found) == 1 and found[0].startswith("WARNING: %s: " % path), node.texts(agent)
    assert time.monotonic() - begin < 5


def test_time_grows_with_the_text_and_not_faster(node):
    without_daemons(node)
    node.cib()
    for path, text in ((COROSYNC, "a {\n" * 15 + "x: y\n" * 100000), (KOPANO_RES, "resource k { x \"y\"; }\n" * 20000),
                       (MY_CNF, "[mysqld]\n" + "x-y = 'z'\n" * 50000), ("/etc/hosts", "10.0.0.1 a b c\n" * 40000),
                       (STATUS, "<Location /x>\n" * 30000), (HAPROXY, "backend x\nserver a b:1\n" * 30000)):
        node.write(path, text)
    begin = time.monotonic()
    for agent in ("server", "webapp-health"):
        node.findings(agent)
    assert time.monotonic() - begin < 20


def test_no_check_is_left_out():
    from kopano_ocf import validate_host
    listed = set(check.__name__ for check, _ in validate_host.CHECKS)
    for module in (validate_cluster, validate_firewall, validate_services):
        own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")
               and getattr(value, "__module__", "") == module.__name__]
        assert set(own) <= listed, module.__name__
