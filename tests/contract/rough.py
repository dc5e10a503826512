# SPDX-License-Identifier: GPL-2.0-or-later
"""Rough treatment: agents killed in the middle, bystanders that write down each signal, what a tracer saw."""
import contextlib
import functools
import importlib.machinery
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from world import StandinOnly, World, processes, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
AGENTS = os.path.join(ROOT, "agents")
CODES = {"start": (0, 1, 5, 6), "stop": (0, 1), "monitor": (0, 1, 7, 190), "reload": (0, 1),
         "reload-agent": (0, 1, 7), "validate-all": (0, 5, 6), "meta-data": (0,), "usage": (0,)}

# What changes something, or tells somebody something: the moments at which a kill could matter.
STEPS = ("vfork", "fork", "clone", "clone3", "rename", "renameat", "renameat2", "unlink", "unlinkat", "flock", "mkdir",
         "mkdirat", "fchown", "pidfd_send_signal", "kill", "wait4")

_BYSTANDER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int number, children = atoi(getenv("BYSTANDER_CHILDREN") ?: "0");
    int log = open(getenv("BYSTANDER_LOG") ?: "/dev/null", O_WRONLY | O_APPEND | O_CREAT, 0644);
    siginfo_t info;
    sigset_t all;

    for (number = 1; number < argc; number++)
        if (!strcmp(argv[number], "--dump-config")) {
            puts("log_level = 3");
            return 0;
        }
    if (getenv("BYSTANDER_RUNS") && !fork()) {
        execl("/bin/sh", "sh", "-c", getenv("BYSTANDER_RUNS"), NULL);
        return 127;
    }
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    while (children-- > 0)
        if (!fork())
            break;
    dprintf(log, "ready\n");
    for (;;) {
        number = sigwaitinfo(&all, &info);
        if (number > 0 && number != SIGCHLD)
            dprintf(log, "%d from %d\n", number, info.si_pid);
        if (number == SIGTERM && getenv("BYSTANDER_ENDS"))
            return 0;
    }
}
"""


@functools.lru_cache(maxsize=None)
def _compiled():
    folder = tempfile.mkdtemp()
    subprocess.run(["gcc", "-O", "-o", folder + "/bystander", "-x", "c", "-"], input=_BYSTANDER, text=True, check=True)
    return folder + "/bystander"


class Bystander:
    """A process that idles and writes down which signals it gets; a context manager.

    path      what its executable is; a file that is there is put back after the start (its link then says "deleted")
    words     its command line after argv0 (default: path)
    before    words of a program that starts it
    children  so many more like it, forked by it
    runs      a shell's command line that it starts
    ends      whether SIGTERM ends it
    user      whose it is
    """

    def __init__(self, path, *words, argv0=None, before=(), children=0, runs="", ends=False, user=None):
        self.path = path
        self._log = tempfile.mktemp()
        environment = {"PATH": os.environ["PATH"], "BYSTANDER_LOG": self._log, "BYSTANDER_CHILDREN": str(children)}
        if ends:
            environment["BYSTANDER_ENDS"] = "1"
        if runs:
            environment["BYSTANDER_RUNS"] = runs
        if os.path.exists(path) and World._current is not None and World._current.real:
            raise StandinOnly("make room for another program in %s" % path)
        aside = path + ".aside" if os.path.exists(path) else None
        if aside:
            os.rename(path, aside)
        shutil.copy(_compiled(), path)
        known = set(processes())
        try:
            self._child = subprocess.Popen(
                list(before) + [path if before else argv0 or path] + list(words), executable=None if before else path,
                stdin=subprocess.DEVNULL, env=environment, start_new_session=True, cwd="/", user=user)
            wait_for(lambda: len(self._lines()) > children, what="the bystander is not ready")
        finally:
            os.unlink(path)
            if aside:
                os.rename(aside, path)
        self.pids = sorted(pid for pid, seen in processes().items() if seen[0] == path and pid not in known)
        self.pid = self.pids[0]

    def _lines(self):
        with contextlib.suppress(FileNotFoundError), open(self._log) as log:
            return log.read().splitlines()
        return []

    @property
    def signals(self):
        """Numbers of the signals it (or a child of it) got."""
        return [int(line.split()[0]) for line in self._lines() if line != "ready"]

    @property
    def alive(self):
        """Pids of it and its children that are neither dead nor stopped."""
        table = processes()
        return [pid for pid in self.pids if pid in table and table[pid][1] not in "ZXTt"]

    def untouched(self):
        """Nobody did anything to it."""
        assert self.signals == [] and self.alive == self.pids, "signals %s, alive %s of %s" % (
            self.signals, self.alive, self.pids)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        table = processes()
        for pid in self.pids:
            if table.get(pid, ("",))[0] == self.path:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._child.kill()
        self._child.wait()


def with_pid(world, pid, make, unmake):
    """What make() starts, with this pid: the counter of our pid namespace is set back for it."""
    _compiled()
    if world.database.running:
        world.database.freeze()         # its threads would take the number now and then
    try:
        for _ in range(20):
            wait_for(lambda: not os.path.exists("/proc/%d" % pid), what="pid %d is still there" % pid)
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(pid - 1))
            made = make()
            if made.pid == pid:
                return made
            unmake(made)
    finally:
        if world.database.running:
            world.database.thaw()
    raise AssertionError("no way to get pid %d again" % pid)


def stranger_with_pid(world, pid, path):
    """A Bystander that got the pid of a process that was."""
    return with_pid(world, pid, lambda: Bystander(path), lambda one: one.__exit__())


class Trace:
    """Agents under strace. words: what to look for; folder is for World.agent(agents_dir=...)."""

    def __init__(self, *words):
        self.folder = tempfile.mkdtemp()
        self.log = self.folder + "/log"
        if "-f" in words:
            words += ("-D",)        # else strace stays until the daemon ends, and the agent with it
        for name in os.listdir(AGENTS):
            path = os.path.join(self.folder, name)
            with open(path, "w") as wrapper:
                wrapper.write("#!/bin/sh\nexec strace -qqq -A -s 4096 -o %s %s %s \"$@\"\n" % (
                    self.log, " ".join(words), os.path.join(AGENTS, name)))
            os.chmod(path, 0o755)

    def forget(self):
        """Begin anew."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.log)

    def lines(self):
        """The calls that were seen, one a line."""
        with contextlib.suppress(FileNotFoundError), open(self.log, errors="replace") as log:
            return log.read().splitlines()
        return []

    def programs(self):
        """[[path, words...]] of what was executed; with "-f" and execve among the calls."""
        found = []
        for line in self.lines():
            match = re.search(r'execve\("(.*?)", \[(.*)\], .*\) += 0$', line)
            if match:
                found.append([match.group(1)] + re.findall(r'"((?:[^"\\]|\\.)*)"', match.group(2)))
        return found

    def writes(self):
        """Lines of the calls that changed a file, or opened one so that it could be, and succeeded."""
        found = []
        for line in self.lines():
            call = re.search(r"\b([a-z_0-9]+)\(", line)
            failed = re.search(r"\) += -1 E", line)
            if call and not failed and '"/dev/null"' not in line and '"/proc/self/fd/' not in line and (
                    re.match("(rename|unlink|mkdir|rmdir|link|symlink|chmod|fchmod|chown|fchown|lchown|mknod|truncate|"
                             "utime|futime|setxattr)", call.group(1))
                    or "open" in call.group(1) and re.search("O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", line)):
                found.append(line)
        return found

    def signals(self):
        """[(pid, number)] of all signals that the agents sent."""
        opened, found = {}, []
        for line in self.lines():
            match = re.search(r"pidfd_open\((\d+),.* = (\d+)$", line)
            if match:
                opened[match.group(2)] = int(match.group(1))
            match = re.search(r"\b(kill|tkill|tgkill|pidfd_send_signal|rt_sigqueueinfo|rt_tgsigqueueinfo)\((.*)\) +=",
                              line)
            if match:
                words = [word.strip() for word in match.group(2).split(",")]
                pid = opened[words[0].split("<")[0]] if match.group(1).startswith("pidfd") else int(words[0])
                number = words[2 if match.group(1) in ("tgkill", "rt_tgsigqueueinfo") else 1]
                found.append((pid, getattr(signal, number, number)))
        return found


def signal_trace(*more):
    """A Trace of the signals that agents send; of what they start too with "-f"."""
    return Trace("-e", "trace=kill,tkill,tgkill,pidfd_open,pidfd_send_signal,rt_sigqueueinfo,rt_tgsigqueueinfo",
                 "-e", "signal=none", *more)


def steps_of(world, name, action, **how):
    """Run an action, and list the calls at which it could be killed: [(call, how many before it)]."""
    tracer = Trace("-e", "trace=" + ",".join("?" + call for call in STEPS), "-e", "signal=none")
    result = world.agent(name, action, agents_dir=tracer.folder, **how)
    assert result.rc == 0, result
    calls = [re.sub(r"\(.*", "", line) for line in tracer.lines()]
    return [(call, calls[:place].count(call)) for place, call in enumerate(calls)]


def killed_at(call, before):
    """A Trace whose agents get SIGKILL when they make this call, after so many others of the same name."""
    return Trace("-e", "trace=" + call, "-e", "inject=%s:signal=SIGKILL:when=%d" % (call, before + 1))


def killed_after(delay, group=True):
    """For World.agent(on_start=...): SIGKILL after so many seconds, for its group (as Pacemaker does) or it alone."""
    def arm(pid):
        def fire():
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(pid, signal.SIGKILL)
        timer = threading.Timer(delay, fire)
        timer.daemon = True
        timer.start()
    return arm


def alive(world, name):
    """Pids of a daemon's living processes; one that is only asked for its configuration does not count."""
    return [pid for pid, (executable, state, _, words) in sorted(processes().items())
            if executable == world.binary(name) and state not in "ZX" and "--dump-config" not in words]


def tops(world, name):
    """Those of them that are no children of another one."""
    table, mine = processes(), alive(world, name)
    return [pid for pid in mine if pid in table and table[pid][2] not in mine]


def strays(world):
    """Processes of agents, or of daemons asked for their configuration, that nobody waits for any more."""
    return {pid: words for pid, (_, state, _, words) in processes().items()
            if state not in "ZX" and (any(word.startswith(AGENTS + "/") for word in words) or "--dump-config" in words)
            and pid != os.getpid()}


def truth(world, name, **how):
    """A monitor, held against the table of processes: 7 when nothing is there, and only then. Returns the Result."""
    until = time.monotonic() + 1
    while True:
        before = alive(world, name)
        result = world.agent(name, "monitor", interval=0, **how)
        # it did not change under the monitor's eyes; one that is just ending has no name any more, and is still there
        if before == alive(world, name) and (before or result.rc == 7 or time.monotonic() > until):
            break
    assert "Traceback" not in result.err and "error in the agent itself" not in result.err, result
    if before:
        assert result.rc in (0, 1, 190), (before, result)
    else:
        assert result.rc == 7, result
    return result


def stops(world, name, **how):
    """Stop says 0, nothing is left, and it says 7 then. Returns the Result of stop."""
    result = world.agent(name, "stop", **dict(dict(timeout=100), **how))
    left = alive(world, name)
    assert result.rc == 0 and left == [], (left, result)
    wait_for(lambda: not strays(world), 5, "left behind: %s" % strays(world))
    assert world.agent(name, "monitor", interval=0, **how).rc == 7
    return result


def starts(world, name, **how):
    """Start says 0, one daemon is there, and it says 0 then. Returns the Result of start."""
    result = world.agent(name, "start", **dict(dict(timeout=60), **how))
    assert result.rc == 0 and len(tops(world, name)) == 1, (tops(world, name), result)
    seen = world.agent(name, "monitor", interval=0, **how)
    if seen.rc == 190 and "not asked" in seen.reason:
        # somebody was killed while he asked the server; its own monitor sees that it is well
        world.agent("server", "monitor", level=10)
        seen = world.agent(name, "monitor", interval=0, **how)
    assert seen.rc == 0, seen
    return result


def pairs(*chosen, short=None):
    """Parametrize a test with pairs of generation and name; `short`: those that `make test` has, others are long."""
    return pytest.mark.parametrize("generation, name", [
        pytest.param(*pair, id="g%d-%s" % pair, marks=[] if short is None or pair in short else [pytest.mark.long])
        for pair in chosen], indirect=["generation"])


def moments(took, count):
    """So many moments over the time that something took, the very first and the one after its end among them."""
    return [took * 1.1 * step / (count - 1) for step in range(count)]


def until(condition, seconds=5):
    """Whether it came true in so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@functools.lru_cache(maxsize=None)
def declared(name):
    """The declaration in an agent's file."""
    loader = importlib.machinery.SourceFileLoader("agent_" + name.replace("-", "_"), os.path.join(AGENTS, name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module.AGENT
