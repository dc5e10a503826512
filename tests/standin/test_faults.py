# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that are switched on and off while the daemons run."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from world import PORTS, Soap, World, wait_for

LISTENERS = (("server", "soap"), ("dagent", "lmtp"), ("gateway", "imap"), ("gateway", "pop3"), ("ical",
                                                                                                "caldav"))
ASKS = {"soap": b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "caldav": b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n"}
STARTS = {
    "soap": b"HTTP/1.1 200", "caldav": b"HTTP/1.1 200", "lmtp": b"220 ", "imap": b"* OK", "pop3": b"+OK"
}


# faults don't depend on the generation
pytestmark = pytest.mark.generations(11)


@pytest.fixture
def world(generation):
    """All that listen."""
    made = World.shared(generation, tls=True)
    made.up("server", "dagent", "gateway", "ical")
    yield made
    made.release()


def ask(protocol):
    sock = socket.create_connection(("127.0.0.1", PORTS[protocol]), 5)
    sock.sendall(ASKS.get(protocol, b""))
    return sock


def said(sock, seconds, enough=None):
    """What comes within so many seconds (or until it is enough), and whether the connection was closed."""
    data, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            more = sock.recv(4096)
        except socket.timeout:
            break
        if not more:
            return data, True
        data += more
        if enough and data.startswith(enough):
            break
    return data, False


def healthy(protocol):
    try:
        with ask(protocol) as sock:
            return said(sock, 1, STARTS[protocol])[0].startswith(STARTS[protocol])
    except OSError:
        return False


@pytest.mark.parametrize("name, protocol", LISTENERS)
def test_silent_broken_slow(world, name, protocol):
    start = STARTS[protocol]

    def begun(data):
        return data[:3] == start[:3] and not data.endswith(b"\n")

    cases = (
        ("hang", lambda data, closed: not data and not closed),
        ("close", lambda data, closed: not data and closed),
        ("garbage", lambda data, closed: data and not data.startswith(start) and not closed),
        ("half", lambda data, closed: begun(data) and not closed),
        ("half close", lambda data, closed: begun(data) and closed),
        ("slow 0.1", lambda data, closed: len(data) <= 5 and begun(data)),
    )
    for fault, check in cases:
        world.fault(name, *fault.split())
        with ask(protocol) as sock:
            data, closed = said(sock, 0.3)
            assert check(data, closed), (fault, data, closed)
        world.fault(name, None)
        wait_for(lambda: healthy(protocol), 5, "fault %s is over" % fault)


@pytest.mark.parametrize("name, protocol", LISTENERS)
def test_refuse(world, name, protocol):
    port = PORTS[protocol]
    world.fault(name, "refuse", endpoint=port)

    def refused():
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) != 0

    wait_for(refused, 5, "port %d refuses" % port)
    if name == "gateway":
        other = "pop3" if protocol == "imap" else "imap"
        assert healthy(other)
    world.fault(name, None)
    wait_for(lambda: healthy(protocol), 5, "accepts again")


def test_refuse_on_a_unix_socket(world):
    world.fault("server", "refuse", endpoint="server_pipe_name")

    def refused():
        try:
            world.head()
            return False
        except ConnectionResetError:  # caught in between
            return False
        except (ConnectionRefusedError, FileNotFoundError):     # on its way back it is bound anew
            return True

    wait_for(refused, 5, "server.sock refuses")
    assert healthy("soap") and world.head("/run/kopano/prio.sock") == 200
    world.fault("server", None)
    wait_for(lambda: not refused() and world.head() == 200, 5, "accepts again")
    assert os.stat("/run/kopano/server.sock").st_mode & 0o777 == 0o666


def test_one_endpoint_alone(world):
    world.fault("gateway", "hang", endpoint="imaps_listen")
    assert healthy("imap")
    import ssl

    with socket.create_connection(("127.0.0.1", PORTS["imaps"]), 5) as raw:
        with ssl._create_unverified_context().wrap_socket(raw) as sock:
            sock.settimeout(0.3)
            with pytest.raises(socket.timeout):
                sock.recv(1)


@pytest.mark.parametrize("name, protocol",
                         (("server", "soap"), ("dagent", "lmtp"), ("gateway", "imap"), ("ical", "caldav")))
def test_wedge(world, name, protocol):
    """A deadlock: accepts, never answers, one TERM does nothing, switching it off does not help."""
    world.fault(name, "wedge")
    pid = world.main_pid(name)
    with ask(protocol) as sock:
        assert said(sock, 0.3) == (b"", False)
    world.fault(name, None)
    with ask(protocol) as sock:
        assert said(sock, 0.3) == (b"", False)
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.2)
    assert pid in world.pids(name)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: pid not in world.pids(name), 2, "the second TERM kills")


def test_spin(world):
    """A livelock: as a deadlock, but it ends with the fault."""
    world.fault("gateway", "spin")
    with ask("imap") as sock:
        assert said(sock, 0.3) == (b"", False)
    world.fault("gateway", None)
    wait_for(lambda: world.ready("gateway"), 5, "the fault is over")


@pytest.mark.parametrize("name", ("spooler", "monitor", "gateway"))
def test_what_spins_is_busy_and_never_waits(world, name):
    """One thread that never gives up the CPU; spooler's notification thread goes on beside it."""
    world.up(name)
    pid = world.main_pid(name)
    world.fault(name, "spin")
    spinning = wait_for(lambda: busy(pid), 10, "a thread runs in circles")
    assert (spinning == pid) == (name != "monitor")
    before = switches(pid)
    wait_for(lambda: cpu(pid, spinning) > before["cpu"][spinning] + 0.3, 30, "it runs on")
    after = switches(pid)
    moved = {task for task, count in after["voluntary"].items() if count != before["voluntary"].get(task)}
    assert spinning not in moved
    assert name != "monitor" or not moved
    if name == "spooler":
        wait_for(lambda: switches(pid)["voluntary"] != after["voluntary"], 3, "its notification thread ticks")
    world.fault(name, None)
    wait_for(lambda: world.ready(name) and not busy(pid), 10, "the fault is over")


def test_a_main_thread_that_waits_for_ever_beside_others_that_do_not(world):
    world.up("spooler")
    pid = world.main_pid("spooler")
    idle = call_of(pid)
    world.fault("spooler", "wedge-main")
    wait_for(lambda: call_of(pid) not in (idle, "running"), 10, "its main thread waits for something else")
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not world.catches_term("spooler"), 2, "the first TERM has come")
    for _ in range(2):          # the signal has woken it, once
        before = switches(pid)["voluntary"]
        wait_for(lambda: switches(pid)["voluntary"] != before, 3, "another thread ticks")
    assert switches(pid)["voluntary"][pid] == before[pid] and len(world.server_connections("spooler")) == 2
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: world.gone("spooler"), 2, "the second TERM kills")


def call_of(pid):
    """The number of the system call that the main thread is in."""
    with open("/proc/%d/task/%d/syscall" % (pid, pid)) as file:
        return file.read().split()[0]


def busy(pid):
    """The thread that has run for a tenth of a second while none was looked at, or None."""
    first = switches(pid)["cpu"]
    time.sleep(0.3)
    return next((task for task, used in switches(pid)["cpu"].items() if used > first.get(task, used) + 0.05), None)


def cpu(pid, task):
    """Seconds of CPU of a thread."""
    return switches(pid)["cpu"][task]


def switches(pid):
    """{"voluntary": {thread: how often it gave up the CPU}, "cpu": {thread: seconds}}."""
    found = {"voluntary": {}, "cpu": {}}
    for task in map(int, os.listdir("/proc/%d/task" % pid)):
        with contextlib.suppress(FileNotFoundError):     # a thread that has just ended
            with open("/proc/%d/task/%d/status" % (pid, task)) as file:
                voluntary = int(file.read().split("\nvoluntary_ctxt_switches:")[1].split()[0])
            with open("/proc/%d/task/%d/schedstat" % (pid, task)) as file:
                found["cpu"][task] = int(file.read().split()[0]) / 1e9
            found["voluntary"][task] = voluntary
    return found


def test_a_fault_of_one_process_does_not_outlive_it(world):
    world.fault("ical", "hang", pid=world.main_pid("ical"))
    with ask("caldav") as sock:
        assert said(sock, 0.3) == (b"", False)
    world.kill_daemon("ical")
    world.start_daemon("ical")
    wait_for(lambda: world.ready("ical"), 5, "the new process has no fault")
    world.fault("ical", None)


def test_no_term(world):
    world.fault("ical", "no-term")
    wait_for(lambda: not world.catches_term("ical"), 2, "TERM is ignored")
    pid = world.signal("ical", signal.SIGTERM)
    world.signal("ical", signal.SIGTERM)
    assert healthy("caldav")
    world.fault("ical", None)
    wait_for(lambda: world.catches_term("ical"), 2, "TERM works again")
    assert world.signal("ical", signal.SIGTERM) == pid
    wait_for(lambda: world.gone("ical"), 2, "leaves")


def test_leak_and_421(world):
    world.fault("dagent", "421")
    with ask("lmtp") as sock:
        assert said(sock, 1) == (b"421 internal error: GetSession failed\r\n", True)
    world.fault("dagent", None)
    wait_for(lambda: healthy("lmtp"), 5, "220 again")
    world.fault("dagent", "leak", 20)
    wait_for(lambda: world.counters("dagent")["clients"] >= 20, 5, "slots are gone")
    with ask("lmtp") as sock:
        assert said(sock, 0.3) == (b"", False)


def test_database_faults_of_the_server_alone(world):
    world.fault("server", "dberror")
    with world.soap() as client:
        assert client.er("getStore") == 0x80000007
        world.fault("server", None)
        assert client.er("getStore") == 0
        world.fault("server", "dbhang")
        with pytest.raises(OSError):
            with Soap("/run/kopano/server.sock", 0.3) as other:
                other.logon()
                other.call("getStore")
        assert world.head() == 200
        world.fault("server", None)


def test_spooler_offline(world):
    world.up("spooler")
    world.fault("spooler", "offline")
    wait_for(lambda: not world.server_connections("spooler"), 5,
             "sessions are gone though the server is there")
    world.fault("spooler", None)
    world.wait_ready("spooler", timeout=5)


def test_frozen_counters(world):
    world.up("spooler")
    world.fault("spooler", "wedge")
    pid = world.main_pid("spooler")

    def switches():
        return [
            open("/proc/%d/task/%s/status" %
                 (pid, task)).read().split("\nvoluntary_ctxt_switches:")[1].split()[0]
            for task in sorted(os.listdir("/proc/%d/task" % pid))
        ]

    time.sleep(1.2)
    before = switches()
    time.sleep(1.5)
    assert switches() == before and len(world.server_connections("spooler")) == 2


def test_dies_at_start_with_last_words(world):
    world.kill_daemon("ical")
    world.fault("ical", "exit", 3, "out of", "memory")
    started = world.start_daemon("ical")
    assert started.wait(5) == 3 and started.output.endswith("out of memory\n")


def test_slow_start(world):
    world.kill_daemon("gateway")
    world.fault("gateway", "slow-start", 0.5)
    world.start_daemon("gateway")
    wait_for(lambda: not_refused(PORTS["imap"]), 5, "listens")
    with ask("imap") as sock:
        assert said(sock, 0.2) == (b"", False)
        assert said(sock, 2)[0].startswith(b"* OK")


def not_refused(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_command_line(world):
    script = os.path.join(os.path.dirname(__file__), "fault.py")

    def fault(*words):
        return subprocess.run([sys.executable, script, "--dest", world.prefix] + list(words),
                              capture_output=True, text=True)

    assert fault("gateway", "hang", "@143").returncode == 0
    assert not healthy("imap") and healthy("pop3")
    assert fault("gateway").stdout == "hang @143\n"
    assert fault("gateway", "none").returncode == 0
    wait_for(lambda: healthy("imap"), 5, "none")


@pytest.mark.generations(8)
def test_fork_model_follows_faults(world):
    world.fault("dagent", "hang")
    with ask("lmtp") as sock:
        assert said(sock, 0.3) == (b"", False)
        world.fault("dagent", None)
        assert said(sock, 2, b"220")[0].startswith(b"220 ")
