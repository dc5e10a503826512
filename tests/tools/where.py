# SPDX-License-Identifier: GPL-2.0-or-later
"""where.py JUNIT.xml: tests and seconds by folder, so that a suite that has grown slow shows where."""
import collections
import sys
import xml.etree.ElementTree as ET

tests, seconds = collections.Counter(), collections.Counter()
for case in ET.parse(sys.argv[1]).iter("testcase"):
    words = (case.get("classname") or "").split(".")
    folder = words[1] if words[0] == "tests" and len(words) > 2 else words[0]
    tests[folder] += 1
    seconds[folder] += float(case.get("time"))
for folder, spent in seconds.most_common():
    print("%-14s %5d tests %6.0f s" % (folder, tests[folder], spent))
