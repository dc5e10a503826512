# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents killed at any moment, two at once, memory lost, foreign or not writable: the next action tells the truth.

A timeout kills an agent with SIGKILL, its process group with it; what it has started lives on.
"""
import contextlib
import os
import pwd
import random
import shutil
import subprocess
import time

import pytest

from world import DAEMONS, Result, processes, wait_for

from .looks import serve, together
from .rough import (killed_after, killed_at, moments, pairs, starts, steps_of, stops, strays, tops, truth, until)

PAIRS = [(8, "server"), (8, "dagent"), (9, "gateway"), (9, "ical"), (11, "server"), (11, "spooler"), (11, "monitor")]


# those three that differ most: one that forks, one with a database, one without a port
MOST_UNLIKE = ((8, "dagent"), (11, "server"), (11, "spooler"))


def behind(world, name):
    """What the daemon needs in order to serve, by hand."""
    if name in ("dagent", "spooler", "gateway", "ical") and world.main_pid("server") is None:
        world.up("server")


# ---- killed in the middle

@pairs(*PAIRS, short=MOST_UNLIKE)
def test_start_killed_at_any_moment(world, name):
    behind(world, name)
    took = starts(world, name).took
    stops(world, name)
    for step, moment in enumerate(moments(took, 5)):
        world.agent(name, "start", timeout=60, on_start=killed_after(moment, group=bool(step % 3)))
        truth(world, name)
        if step % 2:
            starts(world, name)
        stops(world, name)


@pairs((8, "dagent"), (11, "spooler"), short=[(8, "dagent")])
def test_start_killed_at_each_step_of_its_own(world, name):
    """The same, not by the clock: at each of the calls by which it changes something."""
    behind(world, name)
    steps = steps_of(world, name, "start", timeout=60)
    stops(world, name)
    assert len(steps) > 8
    for number, step in enumerate(steps):
        assert world.agent(name, "start", timeout=60, agents_dir=killed_at(*step).folder).rc in (-9, 0)
        truth(world, name)
        if number % 3 == 0:
            starts(world, name)
        stops(world, name)


@pytest.mark.parametrize("call", ["mkdir", "fchown", "fchmod", "rename"])
def test_start_killed_while_it_makes_the_run_directory(world11, call):
    """After a reboot: the next start finds it as it should be, or makes it."""
    shutil.rmtree(world11.run)
    assert world11.agent("monitor", "start", agents_dir=killed_at(call, 0).folder).rc == -9
    starts(world11, "monitor")
    seen, user = os.stat(world11.run), pwd.getpwnam("kopano")
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (user.pw_uid, user.pw_gid, 0o775)
    stops(world11, "monitor")


@pairs(*PAIRS, short=MOST_UNLIKE)
def test_stop_killed_at_any_moment(world, name):
    behind(world, name)
    starts(world, name)
    took = stops(world, name).took
    for step, moment in enumerate(moments(took, 4)):
        starts(world, name)
        world.agent(name, "stop", timeout=60, on_start=killed_after(moment, group=bool(step % 2)))
        truth(world, name)
        if step % 2:
            stops(world, name)
    stops(world, name)


@pairs((8, "dagent"), (11, "gateway"), short=[(11, "gateway")])
def test_stop_killed_at_each_step_of_its_own(world, name):
    behind(world, name)
    starts(world, name)
    steps = steps_of(world, name, "stop", timeout=60)
    assert "pidfd_send_signal" in dict(steps)
    for step in steps:
        starts(world, name)
        assert world.agent(name, "stop", timeout=60, agents_dir=killed_at(*step).folder).rc in (-9, 0)
        truth(world, name)
        stops(world, name)


def draining(world, seconds):
    """A dagent with a client that idles, told to end by a stop that was killed; it drains so many seconds."""
    world.up("server")
    world.fault("dagent", "drain", seconds)
    starts(world, "dagent")
    world.hold("lmtp")
    main = world.main_pid("dagent")
    world.agent("dagent", "stop", timeout=60, on_start=killed_after(0.7))
    wait_for(lambda: "stopping\n" in caught(main), 5, "it was not told to end")
    return main


def caught(pid):
    """"stopping" when the daemon's one-shot handler of SIGTERM is used up, "" when it is not."""
    with open("/proc/%d/status" % pid) as status:
        mask = int(next(line for line in status if line.startswith("SigCgt")).split()[1], 16)
    return "" if mask >> 14 & 1 else "stopping\n"


def test_a_second_stop_does_not_cut_the_drain_short(world11):
    """The second SIGTERM kills at once: it has to wait for the drain that a killed stop began."""
    draining(world11, 4)
    begun = time.monotonic()
    stops(world11, "dagent")
    assert time.monotonic() - begun > 1.5
    assert "Forced shutdown" in world11.last_words("dagent")


def test_a_start_during_a_drain_waits_for_it(world11):
    """The daemon that is there is on its way out; the start is not over before there is another one."""
    main = draining(world11, 3)
    starts(world11, "dagent")
    assert world11.main_pid("dagent") != main
    world11.release()
    stops(world11, "dagent")


@pairs((8, "dagent"), (9, "gateway"), (9, "ical"), (11, "server"), (11, "dagent"), (11, "spooler"), (11, "monitor"))
def test_monitor_killed_at_any_moment(site, name):
    took = site.agent(name, "monitor", level=20).took
    before = site.pids(name)
    for step, moment in enumerate(moments(took, 8)):
        site.agent(name, "monitor", level=20, on_start=killed_after(moment, group=bool(step % 2)))
        seen = site.agent(name, "monitor", level=10)
        # a check of the server that got no answer keeps others from asking, until the server's own monitor has looked
        assert seen.rc == 0 or seen.rc == 190 and "not asked" in seen.reason, seen
    assert site.agent("server", "monitor", level=10).rc == 0
    assert site.agent(name, "monitor", level=20).rc == 0
    wait_for(lambda: site.pids(name) == before, what="children whose client was killed")
    assert not strays(site)


def test_killed_monitors_leave_no_slot_of_dagent_taken(world11):
    serve(world11, "server", "dagent")
    took = world11.agent("dagent", "monitor").took
    for moment in moments(took, 8):
        world11.agent("dagent", "monitor", on_start=killed_after(moment))
        world11.agent("server", "monitor", level=10)
    wait_for(lambda: world11.counters("dagent")["clients"] == 0, 5, "slots are taken")


def test_a_killed_check_of_the_web_page_leaves_no_child(world11):
    """A page that never comes: the child that fetches it ends with its agent's time at the latest."""
    import socket
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 80))
        listener.listen(5)
        assert world11.agent("webapp-health", "start", timeout=3).rc == 0
        for group in (True, False):
            world11.agent("webapp-health", "monitor", timeout=3, on_start=killed_after(1.5, group=group))
            assert until(lambda: not strays(world11), 0.5 if group else 4), strays(world11)
        assert world11.agent("webapp-health", "monitor", timeout=3).rc == 190
    assert world11.agent("webapp-health", "stop").rc == 0
    assert world11.agent("webapp-health", "monitor").rc == 7


@pytest.mark.parametrize("generation", [8], indirect=True, ids=["g8"])
@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "not remembered"])
def test_children_whose_daemon_is_a_zombie(world, remembered):
    """Nobody collects the daemon: what serves a client still is no daemon all the same, and has to be stopped first."""
    world.up("server")
    started = world.start_daemon("dagent", reap=False)
    world.wait_ready("dagent")
    world.hold("lmtp")
    child = wait_for(lambda: [pid for pid in world.pids("dagent") if pid not in tops(world, "dagent")][1:], 5)[-1]
    if remembered:
        assert world.agent("dagent", "monitor").rc == 0
    os.kill(started.pid, 9)
    wait_for(lambda: started.pid not in world.pids("dagent"))
    seen = world.agent("dagent", "monitor")
    assert seen.rc == 1 and ("zombie" in seen.reason if remembered else "children live" in seen.reason
                             and str(child) in seen.reason), seen
    assert world.agent("dagent", "start").rc == 1
    stops(world, "dagent", params={"stop_escalate": "1"})
    started.reap()


# ---- two at once

@pairs((8, "dagent"), (8, "spooler"), (9, "ical"), (11, "server"), (11, "spooler"), (11, "monitor"))
@pytest.mark.parametrize("memory", ["kept", "lost"])
def test_two_starts_make_one_daemon(world, name, memory):
    behind(world, name)
    if memory == "lost":
        shutil.rmtree(world.rsctmp)
    both = together(*[lambda: world.agent(name, "start", timeout=60)] * 2)
    assert [result.rc for result in both] == [0, 0] and len(tops(world, name)) == 1, (both, tops(world, name))
    assert world.agent(name, "monitor").rc == 0
    stops(world, name)


@pairs((8, "dagent"), (11, "spooler"), (11, "server"))
def test_start_and_stop_at_once(world, name):
    """Whoever comes first: no two daemons, none that nobody knows, and both end."""
    behind(world, name)
    for step in range(4):
        begin, end = together(lambda: world.agent(name, "start", timeout=60),
                              lambda: (time.sleep(0.12 * step), world.agent(name, "stop", timeout=60))[1])
        assert begin.rc in (0, 1) and end.rc == 0, (begin, end)
        assert len(tops(world, name)) <= 1
        truth(world, name)
        if step % 2:
            starts(world, name)
        stops(world, name)


@pairs((8, "spooler"), (9, "gateway"), (11, "dagent"))
def test_monitor_and_stop_at_once(world, name):
    behind(world, name)
    for step in range(3):
        starts(world, name)
        seen, end = together(lambda: world.agent(name, "monitor"),
                             lambda: (time.sleep(0.04 * step), world.agent(name, "stop", timeout=60))[1])
        assert seen.rc in (0, 1, 7, 190) and end.rc == 0 and world.pids(name) == [], (seen, end)
        assert "error in the agent" not in seen.err
        assert truth(world, name).rc == 7


@pairs((8, "dagent"), (11, "server"))
def test_two_stops_at_once(world, name):
    behind(world, name)
    starts(world, name)
    both = together(*[lambda: world.agent(name, "stop", timeout=60)] * 2)
    assert [result.rc for result in both] == [0, 0] and world.pids(name) == []
    assert truth(world, name).rc == 7


def test_two_stops_at_once_let_the_daemon_drain(world11):
    world11.up("server")
    world11.fault("dagent", "drain", 2)
    starts(world11, "dagent")
    world11.hold("lmtp")
    first, second = together(lambda: world11.agent("dagent", "stop", timeout=60),
                             lambda: (time.sleep(0.5), world11.agent("dagent", "stop", timeout=60))[1])
    assert (first.rc, second.rc) == (0, 0) and first.took > 1.8, (first, second)
    assert "Forced shutdown" in world11.last_words("dagent")


# ---- what is remembered

def state_file(world, name):
    """Path of what the agent remembers of this daemon."""
    found = [entry for entry in os.listdir(world.rsctmp)
             if entry.startswith("kopano-ocf-%s-" % name) and not entry.endswith((".lock", ".sessions"))]
    assert len(found) == 1, found
    return os.path.join(world.rsctmp, found[0])


def replaced(path, **values):
    """Write a state file anew, with other values of its own; None takes one away."""
    with open(path) as file:
        lines = dict(line.split(" ", 1) for line in file.read().splitlines()[1:-1])
    lines.update(values)
    with open(path, "w") as file:
        file.write("kopano-ocf-state 1\n" + "".join(
            "%s %s\n" % item for item in lines.items() if item[1] is not None) + "end\n")


def _bytes(data):
    def spoil(path):
        with open(path, "wb") as file:
            file.write(data)
    return spoil


def _cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def _header(text):
    def spoil(path):
        with open(path) as file:
            rest = file.read().split("\n", 1)[1]
        with open(path, "w") as file:
            file.write(text + "\n" + rest)
    return spoil


def _given_away(path):
    shutil.chown(path, "kopano", "kopano")


def _instead(make):
    def spoil(path):
        os.unlink(path)
        make(path)
    return spoil


def _link_to_copy(path):
    shutil.move(path, "/tmp/state")
    os.symlink("/tmp/state", path)


SPOILED = {
    "empty": _bytes(b""), "garbage": _bytes(bytes(range(256)) * 20), "huge": _bytes(b"x" * 3000000),
    "older": _header("kopano-ocf-state 0"), "newer": _header("kopano-ocf-state 2"), "cut": _cut,
    "foreign": _given_away, "directory": _instead(os.mkdir), "fifo": _instead(os.mkfifo), "link": _link_to_copy,
    "dangling link": _instead(lambda path: os.symlink("/nonexistent/x", path)),
    "full directory": _instead(lambda path: os.makedirs(path + "/x")),
    "numbers that are none": lambda path: replaced(
        path, pid="nan", start="\xb2", looks10="inf", looks20="1e999", since="-nan", looks="\xb3", without="nan",
        stopping="inf"),
    "superscript pid": lambda path: replaced(path, pid="\xb2"),
    "nonsense": lambda path: replaced(path, endpoints="x y z", server="bogus", file="0", counters="\x00\xff"),
    "a dead pid": lambda path: replaced(path, pid="4194304"),
    "a reused pid": lambda path: replaced(path, pid="1"),
    "another configuration": lambda path: replaced(path, config="/etc/kopano/other.cfg"),
    "another boot": lambda path: replaced(path, boot="6e2ff1ae-0000-0000-0000-000000000000"),
}


@pairs((8, "dagent"), (11, "monitor"))
def test_a_spoiled_memory_misleads_nobody(site, name):
    pids = site.pids(name)
    for kind, spoil in sorted(SPOILED.items()):
        path = state_file(site, name)
        spoil(path)
        for level in (0, 20):
            seen = site.agent(name, "monitor", level=level)
            assert seen.rc == 0 and seen.err == "", (kind, seen)
        if kind in ("garbage", "directory", "nonsense", "numbers that are none"):
            assert site.agent(name, "reload").rc == 0, kind
            assert site.agent(name, "start", timeout=60).rc == 0 and site.pids(name) == pids, kind
        if os.path.isdir(path):
            shutil.rmtree(path)
            assert site.agent(name, "monitor").rc == 0


@pytest.mark.parametrize("kind", sorted(SPOILED))
def test_a_spoiled_memory_does_not_stop_a_stop(world11, kind):
    starts(world11, "monitor")
    SPOILED[kind](state_file(world11, "monitor"))
    result = world11.agent("monitor", "stop", timeout=20)
    assert result.rc == 0 and result.took < 5 and world11.pids("monitor") == [], result
    assert world11.agent("monitor", "monitor").rc == 7


@pytest.mark.parametrize("kind", ["empty", "garbage", "cut", "foreign", "directory", "fifo", "dangling link", "newer"])
def test_a_spoiled_memory_of_the_page_check(world11, kind):
    """What it remembers is all there is of it: without that it was not started."""
    assert world11.agent("webapp-health", "start").rc == 0
    assert world11.agent("webapp-health", "monitor", level=0).rc == 0
    SPOILED[kind](state_file(world11, "webapp-health"))
    assert world11.agent("webapp-health", "monitor", level=0).rc == 7
    assert world11.agent("webapp-health", "stop").rc == 0
    assert world11.agent("webapp-health", "monitor", level=0).rc == 7


# ---- nowhere to remember

@contextlib.contextmanager
def tmpfs(path, options, fill=False):
    """A small file system, full when `fill` is set."""
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755," + options, "tmpfs", path], check=True)
    try:
        if fill:
            with contextlib.suppress(OSError), open(path + "/ballast", "wb") as ballast:
                while True:
                    ballast.write(b"x" * 4096)
                    ballast.flush()
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def _removed(world):
    shutil.rmtree(world.rsctmp)


def _read_only(world):
    subprocess.run(["mount", "--bind", world.rsctmp, world.rsctmp], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", world.rsctmp], check=True)


def _a_file(world):
    shutil.rmtree(world.rsctmp)
    with open(world.rsctmp, "w"):
        pass


def _kopanos(world):
    shutil.chown(world.rsctmp, "kopano", "kopano")


def _full(world):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=16k", "tmpfs", world.rsctmp], check=True)
    with contextlib.suppress(OSError), open(world.rsctmp + "/ballast", "wb") as ballast:
        while True:
            ballast.write(b"x" * 4096)
            ballast.flush()


def _no_inodes(world):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,nr_inodes=2", "tmpfs", world.rsctmp], check=True)
    with contextlib.suppress(OSError):
        for number in range(9):
            with open("%s/%d" % (world.rsctmp, number), "w"):
                pass


PLACES = {"removed": _removed, "read-only": _read_only, "a file": _a_file, "kopano's": _kopanos, "full": _full,
          "no inodes": _no_inodes}


@contextlib.contextmanager
def spoiled_place(world, kind):
    """HA_RSCTMP in this condition; as before afterwards."""
    PLACES[kind](world)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", world.rsctmp], stderr=subprocess.DEVNULL)
        if os.path.isfile(world.rsctmp):
            os.unlink(world.rsctmp)
        os.makedirs(world.rsctmp, exist_ok=True)
        shutil.chown(world.rsctmp, "root", "root")
        os.chmod(world.rsctmp, 0o1755)


@pytest.mark.parametrize("kind, generation, name", [
    pytest.param(kind, generation, name, id="%s-g%d-%s" % (kind, generation, name),
                 marks=[] if number % 2 == (generation == 11) else [pytest.mark.long])
    for number, kind in enumerate(sorted(PLACES)) for generation, name in ((8, "dagent"), (11, "spooler"))],
    indirect=["generation"])
def test_without_a_place_to_remember(world, name, kind):
    """Lost while it runs, and lost before it starts."""
    behind(world, name)
    starts(world, name)
    with spoiled_place(world, kind):
        assert world.agent(name, "monitor", level=20).rc == 0
        starts(world, name)
        stops(world, name)
        both = together(*[lambda: world.agent(name, "start", timeout=60)] * 2)
        assert [result.rc for result in both] == [0, 0] and len(tops(world, name)) == 1, (both, tops(world, name))
        assert world.agent(name, "reload").rc == 0
        world.kill_daemon(name)
        assert world.agent(name, "monitor").rc == 7
        starts(world, name)
    stops(world, name)


@pytest.mark.parametrize("kind", sorted(PLACES))
def test_the_page_check_without_a_place_to_remember(world11, kind):
    """It says so and does not claim to be started; a directory that is merely missing is made."""
    with spoiled_place(world11, kind):
        begun = world11.agent("webapp-health", "start")
        assert begun.rc == (0 if kind == "removed" else 1), begun
        if begun.rc:
            assert "can't be written" in begun.reason
        assert world11.agent("webapp-health", "monitor", level=0).rc == (7 if begun.rc else 0)
        assert world11.agent("webapp-health", "stop").rc == 0


@pytest.mark.parametrize("value", [None, "", "relative/path", "/nonexistent/a/b", "/proc/self/x", "/dev/null",
                                   "/" + "x" * 5000])
def test_other_places_to_remember(world11, value):
    how = {"env": {"HA_RSCTMP": value}}
    starts(world11, "monitor", **how)
    assert world11.agent("monitor", "start", **how).rc == 0 and len(tops(world11, "monitor")) == 1
    stops(world11, "monitor", **how)


def test_a_full_disk_under_everything(world11):
    """State, log file and pipe to Pacemaker's log alike: said is what can be said, without a traceback."""
    world11.up("server")
    with tmpfs("/run/small", "size=32k") as small:
        how = {"env": {"HA_RSCTMP": small, "HA_LOGFILE": small + "/ha.log", "HA_DEBUGLOG": small + "/debug.log",
                       "HA_debug": "1"}}
        with contextlib.suppress(OSError), open(small + "/ballast", "wb") as ballast:
            while True:
                ballast.write(b"x" * 4096)
                ballast.flush()
        for name in ("dagent", "monitor"):
            assert world11.agent(name, "start", timeout=60, **how).rc == 0
            world11.kill_daemon(name)
            seen = world11.agent(name, "monitor", **how)
            assert seen.rc == 7 and seen.err.count("\n") == 1, seen
            bad = world11.agent(name, "start", params={"stop_escalate": "x"}, **how)
            assert bad.rc == 6 and bad.err.count("\n") == 1, bad
            assert world11.agent(name, "stop", **how).rc == 0


# ---- clocks

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) { char *text = getenv("CLOCK_AHEAD"); return text ? atol(text) : 0; }
int clock_gettime(clockid_t id, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (id == CLOCK_REALTIME)
        now->tv_sec += ahead();
    return result;
}
time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.mark.parametrize("years", [-20, 30])
def test_the_wall_clock_jumps(world11, tmp_path, years):
    """A node that got its time only now: what is remembered has not aged, nobody died."""
    shim = str(tmp_path / "clock.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, "-x", "c", "-"], input=CLOCK, text=True, check=True)
    world11.write_config("server", server_listen_tls=None)      # its certificate really has no date to hope for
    serve(world11, "server", "spooler", "dagent")
    pids = [world11.pids(name) for name in ("server", "spooler", "dagent")]
    later = {"env": {"LD_PRELOAD": shim, "CLOCK_AHEAD": str(years * 31557600)}}
    for how in (later, {}):
        for name in ("server", "spooler", "dagent"):
            for level in (10, 20):
                seen = world11.agent(name, "monitor", level=level, **how)
                assert seen.rc == 0 and seen.err == "", seen
    assert pids == [world11.pids(name) for name in ("server", "spooler", "dagent")]
    stops(world11, "spooler", **later)


def test_another_count_of_the_monotonic_clock(world11, tmp_path):
    """Remembered start times and samples that mean nothing any more, as in a time namespace of its own."""
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("this kernel has no time namespaces")
    for name in DAEMONS:
        with open(str(tmp_path / name), "w") as wrapper:
            wrapper.write("#!/bin/sh\nexec unshare --time --monotonic 864000 --boottime 864000 %s \"$@\"\n"
                          % os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "agents", name))
        os.chmod(str(tmp_path / name), 0o755)
    serve(world11, "server", "spooler")
    pids = world11.pids("spooler")
    for folder in (str(tmp_path), None, str(tmp_path)):
        for level in (0, 10, 20):
            seen = world11.agent("spooler", "monitor", level=level, agents_dir=folder)
            assert seen.rc == 0, (folder, seen)
        assert world11.agent("spooler", "start", agents_dir=folder).rc == 0 and world11.pids("spooler") == pids
    stops(world11, "spooler", agents_dir=str(tmp_path))


# ---- all of it

def test_a_bad_day(world11):
    """Actions in any order, many of them killed: what a monitor says is what is there, all the time."""
    world11.up("server")
    choice = random.Random(11)
    for _ in range(12):
        name = choice.choice(("dagent", "spooler", "gateway"))
        action = choice.choice(("start", "start", "stop", "reload", "monitor"))
        moment = choice.choice((None, choice.uniform(0.02, 0.5)))
        result = world11.agent(name, action, timeout=60, on_start=killed_after(moment) if moment else None)
        assert isinstance(result, Result) and result.rc in (0, 1, 7, 190, -9), result
        truth(world11, name)
        assert len(tops(world11, name)) <= 1
        if result.rc == 0 and action in ("start", "stop"):
            assert bool(processes().get(world11.main_pid(name) or 0)) == (action == "start")
    for name in ("dagent", "spooler", "gateway"):
        stops(world11, name)
