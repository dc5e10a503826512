# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's package on the nodes of a cluster, installed and upgraded with apt while everything runs."""
import os
import shutil
import signal
import sys

import pytest

from conformance.agents import ROOT

from .conftest import older, version

sys.path.insert(0, os.path.join(ROOT, "tests", "cluster"))
import kopano_site  # noqa: E402
from namespaces import wait_for  # noqa: E402

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("packages")]

APT = ["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends", "install"]


@pytest.fixture(scope="module")
def site(deb, tmp_path_factory):
    """A site whose nodes have the agents from an older package, with monitors every second or two."""
    before = older(deb, tmp_path_factory.mktemp("cluster"))
    furnish = kopano_site.furnish

    def without_agents(image, **options):
        furnish(image, **options)
        shutil.rmtree(f"{image}/usr/lib/ocf/resource.d/kopano")
        shutil.rmtree(f"{image}/usr/lib/ocf/lib/kopano")
        shutil.copy(before, f"{image}/root/older.deb")
        shutil.copy(deb, f"{image}/root/new.deb")

    kopano_site.furnish = without_agents
    try:
        made = kopano_site.Site(interval=0.1)
    finally:
        kopano_site.furnish = furnish
    with made:
        made.lab.wait_online()
        for node in made.lab:
            node.run([*APT, "/root/older.deb"], timeout=120)
        made.ready()
        yield made


def test_all_comes_from_the_package(site):
    for node in site.lab:
        assert 'version="0.0.1"' in node.run(["/usr/lib/ocf/resource.d/kopano/server", "meta-data"]).stdout
    node = site["alice"]
    node.run("set -e; for file in /root/crm/*; do "
             "  cmp $file /usr/share/resource-agents-kopano/crm/shared-storage/${file##*/}; done")


def test_an_upgrade_disturbs_nothing(site):
    before = site.snapshot()
    for node in site.lab:
        node.run([*APT, "/root/new.deb"], timeout=120)
        said = node.run(["/usr/lib/ocf/resource.d/kopano/server", "meta-data"]).stdout
        assert f'version="{version()}"' in said
    assert site.answers("server") and site.answers("gateway")
    assert site.snapshot() == before, "nothing was restarted"
    assert [failure for failure in site.lab.status().failures if "kopano" in failure[0]] == []


def test_the_installed_agents_recover_a_killed_server(site):
    victim = site.snapshot()["server"]
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: [main for main in site.instances()["server"] if main != victim], 60, "a new server")
    site.wait_started()
    site.wait_serving()
    for node in site.lab:
        assert node.run(["dpkg", "--verify", "resource-agents-kopano"]).stdout == ""
