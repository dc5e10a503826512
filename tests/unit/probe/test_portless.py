# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel tells about processes that listen nowhere: looked at with real processes and sockets."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from kopano_ocf.probe import portless

# a client that does what it is told: one word a line, and says when it is done
CLIENT = r"""
import socket, sys, os
held = []
for line in iter(sys.stdin.readline, ""):
    word, _, where = line.strip().partition(" ")
    if word == "unix":
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].connect(where)
    elif word == "datagram":
        held.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        held[-1].connect(where)
    elif word == "tcp":
        host, _, port = where.rpartition(":")
        held.append(socket.create_connection((host, int(port))))
    elif word == "listen":
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].bind(where)
        held[-1].listen(1)
    elif word == "pair":
        held.extend(socket.socketpair())
    elif word == "copy":
        os.dup(held[0].fileno())
    elif word == "close":
        held.pop(int(where)).close()
    print("done", flush=True)
"""


class Client:
    """Another process."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, universal_newlines=True)
        self.pid = self.process.pid

    def do(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


@pytest.fixture
def client():
    made = Client()
    yield made
    made.end()


class Server:
    """Accepts all that comes, and keeps it."""

    def __init__(self, listener):
        self.listener, self.held = listener, []
        self.listener.listen(10)
        self.accepted = threading.Semaphore(0)
        self.stop, self._stop = os.pipe()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while self.stop not in select.select([self.listener, self.stop], [], [])[0]:
            self.held.append(self.listener.accept()[0])
            self.accepted.release()

    def wait(self):
        assert self.accepted.acquire(timeout=10)

    def end(self):
        os.write(self._stop, b"x")
        self.thread.join(10)
        for one in self.held + [self.listener]:
            one.close()
        os.close(self.stop)
        os.close(self._stop)


@pytest.fixture
def unix_server(tmp_path):
    servers = []

    def make(name="server.sock"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / name))
        servers.append(Server(listener))
        return servers[-1], str(tmp_path / name)
    yield make
    for server in servers:
        server.end()


@pytest.fixture(params=["unix_diag", "/proc/net/unix"])
def kernel(request, monkeypatch):
    """A kernel that says who a unix socket's peer is, and one that does not."""
    if request.param == "/proc/net/unix":
        def unable():
            raise OSError(93, "Protocol not supported")
        monkeypatch.setattr(portless, "_Diag", unable)
    return request.param


@pytest.mark.usefixtures("kernel")
def test_sessions_of_a_spooler(client, unix_server, tmp_path):
    server, path = unix_server()
    assert portless.sessions(client.pid, path) == 0
    for count in (1, 2):
        client.do("unix", path)
        server.wait()
        assert portless.sessions(client.pid, path) == count

    # what a daemon has besides: syslog, a descriptor inherited twice, a listener of its own
    syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    syslog.bind(str(tmp_path / "log"))
    client.do("datagram", str(tmp_path / "log"))
    client.do("copy")
    client.do("listen", str(tmp_path / "own"))
    assert portless.sessions(client.pid, path) == 2
    syslog.close()

    client.do("close", "1")
    assert portless.sessions(client.pid, path) == 1


def test_connections_elsewhere_are_no_sessions(client, unix_server):
    server, path = unix_server()
    other, elsewhere = unix_server("journal")
    client.do("unix", elsewhere)
    other.wait()
    client.do("pair")
    assert portless.sessions(client.pid, path) == 0
    client.do("unix", path)
    server.wait()
    assert portless.sessions(client.pid, path) == 1


def test_a_session_ends_with_the_server(client, unix_server):
    server, path = unix_server()
    client.do("unix", path)
    server.wait()
    assert portless.sessions(client.pid, path) == 1
    server.held.pop().close()
    assert portless.sessions(client.pid, path) == 0


def test_the_socket_is_known_by_any_of_its_names(client, unix_server, tmp_path):
    server, path = unix_server()
    os.symlink(str(tmp_path), str(tmp_path / "run"))
    client.do("unix", path)
    server.wait()
    # /var/run is a link to /run
    assert portless.sessions(client.pid, str(tmp_path / "run" / "server.sock")) == 1
    assert portless.sessions(client.pid, str(tmp_path / "run" / "prio.sock")) == 0


@pytest.mark.parametrize("family, host", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_sessions_over_tcp(client, family, host):
    listener = socket.socket(family)
    try:
        listener.bind((host, 0))
    except OSError:
        listener.close()
        pytest.skip("no IPv6 here")
    port = listener.getsockname()[1]
    server = Server(listener)
    try:
        assert portless.sessions(client.pid, tcp_port=port) == 0
        client.do("tcp", "%s:%d" % (host, port))
        server.wait()
        assert portless.sessions(client.pid, tcp_port=port) == 1
        # the server's own end is no session of the server
        assert portless.sessions(os.getpid(), tcp_port=port) == 0
        assert portless.sessions(client.pid, tcp_port=port + 1 if port < 65535 else 1) == 0
    finally:
        server.end()


def test_other_processes_do_not_count(client, unix_server):
    server, path = unix_server()
    client.do("unix", path)
    server.wait()
    other = Client()
    try:
        assert portless.sessions(other.pid, path) == 0
    finally:
        other.end()


def test_nothing_to_look_for(client):
    assert portless.sessions(client.pid) == 0


def test_counters_move_when_the_process_does(client):
    client.do("pair")
    before = portless.counters(client.pid)
    assert list(before) == [client.pid]
    limit = time.monotonic() + 10
    while portless.counters(client.pid) == before and time.monotonic() < limit:
        # on a busy machine its next word may be there before it waits for it
        client.do("pair")
        time.sleep(0.002)
    assert portless.counters(client.pid)[client.pid] > before[client.pid]


def test_counters_of_a_frozen_process_stand_still(client):
    client.do("pair")
    os.kill(client.pid, signal.SIGSTOP)
    os.waitpid(client.pid, os.WUNTRACED)
    before = portless.counters(client.pid)
    client.process.stdin.write("pair\n")
    client.process.stdin.flush()
    assert not select.select([client.process.stdout], [], [], 0.1)[0]
    assert portless.counters(client.pid) == before
    os.kill(client.pid, signal.SIGCONT)
    assert client.process.stdout.readline() == "done\n"


def test_counters_of_all_threads():
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(3)]
    before = set(portless.counters(os.getpid()))
    for thread in threads:
        thread.start()
    now = portless.counters(os.getpid())
    over.set()
    for thread in threads:
        thread.join(10)
    assert len(set(now) - before) == 3 and all(isinstance(count, int) for count in now.values())


def test_a_process_that_is_gone():
    client = Client()
    client.end()
    with pytest.raises(OSError):
        portless.counters(client.pid)
    with pytest.raises(OSError):
        portless.sessions(client.pid, "/run/kopano/server.sock")
