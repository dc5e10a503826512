#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""No false alarm: monitors of all agents, again and again, on a healthy host that has hardly a moment to spare.

`make soak`, or soak.py [--server N] [--others N] [--minutes LIMIT]; as root, in the tests' sandbox. While more
processes compute than there are processors, memory is short, a disk is kept busy and Kopano's daemons serve
clients up to near their limits (load.py), every monitor has to say 0 and nothing else. In the end nothing may
be left: see inventory.py. Exit code 1 on any wrong verdict or leak, when not all monitors were run in time, and
when the load was less than it has to be (FLOORS and what is beside them). The result: build/soak.txt, soak.json.

MariaDB's data and the daemons' logs are on the file system of build/, the one that is kept busy. /run/kopano and the
agents' own files are in memory, as on any host.
"""
import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path[:0] = [path for path in (HERE, TESTS, os.path.join(TESTS, "bench")) if path not in sys.path]

import inventory  # noqa: E402
import sandbox  # noqa: E402
from cases import AGENTS, serving  # noqa: E402
from load import IDLE, IMAP, LMTP, PASSWORD, PIECE, SLOTS, SLOW, SOAP, USERS, WORKERS, Load, available  # noqa: E402
from measure import median  # noqa: E402
from webserver import apache  # noqa: E402
from world import DAEMONS, World, wait_for  # noqa: E402

LEVELS = (10, 20)
TIMEOUT = 30            # seconds, as all agents advise for their monitors
PARALLEL = 8            # monitors at a time
SHOWN = 20              # wrong verdicts that are told in full

# What the load has to come to at least, a second; two idle processors serve several times as much.
FLOORS = {"mails delivered": 1.0, "mails read": 0.5, "IMAP logins": 0.7, "SOAP calls": 3.0, "slow requests": 2.0,
          "pages": 0.1, "seconds of slow requests": SLOW - 2.0}      # in each a worker of kopano-server is held
WRITTEN = 1 << 20       # the same for bytes
BELOW = 2, 5            # kopano-server's workers and dagent's slots: so far below their limits at most, in the median
LEFT = 512 << 20        # bytes of memory that may be free beside those which are to be left, on average
COUNTED = (("server", "workers"), ("server", "sessions"), ("dagent", "clients"), ("gateway", "clients"))


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
        self.leaks, self.samples, self.pressure = [], collections.defaultdict(list), {}
        self.took = 0.0

    # -- the host

    def furnish(self):
        """All six daemons and webapp-health started by their agents; mailboxes; WebApp's configuration."""
        world = self.world
        world.write_config("ical", server_socket="file:///run/kopano/server.sock")
        serving(world)
        with contextlib.closing(world.database.connect()) as connection:    # as shipped, other than the tests' usual
            connection.cursor().execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
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
        assert not self.slots_are_free()
        before = inventory.settled(world)
        with self.load:
            begun, waited = time.monotonic(), pressure()
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
            self.pressure = {what: (total - waited[what]) / self.took for what, total in pressure().items()}
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
        told = time.monotonic()
        while not over.wait(0.5):
            with open("/proc/loadavg") as file:
                self.samples["running processes"].append(int(file.read().split()[3].partition("/")[0]))
            for name, what in () if self.world.real else COUNTED:      # real daemons have no counters
                with contextlib.suppress(OSError, ValueError, KeyError):
                    self.samples["%s's %s" % (name, what)].append(self.world.counters(name)[what])
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print("%6d of %d monitors, %d wrong; %.0f s left at most" % (
                    self.count(), len(self.schedule), len(self.wrong()), self.deadline - told), file=sys.stderr,
                    flush=True)

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

    def lacking(self):
        """What the load fell short of, in words: a host that is not busy proves nothing."""
        figures = self.load.figures()
        seconds = figures.get("seconds", 0) or 1
        lacking = ["%s: %.1f/s, to be %.1f/s at least" % (what, figures.get(what, 0) / seconds, floor)
                   for what, floor in {**FLOORS, "bytes written": WRITTEN}.items()
                   if figures.get(what, 0) / seconds < floor]
        counts = {"running processes": os.cpu_count() + 1}
        if not self.world.real:
            counts.update({"server's workers": WORKERS - BELOW[0], "dagent's clients": SLOTS - BELOW[1]})
        for what, floor in counts.items():
            if what not in self.samples:
                lacking.append("%s: not known" % what)
            elif self.middle(what) < floor:
                lacking.append("%s: %.0f (median), to be %d at least" % (what, self.middle(what), floor))
        # what others than this load have taken is as good
        if (figures.get("bytes available", 1 << 60) > self.load.leave + LEFT and
                figures.get("bytes held", 0) < self.load.memory - PIECE):
            lacking.append("memory: %d MB held on average, %d MB left" % (
                figures.get("bytes held", 0) >> 20, figures.get("bytes available", 0) >> 20))
        return lacking

    def middle(self, what):
        """Median of what was counted twice a second."""
        return median(self.samples[what])

    def result(self):
        """All figures, for programs."""
        load = self.load.figures()
        monitors = []
        for (name, level), figures in sorted(self.figures.items()):
            verdicts = collections.Counter("killed" if result.rc is None else result.rc for result in figures.wrong)
            verdicts[0] += len(figures.took) - len(figures.wrong)
            monitors.append({"agent": name, "depth": level, "runs": len(figures.took), "wrong": len(figures.wrong),
                             "verdicts": {str(code): count for code, count in verdicts.items()},
                             "cpu": median(figures.cpu), "median": median(figures.took), "95 %": most(figures.took),
                             "maximum": max(figures.took)})
        return {"good": self.good, "seconds": self.took, "planned": len(self.schedule), "run": self.count(),
                "wrong": len(self.wrong()), "monitors": monitors, "timeout": TIMEOUT, "parallel": PARALLEL,
                "processors": os.cpu_count(), "python": platform.python_version(),
                "file system": file_system(self.world.database.folder),
                "load": load, "at once": {what: {"median": self.middle(what), "maximum": max(samples)}
                                          for what, samples in self.samples.items()},
                "limits": {"server's workers": WORKERS, "dagent's clients": SLOTS},
                "pressure": self.pressure, "not served": dict(self.load.failures()), "lacking": self.lacking(),
                "left behind": self.leaks,
                "memory kB": {name: [held["%s: memory" % name] for held in (self.before, self.after)]
                              for name in DAEMONS}}

    def report(self):
        """The same for people."""
        found = self.result()
        lines = ["| monitor | runs | wrong | CPU ms, median | wall s, median | 95 % | slowest | of its timeout |",
                 "|---|--:|--:|--:|--:|--:|--:|--:|"]
        for row in found["monitors"]:
            lines.append("| %s, depth %d | %d | %d | %.1f | %.2f | %.2f | %.2f | %.0f %% |" % (
                row["agent"], row["depth"], row["runs"], row["wrong"], row["cpu"] * 1000, row["median"],
                row["95 %"], row["maximum"], row["maximum"] / TIMEOUT * 100))
        lines += ["", "%d of %d monitors in %.0f s, %d at a time; %d wrong." % (
            found["run"], found["planned"], found["seconds"], PARALLEL, found["wrong"])]
        if found["run"] < found["planned"]:
            lines.append("%d were not begun: time was up." % (found["planned"] - found["run"]))
        load, limits = found["load"], found["limits"]
        seconds = load.get("seconds", 0) or 1
        lines.append("Meanwhile, on %d processors:" % found["processors"])
        for what, counted in sorted(found["at once"].items()):
            limit = " (limit: %d)" % limits[what] if what in limits else ""
            lines.append("- %s: %.0f (median), %d at most%s" % (
                what, counted["median"], counted["maximum"], limit))
        lines += ["- %s: %d, %.1f/s" % (what, count, count / seconds) for what, count in sorted(load.items())
                  if what in FLOORS]
        lines.append("- memory: %d MB held on average, %d MB left on average, %d MB at least" % (
            load.get("bytes held", 0) >> 20, load.get("bytes available", 0) >> 20,
            load.get("bytes available at least", 0) >> 20))
        lines.append("- disk (%s; MariaDB's data and the daemons' logs are on it): %d MB written and synced" % (
            found["file system"], load.get("bytes written", 0) >> 20))
        lines.append("- somebody waited for: %s" % (", ".join(
            "%s %.0f %% of the time" % (what, share * 100) for what, share in sorted(found["pressure"].items())) or
            "unknown, the kernel has no /proc/pressure"))
        lines += ["Not served under this load: %d times %s" % (count, what)
                  for what, count in found["not served"].items()]
        lines += ["Less load than there has to be: %s" % words for words in found["lacking"]]
        lines.append("Left behind: %s." % ("; ".join(self.leaks) or "nothing"))
        for name, (before, after) in found["memory kB"].items():
            lines.append("Memory of kopano-%s before and after: %d kB, %d kB." % (name, before, after))
        lines.append("Good." if self.good else "NOT good.")
        return "\n".join(lines)

    @property
    def good(self):
        """Whether all monitors were run and none was wrong, nothing was left, and the load was what it should be."""
        return (self.count() == len(self.schedule) and not self.wrong() and not self.leaks and
                not self.load.failures() and not self.lacking())


def most(samples):
    """What 95 % of the samples stay below."""
    return statistics.quantiles(samples, n=20, method="inclusive")[-1] if len(samples) > 1 else samples[0]


def pressure():
    """{processor, disk or memory: seconds in which somebody waited for it, since the boot}; {} on old kernels."""
    found = {}
    for name, what in (("cpu", "a processor"), ("io", "a disk"), ("memory", "memory")):
        with contextlib.suppress(OSError), open("/proc/pressure/" + name) as file:
            found[what] = int(file.readline().rpartition("total=")[2]) / 1e6
    return found


def file_system(path):
    """Its type."""
    return subprocess.run(["stat", "-f", "-c", "%T", path], check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def host(folder):
    """A World that keeps what is a disk's on `folder`'s, with few workers in its server; and Apache."""
    place = tempfile.mkdtemp(prefix="soak-", dir=folder)
    os.chmod(place, 0o755)
    try:
        settings = {name: {"log_file": "%s/log/%s.log" % (place, name)} for name in DAEMONS}
        settings["server"].update(thread_limit=str(WORKERS), attachment_path=place + "/attachments")
        for name in ("log", "attachments"):
            os.mkdir("%s/%s" % (place, name))
            shutil.chown("%s/%s" % (place, name), "kopano", "kopano")
        with World(11, tls=True, settings=settings) as world, apache():
            world.database.folder = place + "/mysql"
            yield world
    finally:
        shutil.rmtree(place, ignore_errors=True)


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
    parser.add_argument("--leave", type=float, default=0.75, help="GB of memory that stay free (%(default)s)")
    words = parser.parse_args()
    if not sandbox.inside():
        if sandbox.missing():
            sys.exit("soak: no sandbox: " + sandbox.missing())
        sys.exit(sandbox.main([sys.executable] + sys.argv))
    folder = os.path.join(ROOT, "build")
    os.makedirs(folder, exist_ok=True)
    for name in ("soak.txt", "soak.json"):          # of another run
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    print("load: %d processes that compute, %d MB of memory, %d LMTP, %d IMAP and %d SOAP clients, a busy disk" % (
        os.cpu_count() + 2, max(0, available() - (int(words.leave * 1024) << 20)) >> 20, LMTP, IMAP + IDLE,
        SOAP + SLOW), file=sys.stderr, flush=True)
    begun = time.monotonic()
    with host(folder) as world:
        soak = Soak(world, schedule(words.server, words.others), words.minutes, burners=os.cpu_count() + 2,
                    leave=int(words.leave * 1024) << 20, memory=1 << 50, folder=folder)
        soak.furnish()
        soak.soak()
        result, text = soak.result(), soak.report()
    text += "\n%.0f minutes in all." % ((time.monotonic() - begun) / 60)
    print(text)
    with open(os.path.join(folder, "soak.txt"), "w") as file:
        file.write(text + "\n")
    with open(os.path.join(folder, "soak.json"), "w") as file:
        json.dump(result, file, indent=1)
    return 0 if result["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
