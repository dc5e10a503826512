# SPDX-License-Identifier: GPL-2.0-or-later
"""crm/shared-storage: loads into crmsh without a word of complaint, makes the right moves in crm_simulate."""
import glob
import os
import re
import subprocess

import pytest

import sandbox
from kopano_site import CONFIGURATION, DAEMONS, ROOT

FILES = sorted(glob.glob(f"{CONFIGURATION}/*.crm"))
CLIENTS = {f"kopano-{name}" for name in DAEMONS if name != "server"}
MYSQL = {"mysql_fs", "mysql_ip", "mysqld"}
KOPANO = {"kopano_fs", "kopano_ip", "kopano-server"}

pytestmark = pytest.mark.xdist_group("crm")


def run(*words, cib, **options):
    return subprocess.run(words, env={**os.environ, "CIB_file": str(cib)}, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options).stdout


@pytest.fixture(scope="module")
def empty_cib(tmp_path_factory):
    """The CIB of two nodes and nothing else. The agents are installed: crmsh asks for their meta-data."""
    assert sandbox.inside()
    subprocess.run(["make", "--silent", "-C", ROOT, "install"], check=True)
    text = subprocess.run(["cibadmin", "--empty"], check=True, text=True, stdout=subprocess.PIPE).stdout
    nodes = '<nodes><node id="1" uname="bob"/><node id="2" uname="alice"/></nodes>'
    path = tmp_path_factory.mktemp("cib") / "empty.xml"
    path.write_text(text.replace("<nodes/>", nodes).replace("<cib ", '<cib have-quorum="1" dc-uuid="1" '))
    return path


@pytest.fixture(scope="module")
def cib(empty_cib):
    """The CIB with everything loaded, file by file."""
    path = empty_cib.with_name("loaded.xml")
    path.write_text(empty_cib.read_text())
    for file in FILES:
        assert run("crm", "configure", "load", "update", file, cib=path) == "", file
    return path


@pytest.fixture(scope="module")
def running(cib):
    """The CIB of the cluster when everything has been started."""
    path = cib.with_name("running.xml")
    words = run("crm_simulate", "-S", "-x", cib, "-u", "bob", "-u", "alice", "-O", path, cib=cib)
    assert "Stopped" not in words.split("Revised Cluster Status")[1]
    return path


def moves(cib, *faults):
    """{resource: "Recover", ...}: what Pacemaker would do about the faults."""
    words = run("crm_simulate", "-S", "-x", cib, *faults, cib=cib)
    summary = words.split("Transition Summary:")[1].split("Executing Cluster Transition:")[0]
    return dict(reversed(line.split()[1:3]) for line in summary.splitlines() if line.startswith("  * "))


def place(cib, resource):
    """The node where a resource runs."""
    words = run("crm_simulate", "-x", cib, cib=cib)
    return re.search(rf"\* {resource}\t.*Started (\w+)", words)[1]


def test_whole_loads_at_once(cib, empty_cib):
    path = empty_cib.with_name("at-once.xml")
    path.write_text(empty_cib.read_text())
    orders = "".join(f"load update {file}\n" for file in FILES) + "commit\n"
    assert run("crm", "configure", input=orders, cib=path) == ""
    versions = re.compile(r'(epoch|num_updates|cib-last-written|update-\w+)="[^"]*"')
    assert versions.sub("", path.read_text()) == versions.sub("", cib.read_text())


def test_verified(running):
    assert run("crm_verify", "-V", "-x", running, cib=running) == ""


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_failed_daemon_is_restarted_alone(running, daemon):
    name, interval = f"kopano-{daemon}", 20000 if daemon in ("spooler", "monitor") else 10000
    assert moves(running, "-i", f"{name}_monitor_{interval}@{place(running, name)}=1") == {name: "Recover"}


def test_a_failed_database_is_restarted_alone(running):
    assert moves(running, "-i", f"mysqld_monitor_20000@{place(running, 'mysqld')}=1") == {"mysqld": "Recover"}


@pytest.mark.parametrize("resource, lost", [("mysqld", MYSQL), ("kopano-server", KOPANO | CLIENTS)])
def test_what_ran_on_a_lost_node_moves_and_nothing_else(running, resource, lost):
    assert place(running, "mysqld") != place(running, "kopano-server")
    made = moves(running, "-f", place(running, resource))
    moved = {name for name, verb in made.items() if verb in ("Move", "Recover")}
    assert moved - {"fence_bob", "fence_alice"} == lost
    assert all(verb in ("Move", "Recover", "Stop", "Fence") for verb in made.values())
