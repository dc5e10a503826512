# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses are this host's own."""

import socket

import pytest

from kopano_ocf import address


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7"])
def test_loopback_is_local(host):
    assert address.is_local(host)


@pytest.mark.parametrize("host", [
    "192.0.2.77", "8.8.8.8", "255.255.255.255", "224.0.0.1", "2001:db8::77", "ff02::1", "localhost", "",
    "127.1", "x\0y"])
def test_what_is_not_local(host):
    assert not address.is_local(host)


def test_without_netlink_binding_tells(monkeypatch):
    # a closed netlink: what a seccomp filter leaves of it
    monkeypatch.setattr(address._socket, "AF_NETLINK", 255)
    assert address.is_local("127.0.0.1")
    assert not address.is_local("192.0.2.77")


def test_family():
    assert address.family("10.0.0.1") == socket.AF_INET
    assert address.family("::1") == socket.AF_INET6
    for name in ("localhost", "", "10.1", "[::1]", "1.2.3.4.5", "a\0b"):
        assert address.family(name) == 0


def test_addresses_of_a_device():
    assert "127.0.0.1" in address.of_device("lo")
    for name in ("nosuch", "", "x" * 300, "a/b"):
        assert address.of_device(name) == []
