# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages, built once for all tests in here (which one worker runs)."""
import glob
import os
import re
import shutil
import subprocess

import pytest

from conformance.agents import ROOT

LIBRARY = "/usr/lib/ocf/lib/kopano"
# of the library's own tests the packages run these here; `make unit` runs them all
CHECK = "tests/unit/test_verdict.py tests/unit/test_address.py"


def run(*words, timeout=120, **more):
    """(exit code, what it said on both channels)"""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, check=False, **more)
    return done.returncode, done.stdout.decode(errors="replace")


def good(*words, **more):
    """What it said; it must end with 0."""
    code, said = run(*words, **more)
    assert code == 0, (words, said)
    return said


def version():
    with open(ROOT + "/lib/kopano_ocf/__init__.py") as file:
        return re.search('VERSION = "(.*)"', file.read())[1]


@pytest.fixture(scope="session")
def tarballs(tmp_path_factory):
    """The source, packed twice, with other habits each time."""
    found = []
    for count, habit in enumerate(("umask 022; LC_ALL=C TZ=UTC", "umask 077; LC_ALL=C.UTF-8 TZ=Asia/Tokyo")):
        tarball = tmp_path_factory.mktemp(f"dist{count}") / f"resource-agents-kopano-{version()}.tar.gz"
        good("sh", "-c", f'{habit} exec make -s -C "$0" dist TARBALL="$1"', ROOT, str(tarball))
        found.append(str(tarball))
    return found


@pytest.fixture(scope="session")
def builds(tarballs, tmp_path_factory):
    """Two folders, in each of them build/rpm and build/deb; built side by side, with hardly any tests.

    Each sees itself as /mnt: a source RPM holds the path that it was built in, whatever one does.
    """
    jobs = []
    for count, (tarball, habit) in enumerate(zip(tarballs, ("umask 022; TZ=UTC", "umask 027; TZ=America/Lima"))):
        place = tmp_path_factory.mktemp("a-longer-name" * count + "build")
        good("tar", "-xf", tarball, "-C", str(place), "--touch" if count else "--no-same-owner")
        source, = place.iterdir()
        if count:                       # unpacked with the time of the unpacking, but for the file that tells the time
            shutil.copystat(jobs[0][0] / "lib/kopano_ocf/__init__.py", source / "lib/kopano_ocf/__init__.py")
        env = dict(os.environ, CHECK=CHECK, DEB_BUILD_OPTIONS="nocheck" if count else "")
        env.pop("SOURCE_DATE_EPOCH", None)
        jobs.append((source, subprocess.Popen(
            ["unshare", "--mount", "sh", "-ec",
             f"{habit}; export TZ; mount --bind . /mnt; cd /mnt; exec make -s rpm deb"],
            cwd=source, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))
    for _, job in jobs:
        said, _ = job.communicate(timeout=300)
        assert job.returncode == 0, said.decode()
    return [source for source, _ in jobs]


def one(builds, pattern):
    """The file of the first build."""
    found, = glob.glob(f"{builds[0]}/build/{pattern}")
    return found


@pytest.fixture(scope="session")
def rpm(builds):
    return one(builds, "rpm/RPMS/noarch/*.rpm")


@pytest.fixture(scope="session")
def deb(builds):
    return one(builds, "deb/*.deb")


def _as_older(path, old, new):
    """Replace words of a file, which must be there."""
    with open(path) as file:
        text = file.read()
    assert old in text, path
    with open(path, "w") as file:
        file.write(text.replace(old, new))


def older(deb, folder):
    """Debian's package as version 0.0.1, with a module that there is no more."""
    tree = str(folder / "older")
    good("dpkg-deb", "--raw-extract", deb, tree)
    _as_older(tree + "/DEBIAN/control", f"\nVersion: {version()}\n", "\nVersion: 0.0.1\n")
    _as_older(f"{tree}{LIBRARY}/kopano_ocf/__init__.py", f'"{version()}"', '"0.0.1"')
    shutil.copy(f"{tree}{LIBRARY}/kopano_ocf/verdict.py", f"{tree}{LIBRARY}/kopano_ocf/bygone.py")
    good("dpkg-deb", "--root-owner-group", "--build", tree, str(folder / "older.deb"))
    return str(folder / "older.deb")


def older_rpm(tarballs, folder):
    """The same for RPM, which can't be repacked: built from a changed source."""
    good("tar", "-xf", tarballs[0], "-C", str(folder))
    tree, = (str(path) for path in folder.iterdir())
    for path in [f"{tree}/lib/kopano_ocf/__init__.py", *glob.glob(f"{tree}/tests/conformance/golden/*.xml")]:
        _as_older(path, f'"{version()}"', '"0.0.1"')
    shutil.copy(f"{tree}/lib/kopano_ocf/verdict.py", f"{tree}/lib/kopano_ocf/bygone.py")
    good("make", "-s", "-C", tree, "rpm", "RPMBUILD_OPTIONS=--without check")
    package, = glob.glob(f"{tree}/build/rpm/RPMS/noarch/*.rpm")
    return package
