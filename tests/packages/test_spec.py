# SPDX-License-Identifier: GPL-2.0-or-later
"""The spec file as each distribution's rpm reads it: its macros are defined here, for the distributions are not here.

What rpm of Debian can't show is what their own macros do beyond that, as redhat-rpm-config's.
"""
import glob
import os
import subprocess

import pytest

from .conftest import good, version

pytestmark = pytest.mark.xdist_group("packages")

NAME = "resource-agents-kopano"
# macros, whether %check runs the unit tests, the shell that is recommended
DISTRIBUTIONS = {
    "RHEL 8": ({"rhel": "8", "dist": ".el8"}, False, "pcs"),
    "RHEL 9": ({"rhel": "9", "dist": ".el9"}, True, "pcs"),
    "RHEL 10": ({"rhel": "10", "dist": ".el10"}, True, "pcs"),
    "Fedora": ({"fedora": "42", "dist": ".fc42", "_sbindir": "/usr/bin"}, True, "pcs"),
    "SLES 15": ({"suse_version": "1500", "sle_version": "150600", "_defaultdocdir": "/usr/share/doc/packages"},
                False, "crmsh"),
    "SLES 16": ({"suse_version": "1600", "_defaultdocdir": "/usr/share/doc/packages"}, True, "crmsh"),
}
REQUIRED = {"python(abi) >= 3.6", "python3-psutil", "python3-requests", "resource-agents >= 4.2.0"}
# of all of them; then of those whose pytest is new enough for the unit tests
TO_BUILD = {"make", "python3-devel"}
TO_CHECK = {"python3-psutil", "python3-pytest", "python3-requests", "resource-agents"}


@pytest.fixture(scope="module")
def spec(tarballs, tmp_path_factory):
    made = tmp_path_factory.mktemp("spec") / f"{NAME}.spec"
    made.write_text(good("tar", "-xzOf", tarballs[0], f"{NAME}-{version()}/rpm/{NAME}.spec"))
    return str(made)


def defines(macros):
    return [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]


def rpmspec(spec, macros, *words):
    """Lines on stdout; nothing may be said on stderr."""
    done = subprocess.run(["rpmspec", *words, *defines(macros), spec], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("macros, checked, shell", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_as_a_distribution_reads_it(spec, macros, checked, shell):
    required = rpmspec(spec, macros, "-q", "--requires")
    assert {name for name in required if not name.startswith("rpmlib(")} == REQUIRED
    assert set(rpmspec(spec, macros, "-q", "--qf", "[%{recommendname}\n]")) == {"pacemaker", shell}
    to_check = TO_CHECK | (set() if "rhel" in macros else {"python3-hypothesis"})       # RHEL has none
    assert set(rpmspec(spec, macros, "-q", "--buildrequires")) == TO_BUILD | (to_check if checked else set())
    release, = rpmspec(spec, macros, "-q", "--qf", "%{release} %{arch} %{license}\n")
    assert release == f"1{macros.get('dist', '')} noarch GPL-2.0-or-later"

    text = rpmspec(spec, macros, "--parse")
    assert not [line for line in text if "%{" in line and not line.startswith("#")], "a macro that isn't one there"
    assert any("-m pytest" in line for line in text) == checked
    assert f"{macros.get('_sbindir', '/usr/sbin')}/kopano-ocf-report" in text
    assert f"%doc {macros.get('_defaultdocdir', '/usr/share/doc')}/{NAME}" in text
    assert any(line.startswith("Group:") for line in text) == ("suse_version" in macros)


@pytest.mark.parametrize("distribution", ["Fedora", "SLES 15"])
def test_built_with_its_places(distribution, tarballs, tmp_path):
    """`rpmbuild -tb` is enough, and what it makes is small and in that distribution's places."""
    macros = DISTRIBUTIONS[distribution][0]
    # as Fedora and RHEL 8 compress: a package, where the spec file decides; its pages, which xz then makes no smaller
    good("rpmbuild", "-tb", "--nodeps", "--without", "check", "--define", f"_topdir {tmp_path}", "--define",
         "_binary_payload w2.xzdio", "--define",
         "__os_install_post find %{buildroot}%{_mandir} -type f -exec gzip -9n {} +", *defines(macros), tarballs[0])
    package, = glob.glob(f"{tmp_path}/RPMS/noarch/*.rpm")
    assert os.path.getsize(package) < 300000
    there = good("rpm", "-qlp", package).splitlines()
    assert "/usr/share/man/man7/kopano-ocf.7.gz" in there
    report, = (path for path in there if path.endswith("bin/kopano-ocf-report"))
    assert report == macros.get("_sbindir", "/usr/sbin") + "/kopano-ocf-report"
    assert f"{macros.get('_defaultdocdir', '/usr/share/doc')}/{NAME}/guide.md" in there
    assert not [path for path in there if path.endswith(".svg")]
