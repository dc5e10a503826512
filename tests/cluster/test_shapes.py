# SPDX-License-Identifier: GPL-2.0-or-later
"""The other shapes of crm/, alive: one machine (virtual-machine), three equal nodes (shared-storage, three-nodes).

The pair of nodes is what all other tests here are about.
"""
import os
import shutil
import signal
import smtplib
import time

import pytest

import installed
import kopano_site
from drills.catalogue import RESERVE, RESTART
from kopano_site import DAEMONS, GROUPED, QUICK, Site, Watch, keep_logs
from lab import Lab
from namespaces import command, wait_for

pytestmark = pytest.mark.host


def mail_flows(site, subject, timeout=20):
    """A mail is taken, and can be read; with all that were before."""
    before = site.subjects()

    def taken():
        try:
            site.deliver(subject, timeout=3)
            return True
        except (OSError, smtplib.SMTPException):
            return False
    wait_for(taken, timeout, f"mail {subject!r} is taken", every=1)
    assert site.subjects() == [*before, subject]


# ---- one machine ---------------------------------------------------------------------------------------------

class OneLab(Lab):
    """Its node has the address that clients know."""
    FIRST_NUMBER = 100


class Machine(Site):
    """One machine with crm/virtual-machine as shipped, and the files of crm/node as virtual-machine.sed makes them."""
    grouped = tuple(name for name in GROUPED if not name.endswith(("_fs", "_ip")))
    accepted = "Blind faith: not fencing unseen nodes"

    def __init__(self):     # pylint: disable=super-init-not-called
        self.deployment, self.interval = "virtual-machine", 1.0
        self.fenced_before, self.leaked = [], 0
        self.lab = OneLab(("bob",), furnish=self.furnish)

    @staticmethod
    def furnish(image):
        """The site's, and what is on a disk of its own elsewhere."""
        kopano_site.furnish(image, "virtual-machine")
        node = f"{image}{installed.SHARE}/crm/node"
        account = shutil.copy(f"{node}/sql/account.sql", f"{image}/root")
        for file in (f"{image}/etc/kopano/server.cfg", f"{image}/etc/mysql/mariadb.conf.d/90-cluster.cnf", account):
            command(["sed", "-i", "-f", f"{node}/virtual-machine.sed", file])
        kopano_site.fill_database(f"{image}/var/lib/mysql", account)


@pytest.fixture(scope="module")
def machine():
    with Machine() as site:
        try:
            site.ready()
        except BaseException:
            print("logs of the node:", keep_logs(site.lab, "setup-virtual-machine"))
            raise
        yield site


@pytest.mark.xdist_group("one-machine")
@pytest.mark.parametrize("victim", ["kopano-server", "mariadbd"])
def test_one_machine_restarts_what_was_killed_and_nothing_else(machine, victim):
    def running():
        return {"mariadbd": machine.databases(), **{f"kopano-{name}": mains
                                                    for name, mains in machine.instances().items()}}
    before = running()
    assert [len(processes) for processes in before.values()] == [1] * (len(DAEMONS) + 1)
    with Watch(machine) as watch:
        begin = time.monotonic()
        os.kill(before[victim][0].pid, signal.SIGKILL)
        wait_for(lambda: len(running()[victim]) == 1 and running()[victim] != before[victim],
                 10 + RESTART + RESERVE, f"another {victim}")
        machine.wait_serving(timeout=60)
        took = time.monotonic() - begin
        machine.lab.settle()
        mail_flows(machine, f"after {victim}")
        after = running()
    assert not watch.violations
    assert {name for name in before if after[name] != before[name]} == {victim}
    assert took < 10 + RESTART + RESERVE        # the next monitor, and the restart


# ---- three nodes ---------------------------------------------------------------------------------------------

def disk_for_three(file):
    """MariaDB's, with an account for carol too."""
    account = f"{file}.sql"
    with open(kopano_site.DATABASE_ACCOUNT) as source, open(account, "w") as target:
        text = source.read()
        hers = [line for line in text.replace(".26'", ".27'").splitlines() if ".27'" in line]
        target.write("\n".join([text, *hers, ""]))
    kopano_site.mysql_disk(file, account)


class Three(Site):
    """bob, alice and carol: crm/shared-storage, then crm/quorum/three-nodes.crm."""
    DISKS = {"shared-storage": {**Site.DISKS["shared-storage"], "/dev/mapper/mysql": disk_for_three}}

    def __init__(self):
        super().__init__(interval=QUICK, names=("bob", "alice", "carol"))
        shutil.copy(f"{self.lab.image}{installed.SHARE}/crm/quorum/three-nodes.crm",
                    f"{self.lab.image}/root/crm/060-three-nodes.crm")


@pytest.mark.long
@pytest.mark.xdist_group("three-nodes")
def test_of_three_nodes_two_are_enough_and_one_is_not():
    with Three() as site:
        try:
            lose_two_of_three(site)
        except BaseException:
            print(site.lab.report())
            print("logs of the nodes:", keep_logs(site.lab, "three-nodes"))
            raise


def lose_two_of_three(site):
    lab = site.lab
    site.ready()
    lab.bmc.BOOT = 3600         # who is fenced stays off until we switch it on
    mail_flows(site, "three")
    with Watch(site) as watch:
        first = site.active()
        first.power_off()
        wait_for(lambda: lab.bmc.fenced() == [first.name] and site.everything_runs(), 60, "two go on")
        site.wait_serving()
        lab.settle()
        mail_flows(site, "two")

        second = site.active()
        (last,) = lab.others(second)
        second.power_off()

        def gave_up():
            # Pacemaker takes what ran on the second for running still: nobody could make sure that it is dead
            status = lab.status(last)
            return status and not status.quorum and not site.databases() and not any(site.instances().values()) \
                and not last.mounts()
        wait_for(gave_up, 60, "one alone stops what it runs")
        # it would have shot by now: of two, one that loses the other does so within this time
        end = time.monotonic() + 5
        wait_for(lambda: time.monotonic() > end or lab.bmc.fenced() != [first.name], 10, "a while")
        assert lab.bmc.fenced() == [first.name] and gave_up()

        first.power_on()
        wait_for(lambda: lab.bmc.fenced() == [first.name, second.name] and site.everything_runs(), 90,
                 "two are the majority again: they fence the third and go on")
        site.wait_serving()
        lab.settle()
        assert site.subjects() == ["three", "two"]
        mail_flows(site, "two again")
    assert watch.looks and not watch.violations
