#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`make golden`: keeps the list of files that `make install` brings, with their modes."""
import os
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
GOLDEN = os.path.join(HERE, "files.txt")


def installed(top):
    """["mode path", ...] of `make install` into the directory `top`, sorted by path; links with their target."""
    subprocess.run(["make", "-s", "-C", ROOT, "install", f"DESTDIR={top}", "BYTECODE="], check=True, timeout=60,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return listing(top)


def listing(top):
    """["mode path", ...] of all that is below `top`."""
    found = []
    for folder, folders, names in os.walk(top):
        for name in folders + names:
            path = os.path.join(folder, name)
            shown = path[len(top):]
            if os.path.islink(path):
                found.append(("link", f"{shown} -> {os.readlink(path)}"))
            else:
                found.append(("%o" % (os.stat(path).st_mode & 0o7777), shown + ("/" if os.path.isdir(path) else "")))
    return [f"{mode} {path}" for mode, path in sorted(found, key=lambda entry: entry[1])]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, open(GOLDEN, "w") as golden:
        golden.write("".join(line + "\n" for line in installed(scratch)))
