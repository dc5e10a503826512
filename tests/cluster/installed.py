# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator has installed on the nodes: never the checkout, always what was built from it.

INSTALLED says which way it came: `make` (make install, the default), `deb` or `rpm` (the package's contents).
It is built once for each state of the sources, and kept in build/installed.
"""
import fcntl
import glob
import hashlib
import os
import shutil
import tempfile

from namespaces import LabError, command

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PYTHON = "/usr/bin/python3"         # what the agents run on, whatever runs us
LIBRARY = "/usr/lib/ocf/lib/kopano"
SHARE = "/usr/share/resource-agents-kopano"
KEPT = f"{ROOT}/build/installed"
# no part of a package
APART = {"build", "tests"}


def install(top, kind=None, kept=KEPT):
    """Put the installed files below the directory `top`, the library compiled as on a node. `kind`: make, deb or
    rpm, else what INSTALLED says. Labs may do this at the same time. LabError when it can't be built."""
    kind = kind or os.environ.get("INSTALLED") or "make"
    if kind not in WAYS:
        raise LabError(f"INSTALLED={kind}: it is one of {', '.join(WAYS)}")
    os.makedirs(kept, exist_ok=True)
    with open(f"{kept}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tree = f"{kept}/{kind}-{_state()}"
        if not os.path.isdir(tree):
            for old in glob.glob(f"{kept}/{kind}-*"):
                shutil.rmtree(old)
            _build(kind, kept, tree)
        command(["cp", "--archive", f"{tree}/.", top])


def _state():
    """A digest of all that the packages are made of: paths, modes, contents."""
    found = hashlib.sha256()
    for entry in sorted(os.listdir(ROOT)):
        if entry.startswith(".") or entry in APART:
            continue
        for path in sorted(_files(f"{ROOT}/{entry}")):
            found.update(f"{path} {os.stat(path).st_mode:o} {os.readlink(path) if os.path.islink(path) else ''}\n"
                         .encode())
            with open(path, "rb") as file:
                found.update(hashlib.sha256(file.read()).digest())
    return found.hexdigest()[:16]


def _files(top):
    """Paths of a file, or of all files below a directory but compiled ones."""
    if os.path.isfile(top):
        yield top
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (f"{folder}/{name}" for name in names)


def _build(kind, kept, tree):
    """Make the directory `tree` of what is installed, from a tarball as it is released."""
    with tempfile.TemporaryDirectory(dir=kept, prefix="building-") as work:
        os.mkdir(f"{work}/installed")
        command(["make", "-s", "-C", ROOT, "dist", f"TARBALL={work}/source.tar.gz"])
        command(["tar", "-xzf", f"{work}/source.tar.gz", "-C", work])
        source, = glob.glob(f"{work}/resource-agents-kopano-*")
        WAYS[kind](source, f"{work}/installed")
        # Debian's package does this when it is installed, RPM's has some of it in it, and the rest comes with its use:
        # in a drill a node has been running for long
        command([PYTHON, "-s", "-m", "compileall", "-q", "-s", f"{work}/installed", f"{work}/installed{LIBRARY}"])
        os.rename(f"{work}/installed", tree)


def _by_make(source, top):
    command(["make", "-s", "-C", source, "install", f"DESTDIR={top}"])


def _by_deb(source, top):
    command(["make", "-s", "-C", source, "deb", "DEB_BUILD_OPTIONS=nocheck"])
    package, = glob.glob(f"{source}/build/deb/*.deb")
    command(["dpkg", "--extract", package, top])


def _by_rpm(source, top):
    command(["make", "-s", "-C", source, "rpm", "RPMBUILD_OPTIONS=--without check"])
    package, = glob.glob(f"{source}/build/rpm/RPMS/noarch/*.rpm")
    command(["rpm2archive", package])
    command(["tar", "-xzf", f"{package}.tgz", "-C", top])


WAYS = {"make": _by_make, "deb": _by_deb, "rpm": _by_rpm}
