# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody else is ever signalled; nothing is written where the daemons' user could have put a link; no secret is told.

Who is signalled is asked of strace, and of the bystanders, which write down what they get.
"""
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from world import DAEMONS, DATABASE_PASSWORD, StandinOnly, processes, wait_for

from .looks import serve
from .rough import Bystander, Trace, alive, pairs, signal_trace, starts, stops, stranger_with_pid, tops, with_pid

KOPANO = "kopano"


def whole(world, name):
    """Pids of a daemon, its children, and theirs."""
    table = processes()
    found = set(alive(world, name))
    while True:
        more = {pid for pid, seen in table.items() if seen[2] in found} - found
        if not more:
            return found
        found |= more


def give(path):
    """Make a file, or a link itself, the daemons' user's."""
    user = pwd.getpwnam(KOPANO)
    os.lchown(path, user.pw_uid, user.pw_gid)


def only(tracer, allowed):
    """Signals went nowhere else, and there were some; the trace begins anew."""
    assert tracer.signals() and {pid for pid, _ in tracer.signals()} <= set(allowed), (tracer.signals(), allowed)
    tracer.forget()


# ---- pid files

@pairs((8, "server"), (8, "dagent"), (8, "spooler"), (9, "gateway"), (9, "ical"), (9, "monitor"))
@pytest.mark.parametrize("whose", ["a stranger's", "init's", "ours"])
def test_a_pid_file_that_names_another_process(world, name, whose, tmp_path):
    with Bystander(str(tmp_path / "database")) as stranger:
        pid = {"a stranger's": stranger.pid, "init's": 1, "ours": os.getpid()}[whose]
        with open("%s/%s.pid" % (world.run, name), "w") as file:
            file.write("%d\n" % pid)
        tracer = signal_trace()
        assert world.agent(name, "monitor", agents_dir=tracer.folder).rc == 7 and tracer.signals() == []
        assert world.agent(name, "monitor", agents_dir=tracer.folder, level=20, interval=0).rc == 7
        assert world.agent(name, "reload", agents_dir=tracer.folder).rc == 1 and tracer.signals() == []
        assert world.agent(name, "stop", agents_dir=tracer.folder).rc == 0 and tracer.signals() == []
        stranger.untouched()


@pairs((8, "monitor"), (9, "monitor"), (11, "monitor"))
def test_a_pid_file_that_lies_about_a_running_daemon(world, name, tmp_path):
    starts(world, name)
    own = whole(world, name)
    with Bystander(str(tmp_path / "database")) as stranger:
        (tmp_path / "pid").write_text("%d\n" % stranger.pid)
        for entry in os.listdir(world.rsctmp):
            os.unlink(os.path.join(world.rsctmp, entry))
        how = {"params": {"pidfile": str(tmp_path / "pid")}}
        tracer = signal_trace()
        assert world.agent(name, "monitor", **how).rc == 0
        assert world.agent(name, "reload", agents_dir=tracer.folder, **how).rc == 0
        only(tracer, own)
        assert world.agent(name, "stop", agents_dir=tracer.folder, **how).rc == 0
        only(tracer, own)
        assert alive(world, name) == []
        stranger.untouched()


# ---- pids that are used again

@pairs((8, "dagent"), (11, "monitor"), (11, "server"))
def test_a_remembered_pid_that_is_somebody_elses_now(world, name, tmp_path):
    if name == "dagent":
        world.up("server")
    starts(world, name)
    pid = world.main_pid(name)
    world.kill_daemon(name)
    with stranger_with_pid(world, pid, str(tmp_path / "database")) as stranger:
        tracer = signal_trace()
        assert world.agent(name, "monitor").rc == 7
        assert world.agent(name, "reload", agents_dir=tracer.folder).rc == 1 and tracer.signals() == []
        assert world.agent(name, "stop", agents_dir=tracer.folder).rc == 0 and tracer.signals() == []
        starts(world, name)
        stops(world, name)
        stranger.untouched()


def test_a_remembered_pid_that_is_a_new_daemons(world11):
    """Started by hand, by chance with the old number: it is found and it is not mistaken for the old one."""
    starts(world11, "monitor")
    pid = world11.main_pid("monitor")
    world11.kill_daemon("monitor")
    with_pid(world11, pid, lambda: world11.start_daemon("monitor"), lambda one: world11.kill_daemon("monitor"))
    wait_for(lambda: alive(world11, "monitor") == [pid])
    assert world11.agent("monitor", "monitor").rc == 0
    stops(world11, "monitor")


def agent_in(call):
    """Whether an agent is in this system call, by its number."""
    for pid, (_, _, _, words) in processes().items():
        if len(words) > 2 and "/agents/" in words[2]:
            with contextlib.suppress(OSError), open("/proc/%d/syscall" % pid) as file:
                if file.read().split()[0] == str(call):
                    return True
    return False


@pytest.mark.parametrize("call, number", [("pidfd_open", 434), ("pidfd_send_signal", 424)])
@pytest.mark.parametrize("name", ["monitor", "dagent"])
def test_a_pid_that_is_used_again_between_look_and_signal(world11, tmp_path, call, number, name):
    """The daemon dies, and its number goes to another, while stop is in the very call that signals it."""
    if name == "dagent":
        world11.up("server")
    starts(world11, name)
    pid = world11.main_pid(name)
    tracer = signal_trace("-e", "inject=%s:delay_enter=1500000" % call)
    stranger = []

    def exchange(_agent):
        def watch():
            wait_for(lambda: agent_in(number), 10, "the agent does not come to " + call)
            os.kill(pid, signal.SIGKILL)
            stranger.append(stranger_with_pid(world11, pid, str(tmp_path / "database")))
        thread = threading.Thread(target=watch)
        thread.start()
        stranger.append(thread)

    result = world11.agent(name, "stop", agents_dir=tracer.folder, on_start=exchange, timeout=60)
    stranger.pop(0).join()
    with stranger[0]:
        assert stranger[0].pid == pid
        assert result.rc == 0, result
        stranger[0].untouched()
    assert alive(world11, name) == []


# ---- those who look alike

def lookalikes(world, name, folder):
    """Everything that could be mistaken for this daemon, and is not."""
    binary, config = world.binary(name), world.config(name)
    role = ["-l"] if name == "dagent" else ["-F"]
    short = os.path.basename(binary)
    with contextlib.suppress(FileExistsError):
        os.symlink(config, folder + "/elsewhere.cfg")
    yield "another configuration", Bystander(binary, *role, "-c", "/etc/kopano/second.cfg")
    yield "almost that configuration", Bystander(binary, *role, "-c", config + ".dpkg-old")
    yield "the configuration as an operand", Bystander(binary, *role, "-c", "/etc/kopano/x.cfg", "--", "-c", config)
    yield "in a container", Bystander(binary, *role, "-c", config, before=["unshare", "--pid", "--fork"])
    yield "in a container, as another", Bystander(binary, *role, "-c", config, before=[
        "unshare", "--pid", "--fork", "setpriv", "--reuid=" + KOPANO, "--regid=" + KOPANO, "--clear-groups"])
    yield "installed elsewhere", Bystander("%s/%s" % (folder, short), *role, "-c", config)
    yield "another binary of a like name", Bystander(binary + ".old", *role, "-c", config)
    yield "an editor", Bystander(folder + "/vim", binary, *role, "-c", config)
    yield "a command line alone", Bystander(folder + "/idle", *role, "-c", config, argv0=binary)
    yield "a sister", Bystander(os.path.dirname(binary) + "/kopano-search", *role, "-c", config)
    if name == "dagent":
        yield "Postfix's delivery", Bystander(binary, "-c", config, "alice")
        yield "Postfix's delivery by default", Bystander(binary, "alice@example.com", user=KOPANO)
        yield "a delivery into a folder", Bystander(binary, "-F", "Junk", "-c", config, "alice")


@pairs((8, "dagent"), (9, "gateway"), (11, "server"), (11, "dagent"), (11, "spooler"))
def test_nobody_who_looks_alike_is_taken_for_it(world, name, tmp_path):
    if name != "server":
        world.up("server")
    script = tmp_path / "bin" / ("kopano-" + name)
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nwhile :; do sleep 1; done\n")
    script.chmod(0o755)
    tracer = signal_trace()
    with contextlib.ExitStack() as stack:
        others = {what: stack.enter_context(one) for what, one in lookalikes(world, name, str(tmp_path))}
        named_alike = subprocess.Popen([str(script), "-c", world.config(name)], start_new_session=True)
        stack.callback(named_alike.wait)
        stack.callback(named_alike.kill)
        # none of ours there
        assert world.agent(name, "monitor", interval=0).rc == 7
        assert world.agent(name, "stop", agents_dir=tracer.folder).rc == 0 and tracer.signals() == []
        # ours among them, remembered or not
        for memory in ("kept", "lost"):
            own = [] if world.agent(name, "start", timeout=60).rc else {
                pid for pid in whole(world, name) if all(pid not in one.pids for one in others.values())}
            assert own
            assert world.agent(name, "monitor", level=20).rc == 0
            if memory == "lost":
                for entry in os.listdir(world.rsctmp):
                    os.unlink(os.path.join(world.rsctmp, entry))
            assert world.agent(name, "reload", agents_dir=tracer.folder).rc == 0
            only(tracer, own)
            assert world.agent(name, "stop", timeout=100, agents_dir=tracer.folder).rc == 0
            only(tracer, own)
            assert not own & set(alive(world, name))
            assert world.agent(name, "monitor", interval=0).rc == 7
        for what, one in others.items():
            assert (one.signals, one.alive) == ([], one.pids), what
        assert named_alike.poll() is None


def second(world, name):
    """Another instance of this daemon on the same host: (agent's keywords, pid file)."""
    changes = {"server": {"server_listen": "*:1236", "server_listen_tls": "", "server_pipe_name": "/run/kopano/2.sock",
                          "server_pipe_priority": "/run/kopano/2prio.sock", "mysql_database": "kopano2"},
               "dagent": {"lmtp_listen": "*:12003"}, "monitor": {}}[name]
    values = dict(world.settings[name], log_file="%s/second-%s.log" % (world.log, name), **changes)
    pid_file = "%s/second-%s.pid" % (world.run, name)
    if world.generation < 10:
        values["pid_file"] = pid_file
    path = "%s/second-%s.cfg" % (world.etc, name)
    with open(path, "w") as file:
        file.write("".join("%s = %s\n" % item for item in values.items() if item[1] is not None))
    os.chmod(path, 0o640)
    shutil.chown(path, "root", KOPANO)
    return {"params": {"config": path}, "instance": "kopano-%s-2" % name}, pid_file


@pairs((8, "server"), (8, "dagent"), (9, "dagent"), (11, "server"), (11, "monitor"))
def test_two_instances_leave_each_other_alone(world, name):
    if name == "dagent":
        world.up("server")
    other, pid_file = second(world, name)
    assert world.agent(name, "start", timeout=60).rc == 0
    first_own = whole(world, name)
    assert world.agent(name, "start", timeout=60, **other).rc == 0
    other_own = whole(world, name) - first_own
    assert len(tops(world, name)) == 2
    if world.generation < 10:
        # each pid file names the other one
        os.rename(pid_file, pid_file + ".x")
        os.rename("%s/%s.pid" % (world.run, name), pid_file)
        os.rename(pid_file + ".x", "%s/%s.pid" % (world.run, name))
    for entry in os.listdir(world.rsctmp):
        os.unlink(os.path.join(world.rsctmp, entry))
    assert world.agent(name, "monitor").rc == world.agent(name, "monitor", **other).rc == 0
    tracer = signal_trace()
    assert world.agent(name, "reload", agents_dir=tracer.folder).rc == 0
    only(tracer, first_own)
    assert world.agent(name, "stop", timeout=60, agents_dir=tracer.folder).rc == 0
    only(tracer, first_own)
    assert set(alive(world, name)) <= other_own and world.agent(name, "monitor").rc == 7
    assert world.agent(name, "monitor", **other).rc == 0
    assert world.agent(name, "stop", timeout=60, agents_dir=tracer.folder, **other).rc == 0
    only(tracer, other_own)
    assert alive(world, name) == []


def test_a_daemon_in_somebody_elses_session(world11):
    """Started from a shell: what else the shell runs is none of ours."""
    with subprocess.Popen(["sleep", "1000"]) as beside:
        started = world11.start_daemon("monitor", session=False)
        wait_for(lambda: world11.agent("monitor", "monitor").rc == 0, 10)
        tracer = signal_trace()
        assert world11.agent("monitor", "stop", agents_dir=tracer.folder).rc == 0
        only(tracer, [started.pid])
        assert beside.poll() is None
        beside.kill()


def test_what_the_daemon_runs_ends_with_it_but_not_what_it_let_go(world11, tmp_path):
    """A script of its own is below it still; what has put itself into the background is another's matter."""
    path = str(tmp_path / "kopano-monitor")
    how = {"params": {"binary": path, "stop_escalate": "1"}}
    with Bystander(path, "-F", "-c", world11.config("monitor"), ends=True, children=1,
                   runs="setsid -f sleep 1001; exec sleep 1002") as daemon:
        def sleeper(seconds):
            found = [pid for pid, seen in processes().items() if seen[3] == ["sleep", seconds] and seen[1] not in "ZX"]
            return found[0] if found else None
        script = wait_for(lambda: sleeper("1002"))
        stranger = wait_for(lambda: sleeper("1001"))
        tracer = signal_trace()
        result = world11.agent("monitor", "stop", agents_dir=tracer.folder, **how)
        assert result.rc == 0, result
        only(tracer, daemon.pids + [script])
        assert sleeper("1002") is None and sleeper("1001") == stranger and daemon.alive == []
        os.kill(stranger, signal.SIGKILL)


# ---- files

FILES = ("-e", "trace=%file,fchmod,fchown,ftruncate", "-e", "signal=none")


@pytest.mark.parametrize("place", ["/run/resource-agents", "/run/kopano", "/run/kopano/state"])
def test_root_writes_nothing_where_kopano_could_put_a_link(world11, place):
    """Not in the daemons' own directories, not even when HA_RSCTMP points there."""
    if place == "/run/kopano/state":
        os.symlink("/etc/kopano", place)
        give(place)
    before = sorted(os.listdir("/etc/kopano"))
    tracer = Trace(*FILES)
    how = {"agents_dir": tracer.folder, "env": {"HA_RSCTMP": place}, "timeout": 60}
    for name in ("server", "dagent", "monitor"):
        for action, level in (("start", None), ("monitor", 20), ("reload", None), ("validate-all", 10)):
            assert world11.agent(name, action, level=level, **how).rc == 0
    for name in ("monitor", "dagent", "server"):
        world11.kill_daemon(name)
        assert world11.agent(name, "monitor", **how).rc == 7
        assert world11.agent(name, "start", **how).rc == 0
        assert world11.agent(name, "stop", **how).rc == 0
    theirs = [line for line in tracer.writes() if "/kopano/" in line or '/run/kopano"' in line]
    assert theirs == []
    assert any("kopano-ocf-" in line for line in tracer.writes()) == (place == "/run/resource-agents")
    assert sorted(os.listdir("/etc/kopano")) == before


@pytest.fixture
def victim():
    path = "/etc/victim"
    with open(path, "w") as file:
        file.write("root's own\n")
    before = os.stat(path)
    yield path
    after = os.stat(path)
    with open(path) as file:
        assert file.read() == "root's own\n"
    assert (before.st_ino, before.st_uid, before.st_mode) == (after.st_ino, after.st_uid, after.st_mode)
    os.unlink(path)


def names_used(world):
    """Names of the files that agents make in HA_RSCTMP."""
    return [entry for entry in os.listdir(world.rsctmp) if entry.startswith("kopano-ocf")]


@pytest.mark.parametrize("kind", ["links", pytest.param("dangling links", marks=pytest.mark.long), "hard links",
                                  "files of theirs", pytest.param("directories", marks=pytest.mark.long), "fifos"])
def test_what_others_put_into_a_directory_for_all(world11, victim, kind):
    """HA_RSCTMP with mode 1777: the names there are easily guessed."""
    world11.up("server")
    for name in ("dagent", "monitor"):
        starts(world11, name)
        world11.agent(name, "monitor", level=20)
        stops(world11, name)
    world11.agent("webapp-health", "start")
    world11.agent("webapp-health", "stop")
    names = set(names_used(world11))
    names |= {"kopano-ocf-%s-kopano-%s" % (name, name) for name in ("dagent", "monitor", "webapp-health")}
    assert len([name for name in names if not name.endswith(".lock")]) >= 3
    shutil.rmtree("/tmp/shared", ignore_errors=True)
    os.mkdir("/tmp/shared")
    os.chmod("/tmp/shared", 0o1777)
    with open("/proc/sys/kernel/ns_last_pid") as last:
        pid = int(last.read())
    names |= {"%s.%d.tmp" % (name, number) for name in list(names) for number in range(pid, pid + 200)}
    make = {"links": lambda path: os.symlink(victim, path),
            "dangling links": lambda path: os.symlink("/etc/evil", path),
            "hard links": lambda path: os.link("/tmp/victim", path),
            "files of theirs": lambda path: open(path, "w").close(), "directories": os.mkdir, "fifos": os.mkfifo}[kind]
    with open("/tmp/victim", "w") as file:
        file.write("root's own\n")
    for name in names:
        make("/tmp/shared/" + name)
        if kind != "hard links":
            give("/tmp/shared/" + name)
    how = {"env": {"HA_RSCTMP": "/tmp/shared"}}
    for name in ("dagent", "monitor"):
        starts(world11, name, **how)
        assert world11.agent(name, "monitor", level=20, **how).rc == 0
        stops(world11, name, **how)
    # the page check has to remember that it was started, or to say that it can't
    begun = world11.agent("webapp-health", "start", **how)
    assert begun.rc == (1 if kind == "directories" else 0), begun
    assert world11.agent("webapp-health", "stop", **how).rc == 0
    assert not os.path.lexists("/etc/evil")
    with open("/tmp/victim") as file:
        assert file.read() == "root's own\n"
    shutil.rmtree("/tmp/shared")


def test_a_lock_that_somebody_else_holds(world11):
    """In a directory for all anybody can make the lock file first, and keep it locked."""
    starts(world11, "monitor")
    stops(world11, "monitor")
    shutil.rmtree("/tmp/shared", ignore_errors=True)
    os.mkdir("/tmp/shared")
    os.chmod("/tmp/shared", 0o1777)
    with contextlib.ExitStack() as stack:
        for name in names_used(world11):
            file = stack.enter_context(open("/tmp/shared/" + name, "w"))
            give(file.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        how = {"env": {"HA_RSCTMP": "/tmp/shared"}}
        assert starts(world11, "monitor", **how).took < 5
        assert stops(world11, "monitor", **how).took < 5


@pytest.mark.parametrize("generation", [8], indirect=True, ids=["g8"])
@pytest.mark.parametrize("key, name", [("pid_file", "monitor"), ("server_pipe_name", "server")])
def test_no_directory_is_made_through_a_link(world, key, name):
    """A directory for the daemon's user is only made where that user could not have prepared anything."""
    os.symlink("/etc/systemd/system/evil.service.d", "/run/kopano/sub")
    give("/run/kopano/sub")
    world.write_config(name, **{key: "/run/kopano/sub/file"})
    world.agent(name, "start", timeout=10)
    world.agent(name, "stop")
    assert not os.path.lexists("/etc/systemd/system/evil.service.d")


@pytest.mark.parametrize("generation", [8, 11], indirect=True, ids=["g8", "g11"])
def test_the_run_directory_comes_back_with_its_owner(world):
    """After a reboot it is missing; where it is a link of root's, its target is made no more than anything else."""
    shutil.rmtree("/run/kopano")
    starts(world, "monitor")
    stops(world, "monitor")
    seen = os.stat("/run/kopano")
    user = pwd.getpwnam(KOPANO)
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (user.pw_uid, user.pw_gid, 0o775)
    os.rename("/run/kopano", "/run/kopano-real")
    os.symlink("kopano-real", "/run/kopano")
    starts(world, "server")
    stops(world, "server")
    os.unlink("/run/kopano")
    shutil.rmtree("/run/kopano-real")
    starts(world, "monitor")
    stops(world, "monitor")


@pytest.mark.parametrize("generation", [8], indirect=True, ids=["g8"])
@pytest.mark.parametrize("target", ["/etc/shadow", "/dev/zero", "a fifo", "/nonexistent"])
def test_a_pid_file_that_is_a_link(world, target, tmp_path):
    """To a secret, to a device that does something when it is opened: it is no pid file, and is not opened."""
    if target == "a fifo":
        target = str(tmp_path / "fifo")
        os.mkfifo(target)
    starts(world, "monitor")
    os.unlink("/run/kopano/monitor.pid")
    os.symlink(target, "/run/kopano/monitor.pid")
    with open("/etc/shadow") as file:
        secrets = [line.split(":")[1] for line in file if len(line.split(":")[1]) > 3] + ["root:", "daemon:"]
    tracer = Trace("-e", "trace=open,openat", "-e", "signal=none")
    for running in (True, False):
        for entry in os.listdir(world.rsctmp):
            os.unlink(os.path.join(world.rsctmp, entry))
        for action, level in (("monitor", 0), ("monitor", 20), ("validate-all", 10), ("stop", None)):
            result = world.agent("monitor", action, level=level, agents_dir=tracer.folder)
            assert result.rc == (0 if running or action != "monitor" else 7), result
            assert not any(secret in result.out + result.err for secret in secrets)
    opened = [line for line in tracer.lines() if "monitor.pid" in line]
    assert opened and all("ELOOP" in line for line in opened)


# ---- secrets

MAILBOX_PASSWORD = "s3cret of alice"


class Listening:
    """A listener that handles each connection by a function, in a thread; port."""

    def __init__(self, handle):
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen(20)
        self.port, self._handle = self._sock.getsockname()[1], handle
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection = self._sock.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rwb") as stream:
            self._handle(stream)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def repeats(greeting, before):
    """A server that is well until it hears a password, which it repeats behind these words (TAG is the tag's place)."""
    def handle(stream):
        stream.write(greeting)
        stream.flush()
        for line in stream:
            tag = line.split(b" ", 1)[0]
            if b"repe4ted" in line:
                answer = before.replace(b"TAG", tag) + line
            elif b"CAPA" in line:
                answer = b"+OK\r\n.\r\n"
            else:
                answer = b"+OK\r\n" if greeting.startswith(b"+") else tag + b" OK\r\n"
            stream.write(answer)
            stream.flush()
    return handle


def echo_http(stream):
    lines = []
    for line in stream:
        if line == b"\r\n":
            break
        lines.append(line)
    body = b"".join(lines)
    if body.startswith(b"OPTIONS"):
        stream.write(b"HTTP/1.1 200 OK\r\nAllow: GET\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    else:
        stream.write(b"HTTP/1.1 500 %s\r\nContent-Length: %d\r\n\r\n%s" % (
            body.replace(b"\r\n", b" "), len(body), body))


def told(world, tracer, *results):
    """Everything that an observer could have read: words of all processes, output, state, logs."""
    parts = [" ".join(program) for program in tracer.programs()]
    parts += [result.out + result.err for result in results]
    for folder in (world.rsctmp, "/tmp/ha"):
        for entry in os.listdir(folder):
            with open(os.path.join(folder, entry), errors="replace") as file:
                parts.append(entry + file.read())
    return "\n".join(parts)


@pytest.fixture
def observed():
    shutil.rmtree("/tmp/ha", ignore_errors=True)
    os.mkdir("/tmp/ha")
    tracer = Trace("-f", "-e", "trace=execve", "-e", "signal=none")
    return tracer, {"agents_dir": tracer.folder, "env": {
        "HA_LOGFILE": "/tmp/ha/log", "HA_DEBUGLOG": "/tmp/ha/debug", "HA_debug": "1"}}


def test_the_databases_password_is_told_to_nobody(world11, observed):
    tracer, how = observed
    results = [world11.agent("server", action, level=level, timeout=20, **how)
               for action, level in (("validate-all", 10), ("start", None), ("monitor", 20), ("reload", None))]
    assert [result.rc for result in results] == [0, 0, 0, 0], results
    world11.database.stop()
    results += [world11.agent("server", "monitor", level=20, timeout=10, **how) for _ in range(2)]
    world11.database.start()
    with world11.database.connect() as connection, connection.cursor() as cursor:
        for host in ("localhost", "127.0.0.1", "::1", "%"):
            cursor.execute("SET PASSWORD FOR 'kopano'@'%s' = PASSWORD('changed')" % host)
    try:
        results += [world11.agent("server", "monitor", level=20, timeout=10, **how) for _ in range(2)]
        results.append(world11.agent("server", "stop", timeout=60, **how))
        results.append(world11.agent("server", "start", timeout=4, **how))
        results.append(world11.agent("server", "stop", timeout=60, **how))
    finally:
        subprocess.run(["mariadb", "-S", world11.database.socket, "-u", "kopano", "-pchanged"], check=True, text=True,
                       input="".join("SET PASSWORD FOR 'kopano'@'%s' = PASSWORD('%s');" % (host, DATABASE_PASSWORD)
                                     for host in ("localhost", "127.0.0.1", "::1", "%")))
    assert 190 in [result.rc for result in results]
    assert len(tracer.programs()) >= 4
    assert DATABASE_PASSWORD not in told(world11, tracer, *results)


@pytest.mark.parametrize("line", ["mysql_pasword = %s", "MYSQL_PASSWORD = %s", "mysql_pwd = %s", "mysql_passwd = %s",
                                  "server_ssl_key_pas = %s", "mysql_password %s", "mysql_password = $%s"])
def test_nor_is_it_when_its_setting_is_mistyped(world11, observed, line):
    tracer, how = observed
    with open(world11.config("server"), "a") as file:
        file.write(line % "h0rse" + "\n")
    results = [world11.agent("server", action, level=level, timeout=3, **how)
               for action, level in (("validate-all", 10), ("start", None), ("monitor", 20), ("stop", None))]
    assert "h0rse" not in told(world11, tracer, *results), results


@pytest.mark.parametrize("user, password", [("right", MAILBOX_PASSWORD), ("wrong", "wr0ng of alice")])
def test_the_mailboxs_password_is_told_to_nobody(world11, observed, tmp_path, user, password):
    tracer, how = observed
    world11.up("server")
    world11.add_user(user, MAILBOX_PASSWORD)
    (tmp_path / "secret").write_text(password + "\nsecond line\n")
    params = {"test_user": user, "test_password_file": str(tmp_path / "secret")}
    results = []
    for name in ("gateway", "ical"):
        results.append(world11.agent(name, "start", params=params, timeout=60, **how))
        seen = world11.agent(name, "monitor", level=20, params=params, **how)
        assert seen.rc == (0 if password == MAILBOX_PASSWORD else 190), seen
        results += [seen, world11.agent(name, "validate-all", level=10, params=params, **how),
                    world11.agent(name, "stop", params=params, **how)]
    for part in (password, password.split()[0]):
        assert part not in told(world11, tracer, *results)


@pytest.mark.parametrize("generation", [11], indirect=True, ids=["g11"])
def test_a_server_that_repeats_the_password(site, observed, tmp_path):
    tracer, how = observed
    (tmp_path / "secret").write_text("repe4ted\n")
    results = []
    for name, scheme, handle in (
            [("gateway", "imap", repeats(b"* OK ready\r\n", before))
             for before in (b"", b"TAG NO ", b"TAG BAD ", b"* BYE ")]
            + [("gateway", "pop3", repeats(b"+OK ready\r\n", before)) for before in (b"", b"-ERR ", b"-ERR [AUTH] ")]
            + [("ical", "http", echo_http)]):
        with Listening(handle) as listening:
            results.append(site.agent(name, "monitor", level=20, timeout=3, params={
                "listen": "%s://127.0.0.1:%d" % (scheme, listening.port), "test_user": "alice",
                "test_password_file": str(tmp_path / "secret")}, **how))
            assert results[-1].rc in (1, 190) and "Traceback" not in results[-1].err, results[-1]
            assert "test login" in results[-1].reason, results[-1]
    assert "repe4ted" not in told(site, tracer, *results), results


@pytest.mark.parametrize("generation", [11], indirect=True, ids=["g11"])
@pytest.mark.parametrize("kind", ["missing", "empty", "directory", "fifo", "binary", "huge", "unset"])
def test_a_password_file_that_is_none(site, tmp_path, kind):
    path = tmp_path / "secret"
    {"missing": lambda: None, "empty": lambda: path.write_text("\nsecond\n"), "directory": path.mkdir,
     "fifo": lambda: os.mkfifo(str(path)), "binary": lambda: path.write_bytes(bytes(range(1, 256))),
     "huge": lambda: path.write_bytes(b"x" * 1000000), "unset": lambda: None}[kind]()
    result = site.agent("gateway", "monitor", level=20, params={
        "test_user": "alice", "test_password_file": None if kind == "unset" else str(path)})
    assert result.rc == 190 and "second" not in result.err and "xxxx" not in result.err, result


# ---- no shell

@pytest.mark.parametrize("words", ["; touch /tmp/owned", "'$(touch /tmp/owned)'", "-x\\;`touch\\ /tmp/owned`"])
def test_no_shell_sees_a_parameter(world11, words):
    tracer = Trace("-f", "-e", "trace=execve", "-e", "signal=none")
    for params in ({"options": words}, {"binary": "kopano-monitor" + words}, {"binary": "/usr/sbin/k" + words},
                   {"config": "/etc/kopano/x.cfg" + words}, {"pidfile": "/run/x.pid" + words}):
        for action, level in (("validate-all", 10), ("start", None), ("monitor", 20), ("stop", None)):
            result = world11.agent("monitor", action, level=level, params=params, agents_dir=tracer.folder, timeout=10)
            assert result.rc in (0, 1, 5, 6, 7, 190) and "Traceback" not in result.err, result
    result = world11.agent("webapp-health", "start", agents_dir=tracer.folder, timeout=5, params={
        "url": "http://127.0.0.1:1/" + words.replace(" ", "%20"), "attribute": "x" + words.replace(" ", "")})
    assert result.rc in (0, 6), result
    world11.agent("webapp-health", "stop", agents_dir=tracer.folder)
    ran = {os.path.basename(program[0]) for program in tracer.programs()}
    assert ran and not ran & {"sh", "dash", "bash", "env", "touch", "perl"}, ran
    assert not os.path.exists("/tmp/owned")
    assert alive(world11, "monitor") == []


@pytest.mark.parametrize("name", DAEMONS)
def test_actions_run_no_other_program_than_the_daemon(world11, name):
    if name in ("dagent", "spooler", "gateway", "ical"):
        world11.up("server")
    tracer = Trace("-f", "-e", "trace=execve", "-e", "signal=none")
    for action, level in (("validate-all", 10), ("monitor", 0), ("start", None), ("monitor", 20), ("reload", None),
                          ("stop", None)):
        assert world11.agent(name, action, level=level, agents_dir=tracer.folder, timeout=60).rc in (0, 7)
    ran = {program[0] for program in tracer.programs()}
    agents = {path for path in ran if "/agents/" in path}
    assert {os.path.basename(path) for path in ran - agents} <= {"kopano-" + name, "python3"}, ran


@pytest.mark.parametrize("name", ["server", "dagent"])
def test_a_configuration_is_asked_for_while_a_probe_runs(world11, name):
    """Somebody validates a resource that is stopped: what the daemon says then makes it no running one."""
    with Bystander(world11.binary(name), *(["-l"] if name == "dagent" else []), "-c", world11.config(name)) as asked:
        assert world11.agent(name, "monitor", interval=0).rc != 7       # else this test shows nothing
        asked.untouched()
    raised = []
    try:
        other = subprocess.Popen([world11.binary(name)] + (["-l"] if name == "dagent" else []) + [
            "-c", world11.config(name), "--dump-config"], stdout=subprocess.PIPE, stdin=subprocess.PIPE,
            start_new_session=True)
        os.kill(other.pid, signal.SIGSTOP)
        raised.append(world11.agent(name, "monitor", interval=0).rc)
        raised.append(world11.agent(name, "stop").rc)
        os.kill(other.pid, signal.SIGCONT)
        assert other.communicate(timeout=10)[0]
    finally:
        other.kill()
    assert raised == [7, 0]


def test_standins_only(world11):
    """Room for another program is made among the stand-ins alone."""
    world11.real = True
    try:
        with pytest.raises(StandinOnly):
            Bystander(world11.binary("monitor"))
    finally:
        world11.real = False


def test_a_neighbour_that_serves_where_this_one_wants_to(world11):
    """Start says who has the port, and leaves him alone."""
    serve(world11, "ical")
    own = alive(world11, "ical")
    other, _ = second(world11, "monitor")
    shutil.copy(world11.config("ical"), other["params"]["config"])
    tracer = signal_trace()
    result = world11.agent("ical", "start", agents_dir=tracer.folder, **other)
    assert result.rc == 1 and str(own[0]) in result.reason and tracer.signals() == [], result
    assert world11.agent("ical", "monitor").rc == 0
