#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""versions.py [--write | --check]: what the tests run with on this machine, as the table of README.md.

--write puts it there; --check, which `make test` ends with, fails when a row of the table is missing or names another
version than what ran, by its first two numbers: the third is that of a distribution's updates.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGES = (("Pacemaker", "pacemaker"), ("Corosync", "corosync"), ("crmsh", "crmsh"), ("pcs", "pcs"),
            ("resource-agents (ocf.py)", "resource-agents"), ("psutil", "python3-psutil"),
            ("requests", "python3-requests"), ("MariaDB", "mariadb-server"), ("Apache", "apache2"), ("rpm", "rpm"))
BEGIN = ("<!-- versions: written by `tests/tools/versions.py --write` after `make test`,\n"
         "     which fails when a row's first two numbers are not those of what ran -->\n")
END = "<!-- end of versions -->\n"
RAN = ROOT + "/build/pythons-that-passed"       # written by tests/tools/pythons


def package(name):
    """The upstream part of an installed package's version; "" when it isn't there."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False)
    return re.sub(r"^\d+:|[-+~].*", "", done.stdout.decode())


def pythons():
    """This one, and those that the library's own tests have passed with; None when they were not run here."""
    try:
        with open(RAN) as file:
            found = set(file.read().split())
    except FileNotFoundError:
        return None
    found.add("%d.%d.%d" % sys.version_info[:3])
    return sorted(found, key=lambda words: [int(part) for part in words.split(".")])


def kopano():
    """What stands for Kopano."""
    real = os.environ.get("KOPANO_SBIN")
    return "the daemons in %s" % real if real else "stand-ins of generations 8, 9 and 11"


def system():
    """The distribution's name."""
    with open("/etc/os-release") as file:
        return re.search('^PRETTY_NAME="?(.*?)"?$', file.read(), re.MULTILINE)[1]


def rows(written):
    """{title: what ran}, Pythons as written when they were not run here."""
    ran = pythons()
    found = {"distribution": system(), "Python": ", ".join(ran) if ran else written.get("Python", "")}
    found.update((title, package(name)) for title, name in PACKAGES)
    found["Kopano"] = kopano()
    return {title: value for title, value in found.items() if value}


def short(value):
    """A row's value without what updates change."""
    return re.sub(r"\b(\d+\.\d+)\.[\w.]+", r"\1", value)


def differences(written, found):
    """What a reader of the table would be told wrong, one line for each row."""
    out = []
    for title in list(found) + [title for title in written if title not in found]:
        there, here = written.get(title, "not in the table"), found.get(title, "not installed")
        if title == "Kopano" and os.environ.get("KOPANO_SBIN"):
            continue                            # the table is about the stand-ins
        if short(there) != short(here):
            out.append("%s: README.md says %s, what ran: %s" % (title, there, here))
    return out


def main():
    """Print the table, put it where it belongs, or look whether it is true; the exit code."""
    with open(ROOT + "/README.md") as file:
        text = file.read()
    before, _, rest = text.partition("<!-- versions: ")
    old, _, after = rest.partition(END)
    written = dict(re.findall(r"^\| (\S.*?) \| (.*) \|$", old, re.MULTILINE))
    written.pop("---", None)
    found = rows(written)
    if sys.argv[1:] == ["--check"]:
        wrong = differences(written, found)
        for line in wrong:
            print(line)
        if not os.path.exists(RAN):
            print("Pythons: not run on this machine")
        if wrong:
            print("to renew it: tests/tools/versions.py --write")
        return 1 if wrong or os.environ.get("CI") and not os.path.exists(RAN) else 0
    lines = "".join("| %s | %s |\n" % row for row in [("", "tested with"), ("---", "---"), *found.items()])
    if sys.argv[1:] == ["--write"]:
        with open(ROOT + "/README.md", "w") as file:
            file.write(before + BEGIN + lines + END + after)
    else:
        print(lines, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
