# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of nftables' and firewalld's files: what is let in, and when that is not clear."""
import time

import pytest
from hypothesis import given, strategies as st

from kopano_ocf import foreign_firewall

SERVICES = foreign_firewall.services("http 80/tcp www # World\nhttp\t80/udp\nhttp-alt 8080/tcp\nimaps 993/tcp")
HEAD = "table inet filter {\n chain input {\n type filter hook input priority filter; policy drop;\n"


def inputs(text, **files):
    return foreign_firewall.nft_inputs(text, lambda pattern: [files[pattern]] if pattern in files else [], SERVICES)


def lets_in(rules, before="", after=""):
    """What one chain with these rules lets in, as text; "?" when it isn't judged."""
    found = inputs(before + HEAD + rules + "\n }\n" + after + "}\n")
    if not found:
        return "?"
    [chain] = found
    assert (chain.family, chain.name) == ("inet", "inet filter input")
    return " ".join("%s:%s" % (protocol, ",".join("%d-%d" % pair if pair[0] != pair[1] else "%d" % pair[0]
                                                  for pair in ranges))
                    for protocol, ranges in sorted(chain.ports.ranges.items()) if ranges)


ALL = "tcp:0-65535 udp:0-65535"


@pytest.mark.parametrize("rules, wanted", [
    ("", ""), ("tcp dport 236 accept", "tcp:236"), ("udp dport 5404-5412 accept", "udp:5404-5412"),
    ("tcp dport { 25, imaps,\n  8080-8443, http-alt } accept", "tcp:25,993,8080-8443,8080"),
    ("ip saddr 10.0.0.0/8 tcp dport 236 ct state new limit rate 10/second counter accept", "tcp:236"),
    ("tcp dport == 236 log prefix \"drop it\" accept comment \"drop\"", "tcp:236"),
    ("meta l4proto { tcp, udp } th dport 53 accept", "tcp:53 udp:53"), ("th dport 53 accept", "tcp:53 udp:53"),
    ("meta l4proto udp accept", "udp:0-65535"), ("ip protocol 6 accept", "tcp:0-65535"),
    ("tcp sport 1024-65535 accept", "tcp:0-65535"), ("tcp dport != 22 accept", "tcp:0-65535"),
    ("ip saddr 10.0.0.1 accept", ALL), ("iifname eth1 accept", ALL), ("accept", ALL), ("counter accept", ALL),
    ("iifname != \"lo\" accept", ALL), ("ct state new accept", ALL), ("ct state { established, new } accept", ALL),
    ("ct state != invalid accept", ALL),
    # nothing that is new gets in by these
    ("iif lo accept", ""), ("iifname \"lo\" accept", ""), ("meta iif == lo accept", ""),
    ("ct state established,related accept", ""), ("ct state { established, related } counter accept", ""),
    ("ct state vmap { established : accept, related : accept, invalid : drop }", ""),
    ("icmp type echo-request limit rate 5/second accept", ""), ("ip6 nexthdr icmpv6 accept", ""),
    ("meta l4proto { icmp, ipv6-icmp } accept", ""), ("ip protocol vrrp accept", ""),
    ("meta pkttype broadcast accept", ""),
    ("tcp dport 236 drop", ""), ("tcp dport 236", ""), ("tcp dport 236 counter # accept", ""),
    ("tcp dport 236 \\\n accept", "tcp:236"), ("tcp dport 236 accept; tcp dport 237 accept", "tcp:236,237"),
    # what comes after everything was dropped counts for nothing; what was dropped under a condition may be another's
    ("log prefix \"x \" flags all counter drop\ntcp dport 236 accept", ""),
    ("ip saddr 192.0.2.1 log prefix \"x\" drop\ntcp dport 236 accept", "tcp:236"),
    ("log prefix \"x\" ip saddr 192.0.2.1 drop\ntcp dport 236 accept", "tcp:236"),
    ("limit rate over 5/second reject with tcp reset\ntcp dport 236 accept", "tcp:236"),
    # not to be told
    ("tcp dport strange accept", "?"), ("tcp dport vmap { 22 : accept, 80 : jump web }", "?"), ("jump nowhere", "?"),
    ("ip saddr . tcp dport { 10.0.0.1 . 22 } accept", "?"), ("tcp dport @unknown accept", "?"), ("queue num 1", "?"),
    ("tcp dport $unknown accept", "?"), ("ct state vmap { new : jump x }", "?"), ("include \"x\"", "?"),
])
def test_a_rule(rules, wanted):
    assert lets_in(rules) == wanted


def test_what_rules_refer_to():
    elements = " set open {\n type inet_service\n elements = { 236,\n 2003-2004 }\n }\n"
    assert lets_in("tcp dport @open accept", after=elements) == "tcp:236,2003-2004"
    assert lets_in("tcp dport @open accept", after="set open { type inet_service; }\n") == "?"
    assert lets_in("tcp dport { $a, 22 } accept", "define b = 2003\ndefine a = { 236, $b }\n") == "tcp:236,2003,22"
    chains = "chain kopano { tcp dport 236 accept; }\nchain other {\n}\n"
    assert lets_in("jump kopano\ngoto other", after=chains) == "tcp:236"
    assert lets_in("tcp dport 236 jump x", after="chain x { ip saddr 10.0.0.1 accept; }\n") == "tcp:236"
    assert lets_in("tcp dport 236 jump x", after="chain x { drop; }\n") == ""
    assert lets_in("jump x", after="chain x { jump input; }\n") == "?"


def test_which_chains_are_judged():
    [chain] = inputs("table ip6 t { chain i { type filter hook input priority 0; tcp dport 1 accept; "
                     "reject with tcp reset; } }")
    assert (chain.family, chain.name, chain.drops) == ("ip6", "ip6 t i", "reject with tcp reset")
    [chain] = inputs("table t { chain i { type filter hook input priority 0; policy drop; } }")
    assert (chain.family, chain.drops) == ("ip", "policy drop")
    for text in ("", "#!/usr/sbin/nft -f\nflush ruleset\n",
                 "table inet filter { chain input { type filter hook input priority 0; } }",       # Debian's own
                 "table inet filter { chain input { type filter hook input priority 0; policy accept; } }",
                 "table inet filter { chain forward { type filter hook forward priority 0; policy drop; } }",
                 "table netdev f { chain i { type filter hook ingress device eth0 priority 0; policy drop; } }",
                 HEAD + "}\n}\nadd rule inet filter input tcp dport 236 accept\n", HEAD + "}\n}\n}\n",
                 HEAD + "}\nflags dormant\n}",
                 "table {\n chain x {\n", "table a b c d { }"):
        assert inputs(text) == [], text


def test_files_that_are_included():
    text = "include \"/etc/nftables/*.nft\"\n" + HEAD + "tcp dport $web accept\n}\n}\n"
    files = {"/etc/nftables/*.nft": "define web = http\ninclude \"./none\"\n"}
    [chain] = inputs(text, **files)
    assert chain.ports.has("tcp", 80) and not chain.ports.has("tcp", 81) and not chain.ports.has("udp", 80)
    assert inputs(text, **{"/etc/nftables/*.nft": "include \"/etc/nftables/*.nft\"\n"}) == []       # itself


def test_time_and_memory_have_bounds():
    begin = time.process_time()
    assert inputs("define a0 = { 1, 2 }\n" + "".join("define a%d = { $a%d, $a%d }\n" % (i + 1, i, i) for i in range(60))
                  + HEAD + "}\n}\n") == []
    inputs("table {\n" * 100000)
    inputs("\"" * 300000)
    inputs(HEAD + "tcp dport { 1, 2, 3 } accept\n" * 20000 + "}\n}\n")
    assert time.process_time() - begin < 5


@given(st.text(alphabet="{};\n\"#$@,=!. \\"), st.integers(0, 200))
def test_any_text(text, at):
    whole = HEAD + "tcp dport { 1, 2 } accept\n jump x\n}\nset s { elements = { 1 } }\nchain x {\n}\n}\n"
    inputs(whole[:at] + text + whole[at:])


def test_firewalld():
    zone = foreign_firewall.firewalld_zone(
        '<?xml version="1.0"?><!-- x --><zone target="DROP"><service name="ssh"/><port protocol="tcp" port="236-237"/>'
        '<rule family="ipv4"><source address="10.0.0.0/8"/><port protocol="udp" port="5405"/><accept/></rule>'
        '<rule><service name="http"/><drop/></rule></zone>')
    assert not zone.bound and zone.services == ["ssh"]
    assert zone.ports.ranges == {"tcp": [(236, 237)], "udp": [(5405, 5405)]}
    for text in ('<zone target="ACCEPT"/>', '<zone><rule><source address="10.0.0.1"/><accept/></rule></zone>',
                 '<zone><protocol value="tcp"/><protocol value="udp"/></zone>'):
        zone = foreign_firewall.firewalld_zone(text)
        assert zone.ports.has("tcp", 1) and zone.ports.has("udp", 65535)
    assert foreign_firewall.firewalld_zone('<zone><interface name="eth0"/></zone>').bound
    found = foreign_firewall.firewalld_service('<service><port protocol="tcp" port="1"/><port protocol="esp"/>'
                                               '<include service="http"/></service>')
    assert found.ports.has("tcp", 1) and found.services == ["http"]


@pytest.mark.parametrize("text", ["", "<zone>", "<service/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><zone/>",
                                  '<zone><port protocol="tcp" port="imap"/></zone>'])
def test_no_zone(text):
    with pytest.raises(ValueError) as caught:
        foreign_firewall.firewalld_zone(text)
    assert str(caught.value)
