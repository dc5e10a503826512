#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The fault matrix: every fault of the catalogue, against our agents and against what people run today.

`make matrix`, or matrix.py [--only FAULT[-DAEMON]|webapp]... [--ways NAME,...] [--workers N]. As root; each worker is
a sandbox of its own. When all of it ran the result goes into docs/fault-matrix.md and its totals into README.md.
Exit code 1 when an agent's verdict, or what came of it, is not what the catalogue says.
"""
import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
for place in (TESTS, os.path.join(os.path.dirname(TESTS), "lib")):
    sys.path.insert(0, place)

import sandbox  # noqa: E402
from faults import catalogue, report, webapp  # noqa: E402
from faults.fault import CATALOGUE, cases  # noqa: E402
from faults.watch import Outcome, run  # noqa: E402
from faults.ways import WAYS  # noqa: E402

WORKERS = 10            # sandboxes at a time: nearly all the time they wait for something
AT_MOST = 300           # seconds for one run


def pages():
    """In a sandbox: a line of JSON of all that was done to WebApp."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump([webapp.run(one) for one in webapp.FAULTS.values()], answers)
    answers.flush()


def measure_pages():
    """[dict]: see webapp.run()."""
    done = subprocess.run([sys.executable, sandbox.__file__, sys.executable, os.path.abspath(__file__), "--pages"],
                          stdout=subprocess.PIPE, text=True, timeout=AT_MOST, check=True)
    return json.loads(done.stdout)


def work():
    """In a sandbox: a line of JSON for each line that names a run."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ways = {way.name: way for way in WAYS}
    for line in sys.stdin:
        name, daemon, way = line.split()
        outcome = run(CATALOGUE[name], daemon, ways[way])
        answers.write(json.dumps(outcome.plain() if outcome else None) + "\n")
        answers.flush()


class Worker:
    """A sandbox that runs one case after the other, and a new one when it does not answer."""

    def __init__(self, jobs, tell):
        self._jobs, self._tell, self._process = jobs, tell, None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                one, daemon, way = self._jobs.get_nowait()
            except queue.Empty:
                break
            self._tell(one, daemon, way, self._ask("%s %s %s\n" % (one.name, daemon, way.name), one, daemon, way))
        self._end()

    def _ask(self, line, one, daemon, way):
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, sandbox.__file__, sys.executable, os.path.abspath(__file__), "--work"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        timer = threading.Timer(AT_MOST, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            if answer:
                return json.loads(answer)
        except (OSError, ValueError):
            pass
        finally:
            timer.cancel()
        self._end()
        return Outcome(one.name, daemon, way.name, error="the sandbox died").plain()

    def _end(self):
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None


def measure(wanted, ways, workers, kept=None):
    """[outcome as dict] of all runs, in the catalogue's order.

    kept: a file with a line of JSON for each run that is done; those are not repeated, others are added.
    """
    jobs, found, lock = queue.Queue(), {}, threading.Lock()
    order = [(one, daemon, way) for one, daemon in wanted for way in ways]
    if kept and os.path.exists(kept):
        with open(kept, encoding="utf-8") as lines:
            found = {tuple(key): outcome for key, outcome in map(json.loads, lines)}
    # one generation after the other, so that a worker seldom changes over; what takes long begins first
    for job in sorted(order, key=lambda job: (job[0].generation, -job[0].expected(job[1], 20).after)):
        if (job[0].name, job[1], job[2].name) not in found:
            jobs.put(job)
    total, began = len(order), time.monotonic()

    def tell(one, daemon, way, outcome):
        with lock:
            found[one.name, daemon, way.name] = outcome
            if kept and not (outcome or {}).get("error"):
                with open(kept, "a", encoding="utf-8") as lines:
                    lines.write(json.dumps([(one.name, daemon, way.name), outcome]) + "\n")
            if outcome:
                print("%4d/%d %4.0f s  %s" % (len(found), total, time.monotonic() - began, report.line(outcome)),
                      flush=True)

    for worker in [Worker(jobs, tell) for _ in range(min(workers, jobs.qsize()))]:
        worker.thread.join()
    lost = Outcome("", "", "", error="was not run").plain()
    outcomes = [found.get((one.name, daemon, way.name), dict(lost, fault=one.name, daemon=daemon, way=way.name))
                for one, daemon, way in order]
    return [outcome for outcome in outcomes if outcome]     # None: the fault can't happen to that way


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", action="append", metavar="FAULT[-DAEMON]", help="just this fault (repeat)")
    parser.add_argument("--ways", help="just these: %s" % ",".join(way.name for way in WAYS))
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--no-write", action="store_true", help="leave docs/fault-matrix.md and README.md as they are")
    parser.add_argument("--list", action="store_true", help="the catalogue's names")
    parser.add_argument("--keep", metavar="FILE", help="what is done is kept there, and not repeated")
    parser.add_argument("--nodes", action="store_true", help="run nothing: the page's section of nodes and networks "
                        "anew, from what `make drills` has measured")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pages", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work()
    if options.pages:
        return pages()
    if options.nodes:
        report.write_nodes()
        return 0
    if options.list:
        for one in CATALOGUE.values():
            print("%-24s %s: %s" % (one.name, ", ".join(one.daemons), one.broken))
        for one in webapp.FAULTS.values():
            print("%-24s %s: %s" % ("webapp", one.name, one.broken))
        return 0
    if sandbox.missing():
        parser.error(sandbox.missing())
    with_pages = not options.only or "webapp" in options.only
    wanted = cases([name for name in options.only or () if name != "webapp"]) if options.only != ["webapp"] else []
    if not wanted and not with_pages:
        parser.error("no such fault; --list names them")
    ways = [way for way in WAYS if not options.ways or way.name in options.ways.split(",")]
    found = report.Report(measure(wanted, ways, options.workers, options.keep), options.workers,
                          measure_pages() if with_pages else [])
    print(found.text())
    if not (options.no_write or options.only or options.ways):
        found.write()
    return 1 if found.wrong else 0


if __name__ == "__main__":
    assert catalogue
    sys.exit(main())
