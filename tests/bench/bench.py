#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What an action costs, beside ocf:heartbeat:dummypy, the upstream agent in Python that does nothing.

`make bench`, or bench.py [--rounds N] [--write]. All commands run once a round in an order that changes, so
that a busy machine is unfair to none; ratios are of medians. CPU is that of the agent and its children, not
of the daemons, which are the tests' stand-ins of generation 11. Exit code 1 when a target is missed.
"""
import argparse
import os
import platform
import select
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path.insert(0, TESTS)

import sandbox  # noqa: E402
from measure import Case, interleaved, median, tenth  # noqa: E402

DAEMONS = ("server", "dagent", "spooler", "gateway", "ical", "monitor")
AGENTS = DAEMONS + ("webapp-health",)
BASELINE = "dummypy monitor"
SLEEPERS = 3000
STARTS = 9
# ratios of CPU to the baseline's, and seconds
LIMIT = {"0": 0.4, "10": 0.6, "20": None, "TLS": 1.0, "meta-data": 0.6, "webapp-health": 4.0}
START_LIMIT, STOP_LIMIT = 0.2, 0.1


class Table:
    """Rows of text under a title, for a terminal and for Markdown."""

    def __init__(self, title, *columns):
        self.title, self.columns, self.rows = title, columns, []

    def add(self, *cells):
        """One more row."""
        self.rows.append([str(cell) for cell in cells])

    def text(self):
        """The table as people read it in a terminal or as Markdown."""
        lines = [list(self.columns)] + self.rows
        width = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]

        def line(cells):
            figures = [cell.rjust(size) for cell, size in zip(cells[1:], width[1:])]
            return "| %s |" % " | ".join([cells[0].ljust(width[0])] + figures)

        rule = "|%s|" % "|".join(["-" * (width[0] + 2)] + ["-" * (size + 1) + ":" for size in width[1:]])
        return "\n".join(["## " + self.title, "", line(lines[0]), rule] + [line(row) for row in self.rows])


class Bench:
    """All measurements, one after the other, in one sandbox."""

    def __init__(self, rounds):
        self.rounds = rounds
        self.missed = []
        self.tables = []

    def judge(self, value, limit, what):
        """How a figure compares with its target."""
        if limit is None:
            return ""
        if value > limit:
            self.missed.append("%s: %.3g, target %g" % (what, value, limit))
            return "%g missed" % limit
        return "%g" % limit

    # -- cases

    @staticmethod
    def environment(world, name, action, level=None, **parameters):
        """Variables as Pacemaker sets them."""
        variables = {
            "PATH": world.sbin + ":/usr/sbin:/usr/bin:/sbin:/bin",
            "OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1",
            "OCF_RESOURCE_INSTANCE": "kopano-" + name, "OCF_RESOURCE_TYPE": name,
            "OCF_RESOURCE_PROVIDER": "kopano", "OCF_RESKEY_crm_feature_set": "3.16.2",
            "HA_RSCTMP": world.rsctmp, "OCF_RESKEY_CRM_meta_name": action,
            "OCF_RESKEY_CRM_meta_timeout": "30000",
            "OCF_RESKEY_CRM_meta_interval": "10000" if action == "monitor" else "0", "HA_debug": "0",
            "HA_logfacility": "none", "PCMK_logfacility": "none",
        }
        if level is not None:
            variables["OCF_CHECK_LEVEL"] = level
        variables.update(("OCF_RESKEY_" + key, value) for key, value in parameters.items())
        return variables

    def agent(self, world, name, action, level=None, title=None, **parameters):
        """A case: one of our agents."""
        return Case(title or "%s %s%s" % (name, action, " depth " + level if level else ""),
                    [os.path.join(ROOT, "agents", name), action],
                    self.environment(world, name, action, level, **parameters))

    def dummypy(self, world, title=BASELINE):
        """A case: the baseline; its resource is started."""
        words = ["/usr/lib/ocf/resource.d/heartbeat/dummypy", "monitor"]
        environment = self.environment(world, "dummypy", "monitor", state=world.rsctmp + "/dummypy.state")
        subprocess.run([words[0], "start"], env=environment, check=True)
        return Case(title, words, environment)

    # -- what an action costs

    def actions(self, host):
        """CPU and wall of every action, with plain endpoints."""
        with self.started(host()) as world:
            baseline = self.dummypy(world)
            floor = Case("python3 -IS -c pass", ["/usr/bin/python3", "-IS", "-c", "pass"], {})
            shell = Case("ocf:heartbeat:Dummy monitor (shell)",
                         ["/usr/lib/ocf/resource.d/heartbeat/Dummy", "monitor"],
                         self.environment(world, "Dummy", "monitor"), expected=7)
            cases = [(self.agent(world, name, "monitor", level), LIMIT[level])
                     for level in ("0", "10", "20") for name in DAEMONS]
            cases += [(self.agent(world, "webapp-health", "monitor", level, attribute=""),
                       LIMIT["webapp-health"]) for level in ("0", "10")]
            cases += [(self.agent(world, name, "meta-data"), LIMIT["meta-data"]) for name in AGENTS]
            cases += [(self.agent(world, name, "validate-all", level), None)
                      for name in ("server", "gateway") for level in ("0", "10")]
            subprocess.run([os.path.join(ROOT, "agents/webapp-health"), "start"], check=True,
                           env=self.environment(world, "webapp-health", "start", attribute=""))
            interleaved([baseline, floor, shell] + [case for case, _ in cases], self.rounds)
            self.costs("One action, plain endpoints", baseline, [(floor, None), (shell, None)] + cases)
            # a round at the advised intervals' deepest: depth 10 of all seven
            whole = sum(median(case.cpu) for case, _ in cases if case.name.endswith("monitor depth 10"))
            self.tables[-1].add("all seven monitors at depth 10", "%.1f" % (whole * 1000), "", "",
                                "%.2f" % (whole / median(baseline.cpu)), "")

    def tls(self, host):
        """CPU and wall of depth 10 with TLS endpoints beside the plain ones."""
        with self.started(host(tls=True)) as world:
            baseline = self.dummypy(world)
            cases = [(self.agent(world, name, "monitor", "10", name + " monitor depth 10, with TLS"),
                      LIMIT["TLS"]) for name in ("server", "gateway", "ical")]
            interleaved([baseline] + [case for case, _ in cases], self.rounds)
            self.costs("One action, plain and TLS endpoints", baseline, cases)

    def costs(self, title, baseline, cases):
        """A table of costs, ratios first to be judged."""
        table = Table(title, "action", "CPU ms", "p10", "wall ms", "ratio", "target")
        for case, limit in [(baseline, None)] + cases:
            ratio = median(case.cpu) / median(baseline.cpu)
            table.add(case.name, "%.1f" % (median(case.cpu) * 1000), "%.1f" % (tenth(case.cpu) * 1000),
                      "%.1f" % (median(case.wall) * 1000), "%.2f" % ratio,
                      self.judge(ratio, limit, case.name))
        self.tables.append(table)

    def growth(self, host):
        """Depth 10 with thousands of processes on the node: a good pid needs no scan."""
        with self.started(host()) as world:
            few = [self.dummypy(world)] + [self.agent(world, name, "monitor", "10") for name in DAEMONS]
            many = [self.dummypy(world)] + [self.agent(world, name, "monitor", "10") for name in DAEMONS]
            interleaved(few, self.rounds)
            pids = [os.posix_spawn("/bin/sleep", ["sleep", "600"], {}) for _ in range(SLEEPERS)]
            try:
                interleaved(many, self.rounds)
            finally:
                for pid in pids:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
        table = Table("Depth 10 beside %d sleeping processes" % SLEEPERS, "action",
                      "CPU ms without", "CPU ms with", "ratio without", "ratio with")
        for one, other in zip(few, many):
            table.add(one.name, "%.1f" % (median(one.cpu) * 1000), "%.1f" % (median(other.cpu) * 1000),
                      "%.2f" % (median(one.cpu) / median(few[0].cpu)),
                      "%.2f" % (median(other.cpu) / median(many[0].cpu)))
        self.tables.append(table)

    # -- how long start and stop take beyond the daemon itself

    def overshoot(self, host):
        """start's return after the first moment of service, stop's after the end of the last process."""
        table = Table("Time that start and stop add (%d runs each)" % STARTS, "daemon",
                      "serves after s", "start adds s", "most", "target",
                      "gone after s", "stop adds s", "most", "target")
        with host() as world:
            world.database.start()
            for name in DAEMONS:
                self.once_more(world, name, "start")
                world.wait_ready(name)
                self.once_more(world, name, "stop")
                starts, stops = [], []
                for _ in range(STARTS):
                    starts.append(self.timed_start(world, name))
                    stops.append(self.timed_stop(world, name))
                self.once_more(world, name, "start")
                world.wait_ready(name)
                row = [name]
                for samples, limit, what in ((starts, START_LIMIT, "start"), (stops, STOP_LIMIT, "stop")):
                    added = [sample[1] for sample in samples]
                    row += ["%.3f" % median([sample[0] for sample in samples]),
                            "%.3f" % median(added), "%.3f" % max(added),
                            self.judge(max(added), limit, "%s of %s" % (what, name))]
                table.add(*row)
        self.tables.append(table)

    def once_more(self, world, name, action):
        """Runs an action to its good end."""
        result = world.agent(name, action, timeout=60)
        assert result.rc == 0, result

    def timed_start(self, world, name):
        """(seconds to the first good answer, seconds from there to start's return)"""
        begin = time.monotonic()
        over, served = threading.Event(), []

        def watch():
            while not over.is_set() or not served:
                if world.main_pid(name) is not None and world.ready(name):
                    served.append(time.monotonic())
                    return
                time.sleep(0.002)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        self.once_more(world, name, "start")
        end = time.monotonic()
        over.set()
        watcher.join(20)
        return served[0] - begin, max(0.0, end - served[0])

    def timed_stop(self, world, name):
        """(seconds to the end of the last process, seconds from there to stop's return)"""
        handles = [os.pidfd_open(pid) for pid in world.pids(name)]
        ends = []

        def watch(handle):
            select.select([handle], [], [], 100)
            ends.append(time.monotonic())
            os.close(handle)

        watchers = [threading.Thread(target=watch, args=(handle,), daemon=True) for handle in handles]
        for watcher in watchers:
            watcher.start()
        begin = time.monotonic()
        self.once_more(world, name, "stop")
        end = time.monotonic()
        for watcher in watchers:
            watcher.join(20)
        return max(ends) - begin, max(0.0, end - max(ends))

    # -- the host

    def started(self, world):
        """All six daemons started by their agents, serving."""
        world.database.start()
        for name in DAEMONS:
            self.once_more(world, name, "start")
        world.wait_ready(*DAEMONS)
        return world

    def report(self):
        """Everything measured, as text."""
        head = ["# What the agents cost", "",
                "`make bench` measured this on %s, %s, %s, %d cores." % (
                    time.strftime("%Y-%m-%d"), _first_line("/etc/os-release", "PRETTY_NAME="),
                    "Python " + platform.python_version(), os.cpu_count()),
                "Medians of %d interleaved runs; CPU is user and system time of the agent's process and its "
                "children. Ratios are to `ocf:heartbeat:dummypy monitor` in the same run." % self.rounds]
        verdict = "All targets reached." if not self.missed else "Missed: " + "; ".join(self.missed) + "."
        return "\n\n".join(["\n".join(head)] + [table.text() for table in self.tables] + [verdict])


PARTS = {"actions": Bench.actions, "tls": Bench.tls, "growth": Bench.growth, "overshoot": Bench.overshoot}


def _first_line(path, prefix):
    with open(path) as file:
        return next(line[len(prefix):].strip().strip('"') for line in file if line.startswith(prefix))


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=41, help="how often everything is run (%(default)s)")
    parser.add_argument("--only", choices=PARTS, help="one of the measurements")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md too")
    words = parser.parse_args()
    if not sandbox.inside():
        if sandbox.missing():
            sys.exit("bench: no sandbox: " + sandbox.missing())
        sys.exit(sandbox.main([sys.executable] + sys.argv))
    from webserver import apache
    from world import World
    bench = Bench(words.rounds)
    with apache():
        for part in (words.only,) if words.only else PARTS:
            print("measuring: %s" % part, file=sys.stderr, flush=True)
            PARTS[part](bench, World)
    report = bench.report()
    print(report)
    if words.write:
        os.makedirs(os.path.join(ROOT, "docs"), exist_ok=True)
        with open(os.path.join(ROOT, "docs/benchmarks.md"), "w") as file:
            file.write(report + "\n")
    return 1 if bench.missed else 0


if __name__ == "__main__":
    sys.exit(main())
