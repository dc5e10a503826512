#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Switch faults of the stand-ins on and off while they run.

fault.py [--dest PREFIX] NAME FAULT [ARGUMENT...] [@ENDPOINT]     add a fault
fault.py [--dest PREFIX] NAME none                                switch all off
fault.py [--dest PREFIX] NAME                                     show them
"""

import os
import sys

DEST = "/usr/local"


def folder(dest):
    return os.path.join(dest, "lib", "kopano-standin", "faults")


def read(dest, name):
    """Faults of a daemon that are on, one line each."""
    try:
        with open(os.path.join(folder(dest), name)) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def write(dest, name, lines):
    """Replace a daemon's faults; it takes notice at once."""
    path = os.path.join(folder(dest), name)
    if not lines:
        if os.path.exists(path):
            os.unlink(path)
        return
    with open(path + ".new", "w") as file:
        file.write("".join(line + "\n" for line in lines))
    os.chmod(path + ".new", 0o644)
    os.rename(path + ".new", path)


def main(words):
    dest = os.environ.get("KOPANO_STANDIN", DEST)
    if words[:1] == ["--dest"]:
        dest, words = words[1], words[2:]
    if not words or words[0].startswith("-"):
        sys.stderr.write(__doc__)
        return 2
    name, what = words[0], words[1:]
    if what == ["none"]:
        write(dest, name, [])
    elif what:
        write(dest, name, read(dest, name) + [" ".join(what)])
    else:
        print("\n".join(read(dest, name)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
