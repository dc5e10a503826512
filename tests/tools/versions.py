#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""versions.py [--write]: what the tests run with on this machine, as the table of README.md (--write puts it there)."""
import glob
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGES = (("Pacemaker", "pacemaker"), ("Corosync", "corosync"), ("crmsh", "crmsh"), ("pcs", "pcs"),
            ("resource-agents (ocf.py)", "resource-agents"), ("psutil", "python3-psutil"),
            ("requests", "python3-requests"), ("MariaDB", "mariadb-server"), ("Apache", "apache2"), ("rpm", "rpm"))
BEGIN, END = "<!-- versions: written by tests/tools/versions.py -->\n", "<!-- end of versions -->\n"


def package(name):
    """The upstream part of an installed package's version; "" when it isn't there."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False)
    return re.sub(r"^\d+:|[-+~].*", "", done.stdout.decode())


def pythons():
    """This one, and those that the library's own tests were run with."""
    found = {"%d.%d.%d" % sys.version_info[:3]}
    for python in glob.glob(ROOT + "/build/python-*/bin/python"):
        done = subprocess.run([python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        found.add(done.stdout.decode().strip())
    return sorted(found - {""}, key=lambda words: [int(part) for part in words.split(".")])


def kopano():
    """What stands for Kopano."""
    real = os.environ.get("KOPANO_SBIN")
    return "the daemons in %s" % real if real else "stand-ins of generations 8, 9 and 11"


def system():
    """The distribution's name."""
    with open("/etc/os-release") as file:
        return re.search('^PRETTY_NAME="?(.*?)"?$', file.read(), re.MULTILINE)[1]


def table():
    """The lines of the table."""
    rows = [("distribution", system()), ("Python", ", ".join(pythons()))]
    rows += [(title, package(name)) for title, name in PACKAGES] + [("Kopano", kopano())]
    return "".join("| %s | %s |\n" % row for row in [("", "tested with"), ("---", "---")] + rows if row[1])


def main():
    """Print the table, or put it where it belongs."""
    if sys.argv[1:] != ["--write"]:
        print(table(), end="")
        return
    with open(ROOT + "/README.md") as file:
        text = file.read()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    with open(ROOT + "/README.md", "w") as file:
        file.write(before + BEGIN + table() + END + after)


if __name__ == "__main__":
    main()
