#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The same faults on two clusters side by side: the manual's own configuration, and the one of crm/drbd.

run.py [NAME...] [--write], as root: each fault on two clusters built for it, as they are configured (monitors of the
manual every 30 s, MariaDB 10 s; of ours every 10 or 20 s). So a figure holds 0 to one interval of waiting for the next
monitor. --write puts the rows into docs/against-the-manual.md. All of them: three quarters of an hour.
"""
import argparse
import concurrent.futures
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CLUSTER = os.path.dirname(HERE)
ROOT = os.path.dirname(os.path.dirname(CLUSTER))
sys.path[:0] = [CLUSTER]

import lab as lab_module  # noqa: E402
from comparison.faults import FAULTS  # noqa: E402
from comparison.side import Outcome, Side  # noqa: E402
from story import clean_up_on_signals  # noqa: E402

SIDES = ("manual", "shipped")
DOCUMENT = f"{ROOT}/docs/against-the-manual.md"
HEAD = """\
# The manual's cluster and this one, under the same faults

`make compare` broke both on {date}, each fault on two fresh clusters at the same time: two nodes in namespaces of one
machine ({system}, {cores} cores), real Pacemaker, Corosync and MariaDB, stand-ins for DRBD and for Kopano's daemons.
One is configured as the Kopano manual says, with `lsb:` scripts, plain groups, no fencing and the default operation
timeouts (tests/cluster/lsb/); the other loads `crm/drbd` as shipped. One run per cell, ± 0.5 s. Monitors look every
30 s there (MariaDB: 10 s) and every 10 or 20 s here; every figure holds 0 to one of these intervals of waiting. MariaDB
is small here and starts in a second.

"Good" means: clients outside the nodes are served by LMTP (a mail delivered), IMAP (login, inbox), CalDAV and HTTP, and
no daemon is gone or hangs. Every mail that was acknowledged was looked for afterwards, where there was an inbox to
look at.

| fault | the manual's cluster | crm/drbd |
| --- | --- | --- |
"""


def perform(name):
    """{side: Outcome} of one fault. Raises what went wrong on a side."""
    outcomes, errors = {}, []

    def on(side):
        try:
            side.ready()
            outcomes[side.name] = side.perform(FAULTS[name])
        except Exception as error:          # told in the main thread, after both
            directory = side.lab.keep_logs(tempfile.mkdtemp(prefix=f"kopano-compare-{name}-{side.name}-"))
            errors.append(f"{side.name}: {type(error).__name__}: {error}\nlogs of the nodes: {directory}")
    with Side("manual") as manual, Side("shipped") as shipped:
        threads = [threading.Thread(target=on, args=(side,), daemon=True) for side in (manual, shipped)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise RuntimeError("\n".join(errors))
    return outcomes


def in_process(name):
    """The same in a process of its own: (name, {side: Outcome} or None)."""
    with subprocess.Popen([sys.executable, __file__, "--one", name], stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()
            raise
    found = [line for line in said.splitlines() if line.startswith("{")]
    if process.returncode or not found:
        return name, None
    return name, {side: Outcome(**words) for side, words in json.loads(found[-1]).items()}


def row(name, outcomes):
    """A line of the table."""
    cells = [outcomes[side].words() for side in SIDES] if outcomes else ["not measured"] * 2
    return f"| {FAULTS[name].words} | {' | '.join(cells)} |"


def totals(rows):
    """The end of the table, in words."""
    never = [sum("**never**" in line.split(" | ")[column] for line in rows) for column in (1, 2)]
    return (f"Of {len(rows)} faults {never[0]} end in an outage that lasts until an administrator comes "
            f"with the manual's configuration, {never[1]} with this one.")


def write(results):
    """Put the rows into the document, those of other faults stay."""
    rows = {}
    if os.path.exists(DOCUMENT):
        with open(DOCUMENT) as file:
            rows = {line.split(" | ")[0]: line for line in file.read().splitlines() if line.startswith("| ")}
    rows.update((line.split(" | ")[0], line) for line in (row(*result) for result in results))
    kept = [rows[f"| {fault.words}"] for fault in FAULTS.values() if f"| {fault.words}" in rows]
    head = HEAD.format(date=time.strftime("%Y-%m-%d"), system=system(), cores=os.cpu_count())
    with open(DOCUMENT, "w") as file:
        file.write(head + "\n".join(kept) + f"\n\n{totals(kept)}\n")


def system():
    """This machine's distribution."""
    release = platform.freedesktop_os_release() if hasattr(platform, "freedesktop_os_release") else {}
    return release.get("PRETTY_NAME", platform.system())


def compare(names, at_once):
    """All of them: [(name, {side: Outcome} or None)], told as they come."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        tasks = [pool.submit(in_process, name) for name in names]
        for task in concurrent.futures.as_completed(tasks):
            print(row(*task.result()), flush=True)
    return [task.result() for task in tasks]


def main():
    """Exit code 0 when all could be measured, and nothing was worse here than there."""
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"of faults: {', '.join(FAULTS)}")
    parser.add_argument("--at-once", type=int, default=2, help="how many faults at a time (%(default)s)")
    parser.add_argument("--write", action="store_true", help="write docs/against-the-manual.md")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.name if name not in FAULTS]
    if unknown:
        sys.exit(f"there is no fault {unknown[0]!r}: {', '.join(FAULTS)}")
    why = lab_module.missing()
    if why:
        sys.exit(why)
    clean_up_on_signals()
    if options.one:
        try:
            outcomes = perform(options.name[0])
        except RuntimeError as error:
            sys.exit(str(error))
        print(json.dumps({side: vars(outcome) for side, outcome in outcomes.items()}), flush=True)
        return 0
    results = compare(options.name or list(FAULTS), options.at_once)
    print(totals([row(*result) for result in results]))
    if options.write:
        write(results)
    return 0 if all(outcomes and outcomes["shipped"].good_after is not None for _, outcomes in results) else 1


if __name__ == "__main__":
    sys.exit(main())
