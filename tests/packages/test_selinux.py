# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy module for SELinux: it compiles, by the commands that the manual page gives. No host here enforces it."""
import os
import re
import shutil

from conformance.agents import ROOT

from .conftest import good

SOURCES = ROOT + "/extras/selinux"


def commands():
    """What kopano-ocf(7) says to run on a node."""
    with open(ROOT + "/man/kopano-ocf.7.in") as page:
        text = page.read().replace("\\-", "-")
    return re.search(r"\n(cd [^\n]*/selinux\n.*?)\n\.RE", text, re.DOTALL)[1].splitlines()


def test_it_compiles_as_the_page_says(tmp_path):
    shutil.copytree(SOURCES, tmp_path / "selinux")
    words = [line for line in commands() if line.startswith(("checkmodule ", "semodule_package "))]
    assert len(words) == 2
    good("sh", "-ec", "\n".join(words).replace("/root/", f"{tmp_path}/"), cwd=tmp_path / "selinux")
    package = (tmp_path / "kopano_cluster.pp").read_bytes()
    for word in (b"httpd_t", b"connectto", b"cluster_var_run_t", b"/run/kopano(/.*)?"):
        assert word in package
    assert sorted(os.listdir(tmp_path / "selinux")) == ["kopano_cluster.fc", "kopano_cluster.te"]


def test_the_rest_of_the_commands():
    """They begin in the directory that is installed and load what was compiled."""
    first, *_, load, label = commands()
    assert first == "cd /usr/share/resource-agents-kopano/selinux"
    assert (load, label) == ("semodule -i /root/kopano_cluster.pp", "restorecon -R /run/kopano")
