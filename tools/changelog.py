#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""changelog.py rpm|debian VERSION EPOCH: CHANGELOG.md as the packages want it.

Its headings are "## Unreleased", which is VERSION on the day of EPOCH, or "## 1.2.3 - 2026-12-24".
"""
import os
import re
import sys
import textwrap
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = "resource-agents-kopano"
WHO = "Kopano OCF authors <kopano-ocf@example.org>"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def releases(version, epoch):
    """[(version, time, [change, ...])], the latest first."""
    found = []
    with open(ROOT + "/CHANGELOG.md") as file:
        for line in file:
            heading = re.match(r"## (?:(Unreleased)|(\S+) - (\d+-\d+-\d+))\s*$", line)
            if heading and heading.group(1):
                found.append((version, time.gmtime(epoch), []))
            elif heading:
                noon = time.strptime(heading.group(3) + " 12:00", "%Y-%m-%d %H:%M")
                found.append((heading.group(2), noon, []))
            elif found and line.startswith("- "):
                found[-1][2].append(plain(line[2:]))
            elif found and line.startswith("  "):
                found[-1][2][-1] += " " + plain(line)
    found = [release for release in found if release[2]]
    if not found or found[0][0] != version:
        sys.exit("CHANGELOG.md begins with %s; this is %s" % (found[0][0] if found else "nothing", version))
    return found


def plain(text):
    """Without Markdown's marks."""
    return text.replace("`", "").strip()


def bullet(text, first, width=78):
    """A change as lines."""
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * len(first),
                         break_long_words=False, break_on_hyphens=False)


def rpm(found):
    """What follows %changelog."""
    for version, when, changes in found:
        yield "* %s %s %02d %d %s - %s-1" % (DAYS[when.tm_wday], MONTHS[when.tm_mon - 1], when.tm_mday, when.tm_year,
                                             WHO, version)
        for change in changes:
            yield bullet(change.replace("%", "%%"), "- ")
        yield ""


def debian(found):
    """debian/changelog."""
    for version, when, changes in found:
        yield "%s (%s) unstable; urgency=medium\n" % (PACKAGE, version)
        for change in changes:
            yield bullet(change, "  * ")
        yield "\n -- %s  %s, %02d %s %d %02d:%02d:%02d +0000\n" % (
            WHO, DAYS[when.tm_wday], when.tm_mday, MONTHS[when.tm_mon - 1], when.tm_year, *when[3:6])


if __name__ == "__main__":
    kind, release, seconds = sys.argv[1:]
    print("\n".join({"rpm": rpm, "debian": debian}[kind](releases(release, int(seconds)))).rstrip("\n"))
