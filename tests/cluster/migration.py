# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of docs/migration.md are made of: its commands, clients that notice everything, Pacemaker's plans."""
import xml.etree.ElementTree as ElementTree

from drills.traffic import SERVICES, Traffic
from namespaces import wait_for
from practice import Document

NEW = {"fence_bob", "fence_alice", "webapp-health:0", "webapp-health:1"}

MIGRATION = Document("migration.md")


class Clients(Traffic):
    """They come again and again, without a pause worth the name."""
    INTERVAL = 0.05

    def misses(self):
        """What went wrong, in words."""
        return [f"{service}: {look.words}" for service in SERVICES for look in self.looks[service] if not look.good]


def steps(heading):
    """Blocks of commands below a heading of the document."""
    return MIGRATION.commands(heading)


def planned(practice):
    """{resource: "Restart", ...}: what the document's look into the future shows; an idle cluster is waited for."""
    practice.settle()
    said = practice.follow(steps("4.")[0])
    lines = [line.split() for line in said.splitlines() if line.startswith("  * ")]
    return {line[2]: line[1] for line in lines}


def wait_planned(practice, expected):
    """Until nothing else is planned: the probes have answered."""
    plans = []

    def as_expected():
        plans.append(planned(practice))
        return plans[-1] == expected
    try:
        wait_for(as_expected, 20, "the plan")
    except TimeoutError:
        raise AssertionError(f"planned: {plans[-1]}, and not: {expected}") from None


def agents(practice):
    """{resource: agent} of what is configured."""
    said = practice.home.out("cibadmin --query --scope resources")
    return {one.get("id"): ":".join(filter(None, map(one.get, ("class", "provider", "type"))))
            for one in ElementTree.fromstring(said).iter("primitive")}


def forget_check(practice):
    """After the way back: WebApp's check, a resource without a process that the manual's cluster knows nothing of, runs
    no more. Else it isn't planned to start when the shipped configuration comes a second time."""
    for node in practice.lab:
        node.run("OCF_ROOT=/usr/lib/ocf OCF_RESOURCE_INSTANCE=webapp-health "
                 "/usr/lib/ocf/resource.d/kopano/webapp-health stop")
