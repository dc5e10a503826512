#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agents cost beside what others run, how that grows, and how long outages last.

`make bench`, or bench.py [--rounds N] [--only PART]; about 15 minutes. The daemons are the tests' stand-ins of
generation 11. Exit code 1 when a target is missed. When all was measured the page goes to docs/benchmarks.md, its
plots beside it.
"""
import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path[:0] = [path for path in (HERE, TESTS) if path not in sys.path]

import sandbox  # noqa: E402
from world import World  # noqa: E402

import costs  # noqa: E402
import growth  # noqa: E402
import outage  # noqa: E402
from sheet import Sheet  # noqa: E402
from webserver import apache  # noqa: E402

# each is called with the sheet, a function that makes a host (arguments of World), and the number of rounds
PARTS = {"actions": costs.actions, "tls": costs.tls, "processes": growth.processes, "instances": growth.instances,
         "endpoints": growth.endpoints, "overshoot": costs.overshoot, "recovery": outage.recovery,
         "hung": outage.hung}
PAGE = os.path.join(ROOT, "docs/benchmarks.md")


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=41, help="how often commands are run (%(default)s)")
    parser.add_argument("--only", choices=PARTS, action="append", help="this measurement, and no other")
    parser.add_argument("--no-write", action="store_true", help="leave docs/benchmarks.md and its plots as they are")
    parser.add_argument("--page", metavar="FILE", help="write the page and its plots there, not to docs/")
    words = parser.parse_args()
    if not sandbox.inside():
        if sandbox.missing():
            sys.exit("bench: no sandbox: " + sandbox.missing())
        sys.exit(sandbox.main([sys.executable] + sys.argv))
    page = words.page or (None if words.only or words.no_write else PAGE)
    os.environ["MPLCONFIGDIR"] = "/tmp/matplotlib"      # its cache of fonts
    sheet = Sheet()
    with apache():
        for part in words.only or PARTS:
            print("measuring: %s" % part, file=sys.stderr, flush=True)
            PARTS[part](sheet, World, words.rounds)
    text = sheet.text(words.rounds)
    print(text)
    if page:
        with open(page, "w") as file:
            file.write(text)
        sheet.write(page)
    return 1 if sheet.missed else 0


if __name__ == "__main__":
    sys.exit(main())
