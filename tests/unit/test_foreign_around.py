# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of corosync.conf, DRBD's files, the CIB, hosts, fstab, option files, Apache, HAProxy, tmpfiles.d."""
import pytest
from hypothesis import given, strategies as st

from kopano_ocf import foreign, foreign_cluster, foreign_services

from .tree import RESOURCES, primitive


def shape(section):
    """Sections as nested lists."""
    return [section.kind, section.words, section.settings, [shape(inner) for inner in section.sections]]


@pytest.mark.parametrize("text, nodes", [
    ("", []),
    ("nodelist {\n node {\n  ring0_addr: bob\n  ring1_addr: x\n }\n\tnode {\n\tring0_addr : a\n# ring0_addr: old\n}\n}",
     [("bob", [0, 1]), ("a", [0])]),
    ("nodelist {\n node {\n name: n\n nodeid: 1\n }\n}\n", []),
    ("nodelist {\n node {\n ring0_addr: a\n }\n}\nnodelist {\n node {\n ring7_addr: b\n ring8_addr: c\n }\n}\n",
     [("a", [0]), ("b", [7])]),
    ("node {\n ring0_addr: a\n}\n", []),
])
def test_corosync_nodes(text, nodes):
    found = foreign_cluster.corosync_nodes(foreign_cluster.corosync(text))
    assert [(node.called, sorted(node.links)) for node in found] == nodes


def test_corosync():
    tree = foreign_cluster.corosync("a: 1\ntotem {\n token: 1\n token: 2\n interface{\n x\n y :z: 1\n }\n}\n")
    assert shape(tree) == ["", [], [("a", ["1"])], [["totem", [], [("token", ["1"]), ("token", ["2"])], [
        ["interface", [], [("y", ["z:", "1"])], []]]]]]
    assert tree.first("totem").get("token") == "2" and tree.first("quorum").get("x") is None


@pytest.mark.parametrize("reader", [foreign_cluster.corosync, foreign_cluster.drbd])
@pytest.mark.parametrize("text, words", [
    ("a {\n", "'}' is missing: the section 'a' does not end"), ("a {\n}\n}\n", "line 3: '}' without '{'"),
    ("a {\n" * 17, "line 17: more than 16 sections within each other")])
def test_sections_that_do_not_end(reader, text, words):
    with pytest.raises(ValueError) as caught:
        reader(text)
    assert str(caught.value) == words


@pytest.mark.parametrize("text, wanted", [
    ("a b;", [("a", ["b"])]), ("a\n b # c;\n d;", [("a", ["b", "d"])]), ('a "b ; c" d', []),
    ('a "b ; # { c" d;', [("a", ["b ; # { c", "d"])]), (";;", []), ('"a" b;', [("a", ["b"])]),
    ('a"b"c;', [("a", ["b", "c"])]),
])
def test_drbd_settings(text, wanted):
    assert foreign_cluster.drbd(text).settings == wanted


def test_drbd_resource():
    tree = foreign_cluster.drbd("""common { net { protocol C; } handlers { fence-peer "x -y"; } }
resource r { net { protocol A; }
  volume 0 { device /dev/drbd5 minor 5; disk /dev/a; }
  on bob { address 10.0.0.1:7788; volume 1 { device minor 6; disk none; } }
  on alice al { address ipv6 [fd00::2]:7788; }
  floating 10.0.0.3:7788 { }
  stacked-on-top-of x { address 10.0.0.4:1; }
}
resource { }""")
    [found] = foreign_cluster.drbd_resources([("f", tree)])
    assert (found.name, found.file) == ("r", "f")
    assert found.option("protocol", "net") == "A" and found.option("fence-peer", "handlers") == "x -y"
    assert found.option("protocol", "disk") is None
    bob, alice, floating = found.replicas()
    assert (bob.hosts, bob.addresses, bob.volumes) == (["bob"], [("ipv4", "10.0.0.1:7788")], [("minor 6", "none")])
    assert (alice.hosts, alice.addresses, alice.volumes) == (
        ["alice", "al"], [("ipv6", "[fd00::2]:7788")], [("/dev/drbd5 minor 5", "/dev/a")])
    assert (floating.hosts, floating.addresses) == ([], [("ipv4", "10.0.0.3:7788")])


@pytest.mark.parametrize("family, text, wanted", [
    ("ipv4", "10.0.0.1:7788", ("10.0.0.1", 7788)), ("ipv6", "[fd00::1]:7788", ("fd00::1", 7788)),
    ("ipv4", "10.0.0.1", "no port"), ("ipv4", "", "no port"), ("ipv4", ":1", "not an IPv4"),
    ("ipv4", "fd00::1:7788", "brackets"), ("ipv6", "fd00::1:7788", "[ADDRESS]"),
    ("ipv6", "[10.0.0.1]:1", "not an IPv6"),
    ("ipv4", "[fd00::1]:7788", "not an IPv4"), ("ipv4", "bob:7788", "not an IPv4"), ("ipv4", "10.0.0.1:0", "no port")])
def test_drbd_addresses(family, text, wanted):
    if isinstance(wanted, tuple):
        assert foreign_cluster.drbd_host_port(family, text) == wanted
        return
    with pytest.raises(ValueError) as caught:
        foreign_cluster.drbd_host_port(family, text)
    assert wanted.strip("[]") in str(caught.value) or "[ADDRESS]" in str(caught.value)


def cib(resources, constraints=""):
    return foreign_cluster.cib("<cib><configuration><resources>%s</resources><constraints>%s</constraints>"
                               "</configuration></cib>" % (resources, constraints))


def test_cib():
    found = cib('<template id="t" class="ocf" provider="heartbeat" type="IPaddr2"><instance_attributes id="x">'
                '<nvpair id="y" name="nic" value="eth0"/></instance_attributes></template>'
                '<primitive id="ip" template="t"><instance_attributes id="z">'
                '<nvpair id="w" name="ip" value="10.0.0.1"/></instance_attributes></primitive>'
                '<clone id="c"><group id="g">%s</group></clone>' % primitive("m", "systemd:mariadb", {}))
    ip, database = found.primitives
    assert (ip.kind, ip.type, ip.params, ip.above) == (
        "ocf:heartbeat:IPaddr2", "IPaddr2", {"ip": "10.0.0.1", "nic": "eth0"}, [])
    assert (database.kind, database.above) == ("systemd:mariadb", ["c", "g"]) and found.databases() == [database]


@pytest.mark.parametrize("constraint, wanted", [
    ('<rsc_colocation id="k" rsc="g" with-rsc="b" score="INFINITY"/>', "a b c"),
    ('<rsc_colocation id="k" rsc="b" with-rsc="c" score="inf"/>', "a b c"),
    ('<rsc_colocation id="k" rsc="a" with-rsc="b" score="1000"/>', "a c"),
    ('<rsc_colocation id="k" rsc="a" with-rsc="b" score="-INFINITY"/>', "a c"),
    ('<rsc_colocation id="k" rsc="a" with-rsc="b"/>', "a c"),
    ('<rsc_colocation id="k" rsc="d" with-rsc="b" score="INFINITY"/>', "a c"),
    ('<rsc_colocation id="k"><resource_set id="s"><resource_ref id="a"/><resource_ref id="d"/></resource_set>'
     '</rsc_colocation>', "a c d"),
    ('<rsc_colocation id="k" score="-INFINITY"><resource_set id="s"><resource_ref id="a"/><resource_ref id="d"/>'
     '</resource_set></rsc_colocation>', "a c"),
    ('<rsc_order id="k" first="a" then="b"/>', "a c"), ("", "a c")])
def test_what_is_beside(constraint, wanted):
    one = dict((name, primitive(name, "ocf:pacemaker:Dummy", {})) for name in "abcd")
    found = cib('<group id="g">%(a)s%(c)s</group>%(b)s%(d)s' % one, constraint)
    seed = [entry for entry in found.primitives if entry.id == "a"]
    assert sorted(entry.id for entry in found.beside(*seed)) == wanted.split()
    assert found.beside() == []


@pytest.mark.parametrize("text", [
    "", "<cib/>", "<a><configuration/></a>", "<cib>", "x", "<cib><configuration></cib>",
    "<!DOCTYPE cib [<!ENTITY a \"b\">]><cib><configuration/></cib>"])
def test_no_cib(text):
    with pytest.raises(ValueError):
        foreign_cluster.cib(text)


def test_hosts_and_fstab():
    text = "127.0.0.1 localhost\n# x y\n10.0.0.1\tBob bob.example.com # me\n10.0.0.2 bob\n::1\n"
    assert foreign_cluster.hosts(text) == {
        "localhost": ["127.0.0.1"], "bob": ["10.0.0.1", "10.0.0.2"], "bob.example.com": ["10.0.0.1"]}
    assert foreign_cluster.fstab("# a b c d\n/dev/a /a ext4 noauto,ro 0 0\n/dev/b /b ext4\nx\n\n") == [
        ("/dev/a", "/a", ["noauto", "ro"]), ("/dev/b", "/b", [])]


@pytest.mark.parametrize("text, wanted", [
    ("[mysqld]\na-b=c\n", [("a_b", "c")]), ("[client]\na=b\n", []), ("a=b\n", []),
    ("[ mariadb ]\n skip-networking\n", [("skip_networking", "1")]), ("[mysqld]\n#a=b\n;a=b\n", []),
    ("[server]\na = 'x # y' # z\nb = c # d\n", [("a", "x # y"), ("b", "c")]),
    ("[mysqld]\nloose-a = 1\nA=2\n", [("a", "1"), ("a", "2")]), ("[mariadb-10.11]\na=b\n", []),
    ("!include /x\n!includedir /y/ \n!else z\n!include\n", [("!include", "/x"), ("!includedir", "/y/")]),
    ("[mysqld\na=\n=b\n", [("a", "")])])
def test_option_files(text, wanted):
    assert list(foreign_services.mysql_lines(text)) == wanted


@pytest.mark.parametrize("text, wanted", [
    ("", []), ("SetHandler server-status\n", [[]]), ("# SetHandler server-status\n", []),
    ("<Location /s>\nSetHandler \\\n server-status\nRequire local\n</Location>\nRequire all denied\n",
     [[["require", "local"]]]),
    ("<Location \"/s\">\n<IfModule x>\nsethandler server-status\n</IfModule>\n<RequireAny>\nRequire ip ::1\n"
     "</RequireAny>\n</Location>", [[["require", "ip", "::1"]]]),
    ("</Location>\n</x>\n<\n>\n<>\n", []), ("SetHandler server-info\n", [])])
def test_apache_status(text, wanted):
    assert foreign_services.apache_status(text) == wanted


def test_apache_includes():
    text = "ServerRoot \"/etc/httpd\"\nInclude a/*.conf\nincludeOptional \"b\"\n#Include c\nInclude\n"
    assert foreign_services.apache_includes(text) == ("/etc/httpd", ["a/*.conf", "b"])


def test_haproxy():
    found = foreign_services.haproxy_backends("""
global
    server not here:1
defaults
    default-server check inter 2s
backend one   # first
    server a 10.0.0.1:80
    server b [fd00::1]:80 no-check
    server c fd00::2:80 weight 1
defaults
listen two
    bind :80
    server d bob check
    server e unix@/run/x
    default-server check
    server f ipv4@10.0.0.2:81   # "check"
    #server g 10.0.0.3
frontend x
    server h 10.0.0.4
backend empty
""")
    assert [(backend.name, backend.servers) for backend in found] == [
        ("one", [("a", "10.0.0.1", "80", True), ("b", "fd00::1", "80", False), ("c", "fd00::2", "80", True)]),
        ("two", [("d", "bob", "", True), ("e", "", "", False), ("f", "10.0.0.2", "81", True)])]


def test_tmpfiles():
    text = "#d /a\nd /a/ 0755 u g -\nD! /b - - -\nd /c\nf /d 0644 u\nd /a 0755 v\nd x\nd+ /e 1 0\n"
    assert foreign_services.tmpfiles(text) == {"/a": "u", "/b": "root", "/c": "root", "/e": "root"}


@pytest.mark.parametrize("text, wanted", [
    ("lmtp:fd00::1:2003", True), ("lmtp:inet:fd00::1:24", True), ("lmtp:::1", True), ("lmtp:[fd00::1]:2003", False),
    ("lmtp:192.0.2.1:2003", False), ("lmtp:a:b:c", False), ("lmtp:", False), ("", False), ("relay:fd00::1:25", False)])
def test_ipv6_in_a_transport(text, wanted):
    assert foreign.bare_ipv6(text) == wanted


WORDS = ["{", "}", ";", "\n", "\"", "#", " ", "resource r", "on bob", "address ", "ipv6 ", "[::1]:1", "volume 0",
         "device", "connection", "host bob address ", "node", "ring0_addr: a", "nodelist", "[mysqld]", "=",
         "!include /x", "::", "<Location", ">", "</Location>", "SetHandler server-status", "Require", "Allow",
         "backend", "server a ", "d /a", "@", "\\"]


@given(st.one_of(st.text(max_size=300), st.lists(st.sampled_from(WORDS), max_size=60).map("".join)))
def test_any_text(text):
    """Nothing but ValueError with one line."""
    for reader in (foreign_cluster.corosync, foreign_cluster.drbd, foreign_cluster.cib):
        try:
            tree = reader(text)
        except ValueError as err:
            assert str(err)
            continue
        if reader is foreign_cluster.corosync:
            assert all(node.called for node in foreign_cluster.corosync_nodes(tree))
        if reader is foreign_cluster.drbd:
            for resource in foreign_cluster.drbd_resources([("f", tree)]):
                for replica in resource.replicas():
                    for family, place in replica.addresses:
                        try:
                            foreign_cluster.drbd_host_port(family, place)
                        except ValueError:
                            pass
    foreign_cluster.hosts(text)
    foreign_cluster.fstab(text)
    list(foreign_services.mysql_lines(text))
    for rules in foreign_services.apache_status(text):
        foreign_services.lets_this_host_in(rules)
    foreign_services.apache_includes(text)
    foreign_services.haproxy_backends(text)
    foreign_services.tmpfiles(text)
    foreign.bare_ipv6("lmtp:" + text)


@given(st.lists(st.sampled_from(sorted(RESOURCES)), max_size=6, unique=True),
       st.lists(st.tuples(st.sampled_from(sorted(RESOURCES)), st.sampled_from(sorted(RESOURCES))), max_size=6))
def test_beside_ends_and_works_both_ways(members, pairs):
    found = cib("<group id='G'>%s</group>" % "".join(primitive(name, *RESOURCES[name]) for name in members)
                + "".join(primitive(name, *RESOURCES[name]) for name in sorted(RESOURCES) if name not in members),
                "".join('<rsc_colocation id="c%d" rsc="%s" with-rsc="%s" score="INFINITY"/>' % ((i,) + pair)
                        for i, pair in enumerate(pairs)))
    for entry in found.primitives:
        assert entry in found.beside(entry)
        assert all(entry in found.beside(other) for other in found.beside(entry))
