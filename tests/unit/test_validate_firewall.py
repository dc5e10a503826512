# SPDX-License-Identifier: GPL-2.0-or-later
"""validate-all and this host's firewall: a port that the configuration needs, and that nothing lets in."""
import os

import pytest

from .tree import AGENTS, ME, NodeTree, TOO_OLD

NFT, ZONES = "/etc/nftables.conf", "/etc/firewalld/zones"
NODES_XML, CLIENTS_XML = ("/etc/firewalld/services/kopano-%s.xml" % name for name in ("nodes", "clients"))
PUBLIC = '<?xml version="1.0" encoding="utf-8"?><zone><short>Public</short><service name="ssh"/><forward/></zone>'
# (agent, what shuts nftables, what shuts firewalld, its file there, words of the finding)
SHUT = [
    ("server", ("udp dport 5404-5412", "udp dport 5404-5406"), ("5404-5412", "5404-5406"), NODES_XML,
     "nothing lets udp 5407 in, for Corosync's link 1 (/etc/corosync/corosync.conf: ring1_addr = 10.0.0.25); "),
    ("server", ("tcp dport { 7788, 7799 }", "tcp dport 7788"), ('port="7799"', 'port="7789"'), NODES_XML,
     "nothing lets tcp 7799 in, for DRBD (/etc/drbd.d/kopano.res: resource kopano: address = 10.0.0.25:7799); "),
    ("server", ("tcp dport 3306", "tcp dport 3307"), ('port="3306"', 'port="3307"'), NODES_XML,
     "nothing lets tcp 3306 in, for kopano-server on the other nodes (/etc/kopano/server.cfg: mysql_host = "
     "192.168.122.101); "),
    ("server", ("        ip saddr $nodes tcp dport 236 accept\n", ""), ('port="236"', 'port="23"'), NODES_XML,
     "nothing lets tcp 236 in, for WebApp on the other nodes (/etc/kopano/webapp/config.php: DEFAULT_SERVER = "
     "http://192.168.122.100:236); "),
    ("dagent", ("tcp dport 2003", "tcp dport 24"), ('port="2003"', 'port="24"'), NODES_XML,
     "nothing lets tcp 2003 in, for Postfix on the other nodes (/etc/kopano/dagent.cfg: lmtp_listen = "
     "192.168.122.100:2003); "),
    ("gateway", ("{ 143, 993,", "{"), ('port="143"', 'port="993"'), CLIENTS_XML,
     "nothing lets tcp 143 in, for its clients (/etc/kopano/gateway.cfg: imap_listen = 192.168.122.100:143); "),
    ("ical", (" 8080,", ""), ('port="8080"', 'port="8081"'), CLIENTS_XML,
     "nothing lets tcp 8080 in, for its clients (/etc/kopano/ical.cfg: ical_listen = 192.168.122.100:8080); "),
]


def firewalld(node):
    """This firewall in place of the other."""
    os.remove(node.root + "/etc/systemd/system/multi-user.target.wants/nftables.service")
    node.enable("firewalld")
    node.write("/usr/lib/firewalld/zones/public.xml", PUBLIC)
    for name, port in (("ssh", 22), ("http", 80), ("https", 443)):
        node.write("/usr/lib/firewalld/services/%s.xml" % name,
                   '<service><port protocol="tcp" port="%d"/></service>' % port)


@pytest.mark.parametrize("agent, change, _, file, words", SHUT)
def test_nftables(node, agent, change, _, file, words):
    node.cib()
    node.replace(NFT, *change)
    [found] = node.texts(agent)
    assert found.startswith("WARNING: /etc/nftables.conf: chain inet filter input = policy drop: " + words)
    protocol, port = words.split()[2:4]
    assert found.endswith("; add: %s dport %s accept" % (protocol, port))
    os.remove(node.root + "/etc/systemd/system/multi-user.target.wants/nftables.service")
    assert node.texts(agent) == []          # the boot does not load it


@pytest.mark.parametrize("agent, _, change, file, words", SHUT)
def test_firewalld(node, agent, _, change, file, words):
    node.cib()
    firewalld(node)
    assert node.texts(agent) == []
    node.replace(file, *change)
    [found] = node.texts(agent)
    assert found.startswith("WARNING: /etc/firewalld/zones: " + words) and "--add-port=%s/%s, in" % (
        words.split()[3], words.split()[2]) in found


@pytest.mark.parametrize("change", [
    ("policy drop", "policy accept"), ("iif lo accept", "tcp dport 236 queue"),
    ("iif lo accept", "iifname eth1 accept"), ("iif lo accept", "jump elsewhere"),
    ("iif lo accept", "tcp dport { 1-6000, 7799, 8080 } accept\nudp dport 1-6000 accept"),
    ("table inet filter", "table ip6 filter"),      # the nodes' addresses are IPv4
])
def test_what_is_not_shut_for_sure(node, change):
    node.cib()
    for agent, (old, new), _, _, _ in SHUT:
        node.replace(NFT, old, new)
    whole = {agent: len(node.texts(agent)) for agent, _, _, _, _ in SHUT}
    assert whole == {"server": 4, "dagent": 1, "gateway": 1, "ical": 1}
    node.replace(NFT, *change)
    assert [text for agent in whole for text in node.texts(agent)] == []


def test_ports_that_other_settings_name(node):
    node.cib()
    node.replace("/etc/corosync/corosync.conf", "linknumber: 1", "linknumber: 1\n mcastport: 6000")
    node.replace("/etc/kopano/server.cfg", "192.168.122.100:236\n", "192.168.122.100:2236\n")
    node.replace("/etc/kopano/webapp/config.php", ":236/", ":2236/")
    found = node.texts("server")
    assert ["udp 6000" in found[0], "tcp 2236" in found[1], len(found)] == [True, True, 2]
    node.replace("/etc/corosync/corosync.conf", "transport: knet", "transport: udp")
    assert not [text for text in node.texts("server") if "udp 6000" in text]


def test_with_tls_or_without_is_enough(node):
    node.add("gateway", "imaps_listen = 192.168.122.100:993\n")
    node.replace(NFT, "{ 143, 993,", "{ 993,")
    assert [text for text in node.texts("gateway") if "nftables" in text] == []


def test_what_nobody_has_set_needs_no_port(node):
    """Kopano 8.6 serves POP3 unasked."""
    node.write("/usr/sbin/kopano-gateway", TOO_OLD, 0o755)
    node.write("/etc/kopano/gateway.cfg", "server_bind = 192.168.122.100\nimap_port = 143\n"
               "server_socket = http://192.168.122.100:236/\nrun_as_user = %s\nrun_as_group =\n" % ME)
    node.replace(NFT, " 110,", "")
    assert node.texts("gateway") == []
    node.add("gateway", "pop3_port = 110\n")
    [found] = node.texts("gateway")
    assert "nothing lets tcp 110 in" in found


def test_who_is_asked_on_this_host_alone_needs_no_port(node):
    """One machine: WebApp, Postfix and the database are on it. Users come from elsewhere."""
    node.write("/etc/corosync/corosync.conf", "")
    node.replace(NFT, "tcp dport 236 ", "tcp dport 23 ")
    node.replace(NFT, "tcp dport 2003", "tcp dport 24")
    node.replace(NFT, " 8080,", "")
    assert (node.texts("server"), node.texts("dagent"), len(node.texts("ical"))) == ([], [], 1)
    node.replace("/etc/kopano/ical.cfg", "192.168.122.100:8080", "127.0.0.1:8080")
    assert not [text for text in node.texts("ical") if "nftables" in text]


def test_a_database_that_moves_with_the_server(node):
    node.cib()
    node.replace(NFT, "tcp dport 3306", "tcp dport 3307")
    assert len(node.texts("server")) == 1
    node.replace("/var/lib/pacemaker/cib/cib.xml", 'score="-100"', 'score="INFINITY"')
    assert node.texts("server") == []


def test_rhels_file(node):
    os.rename(node.root + NFT, node.root + "/etc/nftables.rules")
    node.write("/etc/sysconfig/nftables.conf", 'include "/etc/nftables.rules"\n')
    assert node.texts("dagent") == []
    node.replace("/etc/nftables.rules", "tcp dport 2003", "tcp dport 24")
    [found] = node.texts("dagent")
    assert found.startswith("WARNING: /etc/sysconfig/nftables.conf: chain inet filter input = policy drop: ")


@pytest.mark.parametrize("path, text", [
    (ZONES + "/lan.xml", '<zone target="ACCEPT"><interface name="eth0"/></zone>'),
    (ZONES + "/public.xml", '<zone><port port="1-65535" protocol="tcp"/></zone>'),
    (ZONES + "/public.xml", '<zone><service name="unknown"/></zone>'),
    (ZONES + "/public.xml", '<zone><rule><source address="192.168.122.0/24"/><accept/></rule></zone>'),
    ("/etc/firewalld/firewalld.conf", "# x\nDefaultZone=trusted\n"),
    ("/etc/firewalld/firewalld.conf", "DefaultZone=none\n"),
    ("/etc/NetworkManager/system-connections/lan.nmconnection", "[connection]\nzone=trusted\n"),
    ("/etc/sysconfig/network-scripts/ifcfg-eth0", 'DEVICE=eth0\nZONE="trusted"\n'),
    ("/etc/firewalld/policies/mine.xml", "<policy/>"),
    ("/etc/firewalld/direct.xml", '<direct><rule priority="0" table="filter" ipv="ipv4" chain="INPUT"/></direct>'),
])
def test_zones_that_may_let_it_in(node, path, text):
    firewalld(node)
    node.write("/usr/lib/firewalld/zones/trusted.xml", '<zone target="ACCEPT"/>')
    node.write(ZONES + "/public.xml", PUBLIC)
    node.write(ZONES + "/unused.xml", '<zone target="ACCEPT"/>')
    node.replace(NODES_XML, 'port="2003"', 'port="24"')
    assert len(node.texts("dagent")) == 1
    node.write(path, text)
    assert node.texts("dagent") == []


def test_firewalls_that_can_not_be_read(node):
    firewalld(node)
    node.write(ZONES + "/kopano-nodes.xml", "<zone>")
    [found] = node.texts("dagent")
    assert found.startswith("WARNING: /etc/firewalld/zones/kopano-nodes.xml: not XML: ")
    os.remove(node.root + "/etc/systemd/system/multi-user.target.wants/firewalld.service")
    node.enable("nftables")
    os.remove(node.root + NFT)
    assert node.texts("dagent") == []
    os.mkfifo(node.root + NFT)
    [found] = node.texts("dagent")
    assert found.startswith("WARNING: /etc/nftables.conf: not a regular file")


def test_a_host_without_kopano_on_the_network(tmp_path, bare):
    node = NodeTree(tmp_path)
    for name in AGENTS:
        node.write("/etc/kopano/%s.cfg" % name, "")
    for name in ("spooler", "monitor", "webapp-health"):
        assert not [text for text in node.texts(name) if "nftables" in text]
