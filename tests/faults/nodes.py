# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes and networks: the drills of a whole cluster, as a section of docs/fault-matrix.md."""
import os
import re
import sys

from contract.rough import ROOT

OUTAGES = os.path.join(ROOT, "build/outages.txt")       # what `make drills` has measured
_LINE = re.compile(r"\S+ \S+ (?P<cluster>[\w-]+): (?P<drill>[\w-]+): away: (?P<away>.*); \d+ mails acknowledged")


def drills():
    """{name: Drill}"""
    place = os.path.join(ROOT, "tests/cluster")
    if place not in sys.path:
        sys.path.append(place)
    from drills.catalogue import DRILLS

    return DRILLS


def outages(path=OUTAGES):
    """{drill: {cluster: how long which service was away, in words}}: the last run of each that was measured."""
    found = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                match = _LINE.match(line)
                if match:
                    found.setdefault(match["drill"], {})[match["cluster"]] = match["away"]
    except FileNotFoundError:
        pass
    return found


def rows(path=OUTAGES):
    """Cells: a line of titles, then one for each drill."""
    measured = outages(path)
    lines = [["drill", "what is broken", "expected meanwhile", "expected then", "away, measured",
              "the manual's configuration"]]
    for name, one in drills().items():
        away = "; ".join("%s: %s" % item for item in measured.get(name, {}).items())
        lines.append([cell.replace("|", "\\|") for cell in (
            "[%s](drills.md#%s)" % (name, name), one.does, one.during, one.after, away or "–", one.manual)])
    return lines
