#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""No false alarm: monitors of all agents, again and again, on a healthy host that has hardly a moment to spare.

`make soak`, or soak.py [--server N] [--others N] [--minutes LIMIT]; as root, in the tests' sandbox. While more
processes compute than there are processors, memory is short, a disk is kept busy and Kopano's daemons serve
clients up to near their limits (load.py), every monitor has to say 0 and nothing else. In the end nothing may
be left: see inventory.py. Exit code 1 on any wrong verdict or leak.
"""
import argparse
import collections
import concurrent.futures
import contextlib
import os
import random
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path[:0] = [path for path in (HERE, TESTS, os.path.join(TESTS, "bench")) if path not in sys.path]

import inventory  # noqa: E402
import sandbox  # noqa: E402
from cases import AGENTS, serving  # noqa: E402
from load import IDLE, IMAP, LMTP, PASSWORD, SLOW, SOAP, USERS, Load, available  # noqa: E402
from measure import median  # noqa: E402
from world import DAEMONS, World, wait_for  # noqa: E402

LEVELS = (10, 20)
TIMEOUT = 30            # seconds, as all agents advise for their monitors
PARALLEL = 8            # monitors at a time; with the load's own clients dagent has slots for all of them
SLOTS = 20              # of dagent
SHOWN = 20              # wrong verdicts that are told in full


class Figures:
    """What the monitors of one agent at one depth came to."""

    def __init__(self):
        self.took, self.cpu, self.wrong = [], [], []

    def add(self, result):
        """One more Result; whether it is what a healthy service deserves."""
        self.took.append(result.took)
        self.cpu.append(result.cpu)
        if result.rc == 0 and not result.out and not result.err:
            return True
        self.wrong.append(result)
        return False


class Soak:
    """A host with all of Kopano in a World, under load while monitors run.

    schedule   [(agent, depth)] in the order in which they are to be run
    deadline   time.monotonic() at which no further monitor is begun
    """

    def __init__(self, world, schedule, minutes, **load):
        self.world, self.schedule, self.load = world, list(schedule), Load(**load)
        self.deadline = time.monotonic() + minutes * 60
        self.figures = collections.defaultdict(Figures)
        self.lock = threading.Lock()
        self.leaks, self.busiest, self.running = [], collections.Counter(), 0
        self.took = 0.0

    # -- the host

    def furnish(self):
        """All six daemons and webapp-health started by their agents; mailboxes; WebApp's configuration."""
        world = self.world
        world.write_config("ical", server_socket="file:///run/kopano/server.sock")
        serving(world)
        for user in USERS:
            if user not in world.users:
                world.add_user(user, PASSWORD)
        with open("/etc/kopano/soak.secret", "w") as file:
            os.chmod(file.name, 0o600)
            file.write(PASSWORD + "\n")

    def run(self, name, level):
        """Result of a monitor; gateway and ical log in at depth 20."""
        params = {"attribute": ""} if name == "webapp-health" else {}
        if name in ("gateway", "ical"):
            params = {"test_user": USERS[0], "test_password_file": "/etc/kopano/soak.secret"}
        return self.world.agent(name, "monitor", level=level, timeout=TIMEOUT, params=params)

    # -- monitors

    def soak(self, parallel=PARALLEL):
        """All of it: warm up, count what is held, run the schedule under load, count again."""
        world = self.world
        with Load():
            for name in AGENTS:
                for level in LEVELS * 2:
                    result = self.run(name, level)
                    assert result.rc == 0, (name, level, result)
            # daemons have once had as many clients as they will have
            wait_for(lambda: inventory.connections() >= 2 * (LMTP + IMAP + IDLE), 30, "no clients")
            self.slots_are_free()
        before = inventory.settled(world)
        begun = time.monotonic()
        with self.load:
            work = iter(self.schedule)
            with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
                over = threading.Event()
                watcher = threading.Thread(target=self.watch, args=(over,))
                watcher.start()
                try:
                    for done in [pool.submit(self.worker, work) for _ in range(parallel)]:
                        done.result()
                finally:
                    over.set()
                    watcher.join()
            self.took = time.monotonic() - begun
        after = inventory.settled(world, before)
        self.leaks = inventory.grown(before, after) + self.slots_are_free()
        self.before, self.after = before, after

    def worker(self, work):
        """Monitors one after the other, until the schedule is empty or time is up."""
        while time.monotonic() < self.deadline:
            with self.lock:
                entry = next(work, None)
            if entry is None:
                return
            result = self.run(*entry)
            with self.lock:
                good = self.figures[entry].add(result)
                wrong = sum(len(figures.wrong) for figures in self.figures.values())
            if not good and wrong <= SHOWN:
                print("WRONG: %s at depth %d: %r" % (entry + (result,)), file=sys.stderr, flush=True)

    def watch(self, over):
        """Keeps how busy the host was, and tells now and then how far things are."""
        told, samples = time.monotonic(), 0
        while not over.wait(0.5):
            samples += 1
            with open("/proc/loadavg") as file:
                self.running += int(file.read().split()[3].partition("/")[0])
            with contextlib.suppress(Exception):        # real daemons have no counters
                for name, what in (("server", "workers"), ("server", "sessions"), ("dagent", "clients"),
                                   ("gateway", "clients")):
                    key = "%s's %s" % (name, what)
                    self.busiest[key] = max(self.busiest[key], self.world.counters(name)[what])
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print("%6d of %d monitors, %d wrong; %.0f s left at most" % (
                    self.count(), len(self.schedule), len(self.wrong()), self.deadline - told), file=sys.stderr,
                    flush=True)
        self.running /= max(1, samples)

    def slots_are_free(self):
        """dagent greets as many clients at a time as it has slots; what is wrong with that, as a list."""
        def client(_):
            with contextlib.suppress(OSError):
                return self.world.hold("lmtp", timeout=20)

        with concurrent.futures.ThreadPoolExecutor(SLOTS) as pool:
            greeted = [one for one in pool.map(client, range(SLOTS)) if one and one.greeting.startswith(b"220")]
        for one in greeted:
            one.sendall(b"QUIT\r\n")
        self.world.release()
        free = len(greeted)
        return [] if free == SLOTS else ["dagent: slots that greet: %d -> %d" % (SLOTS, free)]

    # -- what came of it

    def count(self):
        """Monitors that have been run."""
        return sum(len(figures.took) for figures in self.figures.values())

    def wrong(self):
        """[(agent, depth, Result)] of all that were not 0, or said something."""
        return [entry + (result,) for entry, figures in self.figures.items() for result in figures.wrong]

    def report(self):
        """Text for people."""
        lines = ["| monitor | runs | wrong | CPU ms, median | wall s, median | slowest s | of its timeout |",
                 "|---|--:|--:|--:|--:|--:|--:|"]
        for (name, level), figures in sorted(self.figures.items()):
            lines.append("| %s, depth %d | %d | %d | %.1f | %.2f | %.2f | %.0f %% |" % (
                name, level, len(figures.took), len(figures.wrong), median(figures.cpu) * 1000,
                median(figures.took), max(figures.took), max(figures.took) / TIMEOUT * 100))
        lines += ["", "%d monitors in %.0f s, %d wrong." % (self.count(), self.took, len(self.wrong()))]
        if self.count() < len(self.schedule):
            lines.append("%d more were not begun: time was up." % (len(self.schedule) - self.count()))
        busiest = ", ".join("%s %d" % item for item in sorted(self.busiest.items()))
        lines.append("Meanwhile: %.0f processes running or runnable on %d processors; most at a time: %s; %s." % (
            self.running, os.cpu_count(), busiest, self.load.summary()))
        lines += ["Not served under this load: %d times %s" % (count, what)
                  for what, count in self.load.failures()]
        lines.append("Left behind: %s." % ("; ".join(self.leaks) or "nothing"))
        for name in DAEMONS:
            lines.append("Memory of kopano-%s before and after: %d kB, %d kB." % (
                name, self.before["%s: memory" % name], self.after["%s: memory" % name]))
        return "\n".join(lines)

    @property
    def good(self):
        """Whether no monitor was wrong, nothing was left behind, and the load was what it should be."""
        return not self.wrong() and not self.leaks and not self.load.failures() and self.count() > 0


def schedule(server, others, seed=0):
    """[(agent, depth)] at random: so many monitors of server, so many of each other agent; half at each depth."""
    numbers = {name: server if name == "server" else others for name in AGENTS}
    entries = [(name, LEVELS[turn % 2]) for name, count in numbers.items() for turn in range(count)]
    random.Random(seed).shuffle(entries)
    return entries


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--server", type=int, default=10000, help="monitors of server (%(default)s)")
    parser.add_argument("--others", type=int, default=2000, help="monitors of each other agent (%(default)s)")
    parser.add_argument("--minutes", type=float, default=120, help="no monitor is begun later (%(default)s)")
    parser.add_argument("--leave", type=float, default=4, help="GB of memory that stay free (%(default)s)")
    words = parser.parse_args()
    if not sandbox.inside():
        if sandbox.missing():
            sys.exit("soak: no sandbox: " + sandbox.missing())
        sys.exit(sandbox.main([sys.executable] + sys.argv))
    from webserver import apache
    folder = os.path.join(ROOT, "build")
    os.makedirs(folder, exist_ok=True)
    print("load: %d processes that compute, %d MB of memory, %d LMTP, %d IMAP and %d SOAP clients, a busy disk" % (
        os.cpu_count() + 2, max(0, available() - (int(words.leave * 1024) << 20)) >> 20, LMTP, IMAP + IDLE,
        SOAP + SLOW), file=sys.stderr, flush=True)
    with World(11, tls=True) as world, apache():
        soak = Soak(world, schedule(words.server, words.others), words.minutes, burners=os.cpu_count() + 2,
                    leave=int(words.leave * 1024) << 20, memory=1 << 50, folder=folder)
        soak.furnish()
        soak.soak()
        print(soak.report())
    return 0 if soak.good else 1


if __name__ == "__main__":
    sys.exit(main())
