# SPDX-License-Identifier: GPL-2.0-or-later
"""Command line, configuration, exit codes, processes, pid files and signals of all six."""

import grp
import os
import pwd
import signal
import socket
import stat
import subprocess

import pytest

from world import DAEMONS, PORTS, wait_for

FORKERS = ("dagent", "spooler")


def status(pid, key):
    """Words of one line of /proc/PID/status."""
    with open("/proc/%d/status" % pid) as file:
        for line in file:
            if line.startswith(key + ":"):
                return line.split()[1:]


def run(world, name, *words, **more):
    """Run a daemon's program to its end."""
    mode = ["-l"] if name == "dagent" else []
    return subprocess.run([world.binary(name)] + mode + list(words), capture_output=True, text=True,
                          timeout=20, **more)


def serve(world, *names):
    """Start in the foreground, as a unit does, and wait until they serve."""
    for name in names:
        world.start_daemon(name)
        world.wait_ready(name)


@pytest.mark.parametrize("name", DAEMONS)
def test_looks_like_the_daemon(world, name):
    serve(world, "server", *(() if name == "server" else (name,)))
    pid = world.main_pid(name)
    mode = "-l" if name == "dagent" else "-F"
    with open("/proc/%d/comm" % pid) as file:
        assert file.read() == "kopano-%s\n" % name
    with open("/proc/%d/cmdline" % pid, "rb") as file:
        assert file.read().decode().split("\0") == [world.binary(name), mode, "-c", world.config(name), ""]
    assert os.readlink("/proc/%d/exe" % pid) == world.binary(name)
    assert os.readlink("/proc/%d/cwd" % pid) == "/"
    assert status(pid, "Uid") == [str(pwd.getpwnam("kopano").pw_uid)] * 4
    assert status(pid, "Gid") == [str(grp.getgrnam("kopano").gr_gid)] * 4
    threads = {"server": 25, "dagent": 2, "spooler": 3, "gateway": 1, "ical": 1, "monitor": 2}
    wait_for(lambda: int(status(pid, "Threads")[0]) == threads[name], 5,
             "threads: %s" % status(pid, "Threads"))


@pytest.mark.parametrize("name", DAEMONS)
def test_keeps_its_pid_when_it_drops_privileges(world, name):
    started = world.start_daemon(name)
    uid = str(pwd.getpwnam("kopano").pw_uid)
    line = "Starting kopano-%s version %s (pid %d uid %%s)" % (name, {8: "8.7.25", 9: "9.0.11", 11: "11.0.2"
                                                                      }[world.generation], started.pid)
    wait_for(lambda: line % uid in world.last_words(name), 5, world.last_words(name))
    assert line % "0" in world.last_words(name)


def test_session_of_its_own(world):
    """Generation 8 calls setsid(), later ones stay in the caller's session."""
    serve(world, "server")
    started = world.start_daemon("gateway", session=False)
    world.wait_ready("gateway")
    assert (os.getsid(started.pid) == started.pid) == (world.generation == 8)


def test_fork_model_has_a_logger_child(world):
    serve(world, "server", *FORKERS)
    for name in FORKERS:
        main = world.main_pid(name)
        if world.generation != 8:
            assert world.pids(name) == [main]
            continue
        logger = wait_for(lambda: [pid for pid in world.pids(name) if pid != main], 5, "logger child")
        assert len(logger) == 1 and status(logger[0], "PPid") == [str(main)]
        with open("/proc/%d/cmdline" % main) as one, open("/proc/%d/cmdline" % logger[0]) as other:
            assert one.read() == other.read()
        os.kill(main, signal.SIGKILL)
        wait_for(lambda: world.gone(name), 5, "the logger child leaves when main is dead")


# ---- command line and configuration


@pytest.mark.parametrize("name", DAEMONS)
def test_version(world, name):
    code = {"server": 0, "ical": 0, "spooler": 1, "gateway": 1, "monitor": 1, "dagent": 64}[name]
    done = run(world, name, "-V")
    assert (done.returncode, done.stdout.split()[0]) == (code, "kopano-" + name)


def test_dagent_options(world):

    def dagent(*words):
        return subprocess.run([world.binary("dagent")] + list(words), capture_output=True,
                              timeout=10).returncode

    assert dagent("-c", world.config("dagent")) == 64
    assert dagent("-F", "-l", "-c", world.config("dagent")) == 64  # -l is the folder's name
    if world.generation != 8:
        assert dagent("-d", "-c", world.config("dagent")) == 64


@pytest.mark.parametrize("name", DAEMONS)
def test_dump_config(world, name):
    done = run(world, name, "-c", world.config(name), "--dump-config")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert "log_level = 5" in lines and "# run_as_user = kopano" in lines
    listed = [line.lstrip("# ").split(" =")[0] for line in lines]
    assert ("pid_file" in listed) == (world.generation < 10 or name == "ical")
    assert ("Server shutdown complete" in done.stderr) == (name == "server")
    star = "*" if world.generation == 8 else "*%lo"
    if name == "dagent":
        assert "# lmtp_listen = %s:2003" % star in lines
        assert "# process_model = %s" % ("fork" if world.generation == 8 else "thread") in lines


@pytest.mark.parametrize("name", DAEMONS)
@pytest.mark.parametrize("what", ("unknown key", "missing file", "unknown user", "old key"))
def test_exit_code_of_a_refused_configuration(world, name, what):
    config = world.config(name)
    if what == "unknown key":
        world.write_config(name, bogus_key="1")
    elif what == "old key":
        world.write_config(name, running_path2="/x", server_bind="*")
    elif what == "unknown user":
        world.write_config(name, run_as_user="nosuch")
    else:
        config = "/etc/kopano/none.cfg"
    lies = {"server": 255, "dagent": 0, "ical": 1 if what == "unknown user" else 0}
    done = run(world, name, "-c", config)
    assert done.returncode == lies.get(name, 1), done
    if what == "unknown key":
        assert '[crit   ] Config error: Unknown option "bogus_key" found!' in done.stderr
        dumped = run(world, name, "-c", config, "--dump-config")
        assert (dumped.returncode, dumped.stdout) == (lies.get(name, 1), "")
    world.write_config(name, bogus_key=None, running_path2=None, server_bind=None, run_as_user=None)


@pytest.mark.parametrize("name", ("server", "dagent", "gateway", "ical"))
def test_exit_code_when_the_port_is_taken(world, name):
    port = {"server": "soap", "dagent": "lmtp", "gateway": "imap", "ical": "caldav"}[name]
    with socket.create_server(("127.0.0.1", PORTS[port])):
        rc = world.start_daemon(name).wait(5)
    assert rc == {"server": -signal.SIGTERM if world.generation == 8 else 255, "dagent": 0}.get(name, 1)
    assert "bind *" in world.last_words(name) and "Address already in use" in world.last_words(name)


def test_foreign_address(world):
    world.write_config("server", server_listen="192.0.2.77:236")
    rc = world.start_daemon("server").wait(5)
    assert rc == (-signal.SIGTERM if world.generation == 8 else 255)
    assert "K-1559: bind 192.0.2.77:236: Cannot assign requested address" in world.last_words("server")


@pytest.mark.parametrize("changes, word", (({"server_pipe_name": "/nosuch/server.sock"
                                             }, "bind unix:/nosuch/server.sock: No such file or directory"),
                                           ({"server_ssl_key_file": "/nosuch.pem"}, "K-2170"),
                                           ({"attachment_path": "/proc/nosuch"}, "attachment_path")))
def test_server_start_failures(world, changes, word):
    world.write_config("server", **changes)
    rc = world.start_daemon("server").wait(5)
    assert rc in ((255, -signal.SIGTERM) if "bind" in word else (255,))
    assert word in world.last_words("server")


def test_other_attachment_storage_than_recorded(world):
    serve(world, "server")
    world.stop_daemon("server")
    world.write_config("server", attachment_storage="database")
    assert world.start_daemon("server").wait(5) == 255


def test_missing_default_file(world):
    environment = dict(os.environ, KOPANO_CONFIG_PATH="/nosuch")
    for name in DAEMONS:
        done = run(world, name, "--dump-config", env=environment)
        assert (done.stdout == "") == (name == "dagent")


def test_config_syntax(world):
    with open(world.config("monitor"), "a") as file:
        file.write("no equals sign\n  smtp_server\t =  $RELAY  \nquota_check_interval = 7 # not a comment\n"
                   "!include other\nquota_check_interval = 3\nsslkey_pass = $RELAY\nservers = %s\n" %
                   ("x" * 2000))
    done = run(world, "monitor", "-c", world.config("monitor"), "--dump-config",
               env=dict(os.environ, RELAY="mx"))
    lines = done.stdout.splitlines()
    assert ("smtp_server = mx" in lines and "quota_check_interval = 3" in lines
            and "sslkey_pass = $RELAY" in lines)
    assert "servers = " + "x" * 1023 in lines


def test_unwritable_log_goes_to_stderr(world):
    with open(world.log + "/gateway.log", "w") as file:
        file.write("root's\n")
    started = world.start_daemon("gateway")
    world.wait_ready("gateway")
    wait_for(lambda: "uid %d" % pwd.getpwnam("kopano").pw_uid in started.output, 5, started.output)


def test_log_by_syslog(world):
    world.write_config("monitor", log_file="", log_method="auto")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        if os.path.exists("/dev/log"):
            pytest.skip("/dev/log belongs to somebody")
        journal.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        try:
            started = world.start_daemon("monitor")
            assert b"kopano-monitor[%d]: Starting" % started.pid in journal.recv(4096)
            journal.recv(4096)
            assert world.server_connections("monitor") == set()
        finally:
            os.unlink("/dev/log")


# ---- pid files, background, second instances


@pytest.mark.parametrize("name", DAEMONS)
def test_pid_file(world, name):
    path = "/run/kopano/%s.pid" % name
    serve(world, "server", *(() if name == "server" else (name,)))
    if world.generation == 11:
        assert not os.path.exists(path)
        return
    wait_for(lambda: os.path.exists(path) and os.path.getsize(path), 5, path)
    with open(path) as file:
        assert file.read() == "%d\n" % world.main_pid(name)
    found = os.stat(path)
    assert pwd.getpwuid(found.st_uid).pw_name == "kopano"
    assert stat.S_IMODE(found.st_mode) == (0o600 if name in FORKERS else 0o644)
    world.stop_daemon(name)
    assert os.path.exists(path)


@pytest.mark.generations(8, 9)
def test_unwritable_pid_file_is_only_logged(world):
    world.write_config("gateway", pid_file="/nosuch/gateway.pid")
    serve(world, "gateway")
    assert "/nosuch/gateway.pid" in world.last_words("gateway")


@pytest.mark.generations(8)
@pytest.mark.parametrize("name", DAEMONS)
def test_goes_into_the_background(world, name):
    if name != "server":
        serve(world, "server")
    assert world.start_daemon(name, foreground=False).wait(5) == 0
    world.wait_ready(name)
    pid = world.main_pid(name)
    assert os.getsid(pid) != pid and status(pid, "PPid") == ["1"]  # double fork: no session leader
    wait_for(lambda: open("/run/kopano/%s.pid" % name).read() == "%d\n" % pid, 5, "pid file")


@pytest.mark.parametrize("name", ("spooler", "monitor"))
def test_second_instance_without_a_port(world, name):
    serve(world, "server", name)
    first = world.main_pid(name)
    if world.generation < 10:
        wait_for(lambda: os.path.exists("/run/kopano/%s.pid" % name), 5, "pid file")
        assert world.start_daemon(name).wait(5) == 1
        assert "please remove pidfile" in world.last_words(name)
        if world.generation == 8:
            assert world.start_daemon(name, foreground=False).wait(5) == 0
        wait_for(lambda: world.main_pid(name) == first, 5, "the first alone is left")
    else:
        second = world.start_daemon(name)
        wait_for(
            lambda: "pid %d uid %d" % (second.pid, pwd.getpwnam("kopano").pw_uid) in world.last_words(name),
            5, "")
        assert second.rc is None and first in world.pids(name)


@pytest.mark.generations(8, 9)
@pytest.mark.parametrize("content", ("1\n", "4194303\n", "rubbish\n"))
def test_stale_pid_file_is_overwritten(world, content):
    serve(world, "server")
    with open("/run/kopano/spooler.pid", "w") as file:
        file.write(content)
    os.chmod("/run/kopano/spooler.pid", 0o666)
    serve(world, "spooler")
    with open("/run/kopano/spooler.pid") as file:
        assert file.read() == "%d\n" % world.main_pid("spooler")


# ---- signals


@pytest.mark.parametrize("name", DAEMONS)
@pytest.mark.parametrize("signum", (signal.SIGTERM, signal.SIGINT))
def test_term_when_idle(world, name, signum):
    world.start_daemon("server")
    world.wait_ready("server")
    started = started_server = world._started[-1]
    if name != "server":
        started = world.start_daemon(name)
        world.wait_ready(name)
    world.signal(name, signum)
    assert started.wait(3) == 0
    wait_for(lambda: world.gone(name), 3, "children too")
    if name == "server":
        assert "[=======] Server shutdown complete." in started_server.output
        for path in ("server.sock", "prio.sock"):
            with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect("/run/kopano/" + path)


@pytest.mark.parametrize("name", DAEMONS)
def test_hup_reloads(world, name):
    serve(world, "server", *(() if name == "server" else (name,)))
    pid = world.main_pid(name)
    log = "%s/%s.log" % (world.log, name)
    world.write_config(name, log_level="3")
    os.rename(log, log + ".1")
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: os.path.exists(log) and "Log connection was reset" in world.last_words(name), 5,
             "reload")
    assert world.main_pid(name) == pid


@pytest.mark.parametrize("name", DAEMONS)
def test_usr_signals(world, name):
    serve(world, "server", *(() if name == "server" else (name,)))
    pid = world.main_pid(name)
    if name in ("server", "spooler"):
        os.kill(pid, signal.SIGUSR1 if name == "server" else signal.SIGUSR2)
        world.wait_ready(name)
        assert world.main_pid(name) == pid
    if name != "server":
        os.kill(pid, signal.SIGUSR1)
        wait_for(lambda: world.gone(name), 5, "USR1 kills")
