#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build an install tree of stand-ins: DEST/sbin/kopano-* and DEST/lib/kopano-standin.

build.py DEST --generation 8|9|11
"""

import argparse
import compileall
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = "/var/tmp/kopano-standin-%d" % os.getuid()
DAEMONS = ("server", "dagent", "spooler", "gateway", "ical", "monitor")
PROGRAMS = DAEMONS + ("admin", "storeadm")
GENERATIONS = (8, 9, 11)


def _sources():
    """All files a build is made of, relative to this directory."""
    found = ["launcher.c", "build.py"]
    for folder, folders, files in os.walk(os.path.join(HERE, "kopano_standin")):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found += [os.path.relpath(os.path.join(folder, name), HERE) for name in files]
    return sorted(found)


def _fingerprint():
    digest = hashlib.sha256(sys.version.encode())
    for name in _sources():
        digest.update(name.encode())
        with open(os.path.join(HERE, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _compile(launcher):
    """Compile the launcher that all programs are copies of. Raises CalledProcessError."""
    import pymysql

    version = sysconfig.get_python_version()
    stdlib = sysconfig.get_path("stdlib")
    packages = os.path.dirname(os.path.dirname(pymysql.__file__))
    path = ":".join((stdlib, os.path.join(stdlib, "lib-dynload"), packages))
    subprocess.run([
        "gcc", "-O2", "-Wall", "-o", launcher,
        os.path.join(HERE, "launcher.c"),
        '-DPYTHON_HOME="%s"' % sys.base_prefix,
        '-DPYTHON_PATH="%s"' % path, "-I",
        sysconfig.get_path("include"), "-L",
        sysconfig.get_config_var("LIBDIR"), "-lpython" + version
    ], check=True)


def _cached():
    """Directory of the compiled launcher and byte-compiled code; made when it is not there yet."""
    place = os.path.join(CACHE, _fingerprint())
    if os.path.isdir(place):
        return place
    os.makedirs(CACHE, mode=0o700, exist_ok=True)
    work = tempfile.mkdtemp(dir=CACHE)
    _compile(os.path.join(work, "launcher"))
    shutil.copytree(os.path.join(HERE, "kopano_standin"), os.path.join(work, "kopano_standin"),
                    ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(os.path.join(work, "kopano_standin"), quiet=2, ddir="kopano_standin")
    try:
        os.rename(work, place)
    except OSError:  # somebody else was faster
        shutil.rmtree(work)
    return place


def build(dest, generation):
    """Install the stand-ins of one generation below dest; returns the directory of the programs.

    What is there already is replaced file by file, so that a running daemon keeps its executable ("deleted").
    """
    if generation not in GENERATIONS:
        raise ValueError("generation must be one of %s" % (GENERATIONS,))
    cached = _cached()
    sbin, lib = os.path.join(dest, "sbin"), os.path.join(dest, "lib", "kopano-standin")
    os.makedirs(sbin, exist_ok=True)
    shutil.rmtree(os.path.join(lib, "kopano_standin"), ignore_errors=True)
    shutil.copytree(os.path.join(cached, "kopano_standin"), os.path.join(lib, "kopano_standin"))
    for name in ("faults", "state"):
        os.makedirs(os.path.join(lib, name), exist_ok=True)
    os.chmod(os.path.join(lib, "state"), 0o1777)
    with open(os.path.join(lib, "generation"), "w") as file:
        file.write("%d\n" % generation)
    for name in PROGRAMS:
        target = os.path.join(sbin, "kopano-" + name)
        shutil.copy(os.path.join(cached, "launcher"), target + ".new")
        os.rename(target + ".new", target)
    for folder, _folders, files in os.walk(lib):
        if os.path.basename(folder) != "state":
            os.chmod(folder, 0o755)
            for name in files:
                os.chmod(os.path.join(folder, name), 0o644)
    return sbin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dest")
    parser.add_argument("--generation", type=int, choices=GENERATIONS, default=11)
    arguments = parser.parse_args()
    print(build(arguments.dest, arguments.generation))


if __name__ == "__main__":
    main()
