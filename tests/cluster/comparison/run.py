#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The same faults on two clusters side by side: the manual's own configuration, and the one of crm/drbd.

run.py [NAME...] [--write], as root: each fault on two clusters built for it, as they are configured (monitors of the
manual every 30 s, MariaDB 10 s; of ours every 10 or 20 s). So a figure holds 0 to one interval of waiting for the next
monitor. --write puts the rows into docs/against-the-manual.md; --write --nothing only renews the words around them. All
of them: an hour.
"""
import argparse
import concurrent.futures
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
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
TOLERANCE = 1.0         # seconds: each of two figures is ± 0.5
INTERVAL = 10.0         # seconds of waiting for the next monitor here, by chance
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


def figures(line):
    """Seconds until all was good, of both sides; infinite for never. None when they were not measured."""
    found = [re.search(r"good after \*\*([\d.]+) s|\*\*(never)", cell) for cell in line.split(" | ")[1:3]]
    return [float(cell[1] or "inf") for cell in found] if all(found) else None


def slower(rows):
    """{row: seconds} of the rows where crm/drbd took longer than the manual's cluster."""
    measured = {line: figures(line) for line in rows}
    return {line: both[1] - both[0] for line, both in measured.items()
            if both and both[1] < float("inf") and both[1] - both[0] > TOLERANCE}


def totals(rows):
    """The end of the table, in words."""
    never = [sum("**never**" in line.split(" | ")[column] for line in rows) for column in (1, 2)]
    text = (f"Of {len(rows)} faults {never[0]} end in an outage that lasts until an administrator comes "
            f"with the manual's configuration, {never[1]} with this one.\n")
    late = slower(rows)
    if late:
        text += (f"\n## Slower here\n\nBy more than {TOLERANCE:.0f} s, which is what two figures of ± 0.5 s may differ "
                 "by for no reason:\n\n")
        reasons = {f"| {fault.words}": fault.slower for fault in FAULTS.values()}
        chance = "no more than the wait for the next monitor, which is chance"
        for line, seconds in late.items():
            fault = line.split(" | ")[0]
            why = reasons[fault] or (chance if seconds <= INTERVAL else "why is not known")
            text += textwrap.fill(f"* {fault[2:]}: {seconds:.1f} s more. {sentence(why)}.", 118, subsequent_indent="  ",
                                  break_on_hyphens=False) + "\n"
    return text


def sentence(words):
    """Begun with a capital."""
    return words[0].upper() + words[1:]


def worse(results):
    """Names of the faults where crm/drbd did worse than the manual's cluster and Fault.slower doesn't say why, where it
    was never good, lost mail, or could not be measured."""
    def bad(name, outcomes):
        shipped = outcomes and outcomes["shipped"]
        return (not shipped or shipped.good_after is None or shipped.wrong or
                not FAULTS[name].slower and max(slower([row(name, outcomes)]).values(), default=0) > INTERVAL)
    return [name for name, outcomes in results if bad(name, outcomes)]


def page(results):
    """The document with these rows; those of other faults stay."""
    rows, today = {}, time.strftime("%Y-%m-%d")
    dates = [today]
    if os.path.exists(DOCUMENT):
        with open(DOCUMENT) as file:
            text = file.read()
        rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
        kept_from = re.search(r"broke both on ([^,]+),", text)[1].split(" and ")
        if not results:
            dates = kept_from
        elif len(results) < len(FAULTS):
            dates = [date for date in kept_from if date != today] + [today]
    rows.update((line.split(" | ")[0], line) for line in (row(*result) for result in results))
    kept = [rows[f"| {fault.words}"] for fault in FAULTS.values() if f"| {fault.words}" in rows]
    head = HEAD.format(date=" and ".join(dates), system=system(), cores=os.cpu_count())
    return head + "\n".join(kept) + f"\n\n{totals(kept)}"


def write(results):
    """Renew the document."""
    text = page(results)
    with open(DOCUMENT, "w") as file:
        file.write(text)


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
    """Exit code 0 when all could be measured, and nothing was worse here than there for no known reason."""
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"of faults: {', '.join(FAULTS)}")
    parser.add_argument("--at-once", type=int, default=2, help="how many faults at a time (%(default)s)")
    parser.add_argument("--write", action="store_true", help="write docs/against-the-manual.md")
    parser.add_argument("--nothing", action="store_true", help="break nothing")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.name if name not in FAULTS]
    if unknown:
        sys.exit(f"there is no fault {unknown[0]!r}: {', '.join(FAULTS)}")
    if options.nothing:
        if options.write:
            write([])
        return 0
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
    for name in worse(results):
        print(f"worse than the manual's cluster, for no known reason: {name}")
    return 1 if worse(results) else 0


if __name__ == "__main__":
    sys.exit(main())
