# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses and devices of a cluster node, by the kernel itself: a sandbox may change its network."""

import shutil
import socket
import struct
import subprocess
import time

import pytest

from kopano_ocf import address, talk
from kopano_ocf.endpoint import parse
from kopano_ocf.probe import lmtp
from scripted import dialogue, Peer

OWN, CLUSTER, FREE = "192.0.2.5", "192.0.2.6", "192.0.2.7"

pytestmark = pytest.mark.skipif(not shutil.which("ip"), reason="no ip here")


def ip(*words):
    subprocess.run(("ip",) + words, check=True)


def sysctl(name, value):
    """Change a setting; what it was."""
    with open("/proc/sys/net/ipv4/" + name) as setting:
        before = setting.read().strip()
    with open("/proc/sys/net/ipv4/" + name, "w") as setting:
        setting.write(value)
    return before


@pytest.fixture(scope="module")
def eth7():
    """A device with an address of its own, and a cluster IP added as IPaddr2 does."""
    ip("link", "add", "eth7", "type", "veth", "peer", "name", "peer7")
    for device in ("eth7", "peer7"):
        ip("link", "set", device, "up")
    ip("address", "add", OWN + "/24", "dev", "eth7")
    ip("address", "add", CLUSTER + "/24", "dev", "eth7")
    ip("address", "add", "2001:db8::5/64", "dev", "eth7", "nodad")
    yield "eth7"
    ip("link", "delete", "eth7")


@pytest.fixture(params=["0", "1"])
def nonlocal_bind(request):
    """An address that is elsewhere can be bound to, as load balancers want it."""
    before = sysctl("ip_nonlocal_bind", request.param)
    yield request.param
    sysctl("ip_nonlocal_bind", before)


@pytest.mark.usefixtures("eth7", "nonlocal_bind")
def test_whose_address_is_it():
    assert address.is_local(OWN) and address.is_local(CLUSTER) and address.is_local("2001:db8::5")
    assert not address.is_local(FREE) and not address.is_local("2001:db8::6")


@pytest.mark.usefixtures("eth7")
def test_what_a_bind_proves(nonlocal_bind):
    with socket.socket() as probe:
        if nonlocal_bind == "1":
            probe.bind((FREE, 0))
        else:
            with pytest.raises(OSError):
                probe.bind((FREE, 0))


@pytest.mark.usefixtures("nonlocal_bind")
def test_a_cluster_ip_comes_and_goes(eth7):
    url = "lmtp://%s:2003" % FREE
    assert ask(url).how == talk.NOT_HERE
    ip("address", "add", FREE + "/24", "dev", eth7)
    assert ask(url).how == talk.REFUSED
    ip("address", "delete", FREE + "/24", "dev", eth7)
    assert ask(url).how == talk.NOT_HERE


def ask(url, seconds=5, **words):
    seen, = talk.run([(parse(url, "lmtp"), lmtp.greeting)], time.monotonic() + seconds, **words)
    return seen


class OnDevice(Peer):
    """Listens as Kopano does for ADDRESS%DEVICE:PORT."""

    def __init__(self, device, host):
        Peer.__init__(self, dialogue(b"220 ready\r\n", b"221 Bye\r\n"), host="127.0.0.1", accept=False)
        self.listener.close()
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        self.listener.bind((host, 0))
        self.port = self.listener.getsockname()[1]
        self.listener.listen(5)
        self.accept()


@pytest.mark.usefixtures("eth7")
@pytest.mark.parametrize("device, host, url", [
    ("lo", "0.0.0.0", "*%lo"), ("lo", "::", "*%lo"), ("lo", "::", "[::]%lo"),
    ("lo", CLUSTER, CLUSTER + "%lo"),
    ("eth7", "0.0.0.0", "*%eth7"), ("eth7", "::", "*%eth7"), ("eth7", OWN, OWN + "%eth7"),
    ("eth7", CLUSTER, CLUSTER + "%eth7"), ("eth7", "2001:db8::5", "[2001:db8::5]%eth7"),
])
def test_a_listener_on_a_device_is_reached_from_its_own_host(device, host, url):
    with OnDevice(device, host) as peer:
        assert ask("lmtp://%s:%d" % (url, peer.port)).how == talk.FINE


@pytest.mark.usefixtures("eth7")
def test_a_device_without_an_address_is_not_here():
    seen = ask("lmtp://*%peer7:2003")
    assert (seen.how, seen.words) == (talk.NOT_HERE, "device peer7 has no address on this host")


@pytest.mark.usefixtures("eth7")
def test_no_way_to_another_host():
    seen = ask("lmtp://198.51.100.1:2003", local_only=False)
    assert seen.how == talk.UNREACHABLE and "198.51.100.1:2003: Network is unreachable" in seen.words
    # a host that does not answer at all
    seen = ask("lmtp://%s:2003" % FREE, seconds=0.3, local_only=False)
    assert seen.how == talk.SILENT and "connection to %s:2003" % FREE in seen.words


def test_a_client_that_meets_itself():
    """Where a service's port is also a client's, a connection to oneself is no service."""
    before = sysctl("ip_local_port_range", "50000 50000")
    try:
        with socket.socket() as client:
            client.connect(("127.0.0.1", 50000))
            assert client.getpeername() == client.getsockname()
            # and leave nothing of it
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        seen = ask("lmtp://127.0.0.1:50000", seconds=1)
    finally:
        sysctl("ip_local_port_range", before)
    assert seen.how == talk.REFUSED
