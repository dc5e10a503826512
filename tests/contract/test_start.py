# SPDX-License-Identifier: GPL-2.0-or-later
"""start: 0 only for a daemon that a following monitor finds; whatever else is said at once, and why."""
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from world import DAEMONS, StandinOnly, wait_for

from .looks import agents, AGENTS, CLIENTS, LISTENING, SOCKET, forget, says, serve, start, together

every_daemon = pytest.mark.parametrize("name", DAEMONS)
FAR = "198.51.100.7"
LISTEN = {"server": ("server_listen", 236), "dagent": ("lmtp_listen", 2003), "gateway": ("imap_listen", 143),
          "ical": ("ical_listen", 8080)}


def environment(pid):
    """Variables that a process was started with."""
    with open("/proc/%d/environ" % pid, encoding="utf-8") as file:
        return dict(entry.split("=", 1) for entry in file.read().split("\0") if entry)


@every_daemon
def test_start_is_0_for_what_a_following_monitor_finds(site, name):
    """Alone in its session, nothing of the agent's kept open, in a UTF-8 locale; started again it is the same."""
    site.kill_daemon(name)
    forget(site)
    reading, writing = os.pipe()
    words = [os.path.join(AGENTS, name), "start"]
    variables = {"PATH": site.sbin + ":/usr/bin:/bin", "OCF_ROOT": "/usr/lib/ocf", "HA_RSCTMP": site.rsctmp,
                 "OCF_RESOURCE_INSTANCE": "kopano-" + name, "OCF_RESKEY_CRM_meta_timeout": "30000", "HA_debug": "0",
                 "PCMK_service": "pacemaker-execd", "LC_ALL": "C"}
    # as ocf-tester does, the output is read to its end: a daemon that keeps it would hold us up
    done = subprocess.run(words, stdin=subprocess.PIPE, capture_output=True, pass_fds=(writing,), timeout=20,
                          env=variables, check=False)
    assert done.returncode == 0, done
    for level in (0, 10, 20):
        says(site.agent(name, "monitor", level=level), 0)
    pid = site.main_pid(name)
    for member in site.pids(name):
        assert os.getsid(member) == pid, "session of another"
    links = {}
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(FileNotFoundError):
            links[fd] = os.readlink("/proc/%d/fd/%s" % (pid, fd))
    assert os.readlink("/proc/self/fd/%d" % writing) not in links.values(), "it has a descriptor of the agent's caller"
    assert links["0"] == "/dev/null"
    os.close(reading)
    os.close(writing)
    variables = environment(pid)
    assert "UTF" in variables["LC_ALL"].upper()
    assert not [key for key in variables if key.startswith(("OCF_", "HA_", "PCMK_"))]
    start(site, name)
    assert site.main_pid(name) == pid


@every_daemon
def test_a_daemon_that_somebody_else_started_is_taken_over(site, name):
    site.kill_daemon(name)
    site.up(name)
    forget(site)
    pid = site.main_pid(name)
    start(site, name)
    assert site.main_pid(name) == pid
    says(site.agent(name, "monitor"), 0)


@every_daemon
def test_two_starts_at_the_same_moment_make_one_daemon(site, name):
    site.kill_daemon(name)
    for result in together(*[lambda: site.agent(name, "start", timeout=30)] * 3):
        says(result, 0)
    pids = site.pids(name)
    assert all(pid == site.main_pid(name) or os.getsid(pid) == site.main_pid(name) for pid in pids), pids
    children = site.generation == 8 and name in ("dagent", "spooler")      # their logger process
    assert len(pids) == (2 if children else 1)
    says(site.agent(name, "monitor"), 0)


@pytest.mark.parametrize("name", LISTENING)
def test_start_returns_within_200_ms_of_the_first_answer(site, name):
    took = []
    for _ in range(4):
        site.kill_daemon(name)
        ready = []

        def watch():
            wait_for(lambda: site.ready(name), 20)
            ready.append(time.monotonic())

        watcher = threading.Thread(target=watch)
        watcher.start()
        start(site, name)
        back = time.monotonic()
        watcher.join()
        took.append(back - ready[0])
        if took[-1] < 0.2:
            return
    raise AssertionError("start came back so many seconds after the daemon served: %r" % took)


# ---- what it depends on may be away

def test_a_server_whose_database_is_dead_starts_degraded(world):
    world.database.kill()
    starts_degraded(world)
    world.database.start()
    world.wait_ready("server")
    says(world.agent("server", "monitor", level=20), 0)


def test_a_server_whose_database_hangs_starts_degraded(world11):
    world11.database.freeze()
    starts_degraded(world11)
    world11.database.thaw()
    world11.wait_ready("server")
    says(world11.agent("server", "monitor", level=20), 0)


def starts_degraded(site):
    """And soon: while a start lasts, and the monitor after it, Pacemaker does not bring the database back either."""
    with contextlib.suppress(StandinOnly):
        site.fault("server", "retry", 2)
    assert says(site.agent("server", "start", timeout=120), 0).took < 10
    pid = site.main_pid("server")
    again, shallow, deep = together(lambda: site.agent("server", "start", timeout=120),
                                    lambda: site.agent("server", "monitor", level=10, timeout=30),
                                    lambda: site.agent("server", "monitor", level=20, timeout=30))
    says(again, 0)
    assert says(shallow, 190, "database").took < 10
    assert says(deep, 190, "database").took < 10
    assert site.main_pid("server") == pid


def test_a_short_start_of_a_server_whose_database_is_away(world11):
    world11.database.kill()
    assert says(world11.agent("server", "start", timeout=3), 0).took < 3
    says(world11.agent("server", "monitor", timeout=3), 190, "database")


def test_a_server_that_its_database_refuses_is_no_start(world11):
    """The other node may be let in, so Pacemaker has to hear of it."""
    world11.settings["server"]["mysql_password"] = "another"
    world11.write_config("server")
    with contextlib.suppress(StandinOnly):
        world11.fault("server", "retry", 0.8)
    result = says(world11.agent("server", "start", timeout=120), 1, "ended while starting")
    assert result.took > 6


def test_clients_start_while_their_server_is_away(world):
    for name, result in agents(world, CLIENTS, "start").items():
        assert says(result, 0).took < 10, name
    for name in CLIENTS:
        says(world.agent(name, "monitor"), (0, 190))
    pids = {name: world.main_pid(name) for name in CLIENTS}
    start(world, "server")
    wait_for(lambda: len(world.server_connections("spooler")) == 2)
    for name in CLIENTS:
        says(world.agent(name, "monitor", level=20), 0)
    assert {name: world.main_pid(name) for name in CLIENTS} == pids


def test_a_frozen_daemon_is_no_start(world):
    serve(world, "gateway")
    world.freeze("gateway")
    says(world.agent("gateway", "start"), 1, "stopped")


# ---- what a reboot took away

@every_daemon
def test_the_run_directory_is_made_anew_with_its_owner(site, name):
    site.kill_daemon(name)
    os.rename("/run/kopano", "/run/kopano.away")
    if name != "server":
        site.write_config(name, server_socket="file:///run/kopano.away/server.sock")
    try:
        start(site, name)
        made, owner = os.stat("/run/kopano"), pwd.getpwnam("kopano")
        assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (owner.pw_uid, owner.pw_gid, 0o775)
        says(site.agent(name, "monitor"), 0)
        if site.generation < 10:
            wait_for(lambda: os.path.exists("/run/kopano/%s.pid" % name))
    finally:
        site.kill_daemon(name)
        shutil.rmtree("/run/kopano", ignore_errors=True)
        os.rename("/run/kopano.away", "/run/kopano")


# ---- what stops it, told at once

@pytest.mark.parametrize("name", LISTENING)
def test_a_daemon_that_dies_is_1_at_once_with_its_last_words(world, name):
    key, port = LISTEN[name]
    world.write_config(name, **{key: "%s:%d" % (FAR, port)})        # IPaddr2 was not started
    result = says(world.agent(name, "start"), 1, "Cannot assign requested address", FAR)
    assert result.took < 5
    assert world.gone(name)
    probe = world.agent(name, "monitor", interval=0)
    says(probe, 7, probe=True)


@every_daemon
def test_last_words_on_standard_error_are_told_too(world11, name):
    world11.fault(name, "exit", 3, "the moon is full")
    result = says(world11.agent(name, "start"), 1, "the moon is full", "exit code 3")
    assert result.took < 5


@pytest.mark.parametrize("name", LISTENING)
def test_a_taken_port_is_1_and_names_who_has_it(world11, name):
    with socket.create_server(("127.0.0.1", LISTEN[name][1])):
        result = says(world11.agent(name, "start"), 1, str(os.getpid()), ":%d" % LISTEN[name][1])
        assert result.took < 5
        with open("/proc/self/comm", encoding="utf-8") as comm:
            assert comm.read().strip() in result.reason
        assert world11.gone(name)


@every_daemon
def test_a_rejected_config_is_5_with_the_daemons_message(world, name):
    world.write_config(name, bogus_key="yes")
    says(world.agent(name, "start"), 5, "/etc/kopano/%s.cfg" % name, "bogus_key")
    assert world.gone(name)


@every_daemon
def test_an_unknown_run_as_user_is_told_at_once(world, name):
    world.write_config(name, run_as_user="nobody-here")
    assert says(world.agent(name, "start"), (1, 5), "nobody-here").took < 5
    assert world.gone(name)


@every_daemon
def test_a_missing_config_or_binary_is_5(world11, name):
    says(world11.agent(name, "start", params={"config": "/etc/kopano/none.cfg"}), 5, "/etc/kopano/none.cfg")
    says(world11.agent(name, "start", params={"binary": "/srv/none/kopano"}), 5, "/srv/none/kopano")
    says(world11.agent(name, "start", params={"binary": "kopano-nothing"}), 5, "kopano-nothing")
    says(world11.agent(name, "start", params={"binary": "/etc/hostname"}), 5, "/etc/hostname")


WRONG = [("config", "kopano/server.cfg"), ("stop_escalate", "soon"), ("stop_escalate", "0"), ("options", "-x 'open"),
         ("options", "-c /etc/other.cfg"), ("binary", "sbin/kopano"), ("pidfile", "x.pid"), ("listen", "ftp://host"),
         ("listen", "http://host:99999"), ("tls_verify", "perhaps"), ("ca_file", "ca.pem"),
         ("test_password_file", "secret")]


@every_daemon
def test_a_parameter_that_is_wrong_in_itself_is_6_and_named(world11, name):
    known = {"listen": LISTENING, "tls_verify": ("server", "gateway", "ical"), "ca_file": ("server", "gateway", "ical"),
             "test_password_file": ("gateway", "ical")}
    for parameter, value in WRONG:
        if name in known.get(parameter, DAEMONS):
            says(world11.agent(name, "start", params={parameter: value}), 6, parameter, value)
    assert world11.gone(name)


def test_a_start_that_takes_too_long_is_1_and_says_what_was_waited_for(world11):
    world11.fault("gateway", "slow-start", 30)
    result = says(world11.agent("gateway", "start", timeout=5), 1, "143")
    assert 3 < result.took < 5
    # a stop finds what is left of it
    says(world11.agent("gateway", "stop", params={"stop_escalate": 1}), 0)
    assert world11.gone("gateway")


# ---- what a second one would do

@pytest.mark.parametrize("name", ("spooler", "monitor"))
def test_a_second_spooler_or_monitor_is_prevented(world, name):
    """11.x would run twice. One that was started without -c reads the same default file."""
    serve(world, "server")
    process = subprocess.Popen([world.binary(name), "-F"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    reaper = threading.Thread(target=process.wait, daemon=True)
    reaper.start()
    wait_for(lambda: world.ready(name))
    start(world, name)
    assert world.main_pid(name) == process.pid
    assert len([pid for pid in world.pids(name) if os.getsid(pid) == pid]) == 1
    says(world.agent(name, "stop"), 0)
    assert world.gone(name)


def test_a_second_server_does_not_steal_the_socket(world):
    serve(world, "server")
    inode = os.stat(SOCKET).st_ino
    world.write_config("server", server_listen="*:1236", server_listen_tls=None)
    os.rename("/etc/kopano/server.cfg", "/etc/kopano/second.cfg")
    world.write_config("server", server_listen=None, server_listen_tls="*:237")
    result = world.agent("server", "start", instance="second", params={"config": "/etc/kopano/second.cfg"})
    says(result, 1, "server.sock", str(world.main_pid("server")), "kopano-server")
    assert os.stat(SOCKET).st_ino == inode and world.head() == 200
    assert len(world.pids("server")) == 1
    says(world.agent("server", "monitor"), 0)


# ---- options, other binaries

@every_daemon
def test_options_reach_the_command_line(site11, name):
    site11.kill_daemon(name)
    start(site11, name, params={"options": "--ignore-unknown-config-options"})
    with open("/proc/%d/cmdline" % site11.main_pid(name), "rb") as file:
        words = file.read().split(b"\0")[:-1]
    assert words.count(b"--ignore-unknown-config-options") == 1
    assert words[words.index(b"-c") + 1] == b"/etc/kopano/%s.cfg" % name.encode()
    if name == "dagent":
        assert b"-l" in words and b"-F" not in words
    says(site11.agent(name, "monitor"), 0)


@pytest.mark.parametrize("name", ("server", "gateway"))
def test_another_binary_and_config_are_another_instance(world11, name):
    serve(world11, name)
    pid = world11.main_pid(name)
    os.makedirs("/etc/other", exist_ok=True)
    shutil.copy("/etc/kopano/%s.cfg" % name, "/etc/other/%s.cfg" % name)
    other = {"config": "/etc/other/%s.cfg" % name}
    says(world11.agent(name, "monitor", instance="other", params=other), 7)
    says(world11.agent(name, "stop", instance="other", params=other), 0)
    assert world11.main_pid(name) == pid


def test_the_daemon_does_not_die_of_its_output(world):
    """Whoever listened to its last words has gone; what it prints later goes nowhere."""
    world.write_config("gateway", log_file="-", log_method="file", log_level="6")
    start(world, "gateway")
    pid = world.main_pid("gateway")
    for _ in range(30):
        world.imap().logout()
    os.kill(pid, signal.SIGHUP)
    says(world.agent("gateway", "monitor"), 0)
    assert world.main_pid("gateway") == pid
