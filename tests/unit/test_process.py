# SPDX-License-Identifier: GPL-2.0-or-later
"""Which process is ours, and that no other is ever signalled.

A copy of grep plays the daemon: `kopano-server -F -c FILE` with an open pipe as input waits for ever, and in
/proc it looks as the real one does.
"""
import os
import shutil
import signal
import subprocess
import time

import pytest

from kopano_ocf import process
from kopano_ocf.process import Identity


@pytest.fixture
def stage(tmp_path):
    """stage(name, *words) starts a daemon of that name; all are ended afterwards."""
    children = []

    def start(name, *words, argv0=None):
        path = str(tmp_path / name)
        if not os.path.exists(path):
            shutil.copy("/bin/grep", path)
        child = subprocess.Popen([argv0 or path] + list(words), executable=path, stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdin.close()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "server.cfg"
    path.write_text("")
    return str(path)


def server(tmp_path, config, **more):
    return Identity(str(tmp_path / "kopano-server"), config, fallback="/etc/kopano/server.cfg", **more)


def pids_of(identity):
    return [entry.pid for entry in process.scan(identity)]


def test_a_daemon_is_found(stage, tmp_path, config):
    child = stage("kopano-server", "-F", "-c", config)
    found = process.scan(server(tmp_path, config))
    assert [entry.pid for entry in found] == [child.pid]
    assert found[0].argv[1:] == ["-F", "-c", config] and found[0].session == child.pid
    assert 0 <= found[0].age() < 60 and found[0].same_namespace and found[0].alive


@pytest.mark.parametrize("words", [["-c", "{}"], ["-F", "--config={}", "-c", "x", "-c", "{}"]])
def test_ways_to_name_a_configuration(words, config):
    argv = ["kopano-server"] + [word.format(config) for word in words]
    assert process.config_word(argv) == config


@pytest.mark.parametrize("argv, named", [
    (["d", "-c/x"], "/x"), (["d", "--config", "/x"], "/x"), (["d", "--config=/x"], "/x"), (["d"], None),
    (["d", "-c"], ""), (["d", "--", "-c", "/x"], None), ([], None)])
def test_config_word(argv, named):
    assert process.config_word(argv) == named


def test_a_neighbour_with_another_configuration_is_not_ours(stage, tmp_path, config):
    stage("kopano-server", "-F", "-c", str(tmp_path / "other.cfg"))
    assert pids_of(server(tmp_path, config)) == []


def test_the_same_configuration_through_a_link_is_ours(stage, tmp_path, config):
    (tmp_path / "link.cfg").symlink_to(config)
    child = stage("kopano-server", "-F", "-c", str(tmp_path / "link.cfg"))
    assert pids_of(server(tmp_path, config)) == [child.pid]


def test_a_namesake_elsewhere_is_not_ours(stage, tmp_path, config):
    stage("kopano-server", "-F", "-c", config)
    assert pids_of(Identity("/usr/sbin/kopano-server", config)) == []


def test_a_script_of_that_name_is_not_ours(stage, tmp_path, config):
    (tmp_path / "kopano-server").write_text("#!/bin/sh\nread x\n")
    (tmp_path / "kopano-server").chmod(0o755)
    child = subprocess.Popen([str(tmp_path / "kopano-server"), "-c", config], stdin=subprocess.PIPE)
    try:
        assert pids_of(server(tmp_path, config)) == []
    finally:
        child.communicate()


def test_a_command_line_alone_makes_no_daemon(stage, tmp_path, config):
    stage("editor", "-F", "-c", config, argv0=str(tmp_path / "kopano-server"))
    assert pids_of(server(tmp_path, config)) == []


def test_a_delivery_client_is_no_dagent(stage, tmp_path, config):
    stage("kopano-dagent", "-c", config, "user")
    daemon = stage("kopano-dagent", "-l", "-c", config)
    identity = Identity(str(tmp_path / "kopano-dagent"), config, role=("-l", "--listen"))
    assert pids_of(identity) == [daemon.pid]


def test_an_upgraded_binary_is_still_the_daemon(stage, tmp_path, config):
    child = stage("kopano-server", "-F", "-c", config)
    os.unlink(str(tmp_path / "kopano-server"))
    identity = server(tmp_path, config)
    assert pids_of(identity) == [child.pid] and identity.executable() is None


def test_a_bare_name_is_looked_up(stage, tmp_path, config, monkeypatch):
    child = stage("kopano-server", "-F", "-c", config)
    monkeypatch.setenv("PATH", str(tmp_path))
    identity = Identity("kopano-server", config)
    assert identity.executable() == str(tmp_path / "kopano-server") and pids_of(identity) == [child.pid]


def test_a_reused_pid_is_not_signalled(stage, tmp_path, config):
    child = stage("kopano-server", "-F", "-c", config)
    seen = process.look(child.pid)
    seen.start -= 1                         # as if it had been looked at in an earlier life of that pid
    assert seen.again() is None and not seen.alive
    assert not process.send(seen, signal.SIGKILL)
    assert child.poll() is None


def test_a_pid_that_is_reused_between_look_and_signal(stage, tmp_path, config, monkeypatch):
    """Also without pidfd (Python before 3.9) the start time is looked at right before."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    child = stage("kopano-server", "-F", "-c", config)
    seen = process.look(child.pid)
    seen.start += 1
    assert not process.send(seen, signal.SIGKILL) and child.poll() is None
    assert process.send(process.look(child.pid), signal.SIGKILL)
    assert child.wait(timeout=5) == -signal.SIGKILL


def test_a_zombie_is_dead(stage, config):
    child = stage("kopano-server", "-F", "-c", config)
    seen = process.look(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.look(child.pid).dead and not seen.alive


class Entry:
    """As much of a Process as the choice of the main one looks at. caught, ignored: signals."""
    def __init__(self, pid, ppid, session, argv=(), caught=(), ignored=()):
        self.pid, self.ppid, self.session, self.argv = pid, ppid, session, list(argv)
        self.catches, self.ignores = caught.__contains__, ignored.__contains__

    @staticmethod
    def descriptors():
        """None of them listens."""
        return []


DEAD = 4194305          # above the kernel's highest pid


@pytest.mark.parametrize("entries, known, main, orphans", [
    ([], 0, None, []),
    ([Entry(10, 1, 10)], 0, 10, []),
    ([Entry(10, 1, 10), Entry(11, 10, 10)], 0, 10, []),                     # a logger child
    ([Entry(11, 1, DEAD)], 0, None, [11]),                                  # its daemon is dead
    ([Entry(11, 1, DEAD)], DEAD, None, [11]),
    ([Entry(11, 1, DEAD, caught=[signal.SIGHUP, signal.SIGTERM])], 0, 11, []),      # 8.x, in the background
    ([Entry(11, 1, DEAD, caught=[signal.SIGHUP], ignored=[signal.SIGTERM])], 0, None, [11]),    # a dead one's logger
    ([Entry(11, 1, DEAD)], 11, 11, []),                                     # started without setsid, and known
    ([Entry(12, 1, DEAD, ["kopano-spooler", "--send-message-entryid=1"])], 0, None, [12]),
    ([Entry(11, 1, DEAD), Entry(20, 1, 20)], 0, 20, [11]),                  # a new one beside the old one's child
])
def test_main_and_orphans(entries, known, main, orphans):
    found, left = process.main_and_orphans(entries, known)
    assert (found.pid if found else None) == main and [entry.pid for entry in left] == orphans


def test_a_daemon_started_from_a_shell_is_the_main_one():
    """11.x leads no session of its own; its session is the living shell's."""
    entry = Entry(DEAD, 1, os.getsid(0))
    assert process.main_and_orphans([entry]) == (entry, [])


@pytest.mark.parametrize("data, pid", [
    (b"42\n", 42), (b"42", 42), (b" 42 \n", 42), (b"", 0), (b"\n", 0), (b"4 2", 0), (b"-1", 0), (b"0x2a", 0),
    (b"42\0", 0), (b"9" * 100, 0), (b"\xff\xfe", 0), (b"x" * 100000, 0), ("٤٢".encode(), 0)])
def test_pid_files(tmp_path, data, pid):
    path = tmp_path / "x.pid"
    path.write_bytes(data)
    assert process.read_pid(str(path)) == pid


def test_what_is_no_pid_file(tmp_path):
    os.mkfifo(str(tmp_path / "fifo"))
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "none", "/dev/zero", "a\0b"):
        assert process.read_pid(str(path)) == 0


def test_family_is_what_is_below_and_in_the_session(tmp_path):
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & (setsid sleep 61 &) ; read x"], stdin=subprocess.PIPE,
                             start_new_session=True)
    stranger = subprocess.Popen(["sleep", "62"], start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        members = []
        while len(members) < 1 and time.monotonic() < deadline:
            members = process.family(process.look(shell.pid))
        assert "60" in " ".join(" ".join(entry.argv) for entry in members)
        assert stranger.pid not in [entry.pid for entry in members]
    finally:
        for entry in process.family(process.look(shell.pid)):
            process.send(entry, signal.SIGKILL)
        for pid in process.pids():
            entry = process.look(pid)
            if entry and entry.identify().argv == ["sleep", "61"]:
                process.send(entry, signal.SIGKILL)
        shell.kill()
        shell.communicate()
        stranger.kill()
        stranger.wait()


def test_below_a_pid_that_is_somebody_elses_now_is_nobody_of_ours():
    """The daemon ended, its pid was used again, and that process has children of its own."""
    first = subprocess.Popen(["sh", "-c", "sleep 60 & read x"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        then = process.look(first.pid)
        deadline = time.monotonic() + 10
        while not process.family(then) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.family(then)
        then.start -= 1                     # as if it had been looked at in an earlier life of that pid
        assert process.family(then) == []
    finally:
        for entry in process.family(process.look(first.pid)):
            process.send(entry, signal.SIGKILL)
        first.kill()
        first.communicate()


def test_listening_sockets_of_a_process(tmp_path):
    import socket
    tcp = socket.socket()
    tcp.bind(("127.0.0.1", 0))
    tcp.listen(1)
    six = socket.socket(socket.AF_INET6)
    six.bind(("::1", 0))
    six.listen(1)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s.sock"))
    unix.listen(1)
    own = process.look(os.getpid())
    places, paths = process.listening(own)
    assert ("127.0.0.1", tcp.getsockname()[1]) in places and ("::1", six.getsockname()[1]) in places
    assert str(tmp_path / "s.sock") in paths
    port = tcp.getsockname()[1]
    for place in ("127.0.0.1", port, ""), ("*", port, ""), ("", 0, str(tmp_path / "s.sock")):
        taken, owners = process.listener_of(*place)
        assert taken and [entry.pid for entry in owners] == [os.getpid()]
    assert process.listener_of("127.0.0.2", port, "") == (False, [])
    for each in (tcp, six, unix):
        each.close()
    assert process.listening(own)[1].count(str(tmp_path / "s.sock")) == 0


@pytest.mark.parametrize("family, host", [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_clients_are_connections_that_were_accepted(family, host):
    import socket
    family = getattr(socket, family)
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind((host, 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        own = process.look(os.getpid())
        client.connect((host, port))
        assert process.clients(own, {port}) == 0, "it waits in the queue"
        accepted, _ = listener.accept()
        assert process.clients(own, {port}) == 1
        assert process.clients(own, {port + 1}) == 0
        client.close()
        assert process.clients(own, {port}) == 1, "its answer may still be under way"
        assert process.clients(own, {port}, gone=False) == 0
        accepted.close()
        assert process.clients(own, {port}) == 0


def test_clients_of_a_process_that_is_gone():
    child = subprocess.Popen(["sleep", "60"])
    entry = process.look(child.pid)
    child.kill()
    child.wait()
    with pytest.raises(OSError):
        process.clients(entry, {2003})


def test_an_open_file_is_seen(tmp_path):
    path = str(tmp_path / "lock")
    own = process.look(os.getpid())
    with open(path, "w"):
        assert process.holds(own, path)
        os.unlink(path)
        assert process.holds(own, path)
    assert not process.holds(own, path)


@pytest.mark.parametrize("pid", [0, -1, DEAD, 10 ** 12])
def test_no_such_process(pid):
    assert process.look(pid) is None


def test_a_daemon_that_executes_itself_anew_has_no_command_line_for_a_moment(stage, tmp_path, config):
    child = stage("kopano-dagent", "-l", "-c", config)
    identity = Identity(str(tmp_path / "kopano-dagent"), config, role=("-l",))
    seen = process.look(child.pid).identify()
    seen.argv = []
    assert identity.is_ours(seen) and seen.argv[1:] == ["-l", "-c", config]
