# SPDX-License-Identifier: GPL-2.0-or-later
"""A power cut of the active node on two clusters side by side: Kopano, and Dummies in its place.

The second loads the very same files, but every resource is an ocf:pacemaker:Dummy. So what it needs is the cluster's
own share: to notice, to fence, to decide, to start one thing after the other.
"""
import re
import smtplib
import threading
import time

from kopano_site import GROUPED, Site, furnish
from lab import Lab
from namespaces import LabError, wait_for

FACTOR = 1.5


def dummies(text):
    """A crm file with Dummies in place of what runs on a node; fence devices stay."""
    # one line per primitive
    lines = re.sub(r"\\\n\s*", " ", text).split("\n")
    made = []
    for line in lines:
        found = re.match(r"primitive (\S+) ocf:\S+ (.*)", line)
        if found:
            operations = re.findall(r"op (?:start|stop|monitor) .*?(?= op | meta |$)", found[2])
            operations = [re.sub(r" (OCF_CHECK_LEVEL|on-fail|role)=\S+", "", words) for words in operations]
            seen = {}
            for words in operations:            # a Dummy has one monitor
                seen.setdefault(words.split()[1], words)
            line = f"primitive {found[1]} ocf:pacemaker:Dummy " + " ".join(seen.values())
        made.append(line)
    return "\n".join(made)


class Dummies(Site):
    """The site's cluster without the site."""

    def __init__(self, interval):
        self.deployment, self.interval = "shared-storage", interval
        self.fenced_before, self.leaked = [], 0
        self.lab = Lab(furnish=furnish)

    def adapted(self, text):
        """With Dummies."""
        return dummies(super().adapted(text))


def own_start_times(node, resources):
    """{resource: seconds that its last start took there}, as Pacemaker has measured it."""
    history = node.out("crm_mon -1 --show-detail --operations --output-as=xml")
    found = {}
    for resource in resources:
        part = re.search(rf'<resource_history id="{resource}".*?</resource_history>', history, re.DOTALL)
        took = re.findall(r'task="start".*?exec-time="(\d+)ms"', part[0]) if part else []
        found[resource] = int(took[-1]) / 1000 if took else 0.0
    return found


def beside_dummies(interval=1.0):
    """(what was measured in a line, whether it is within the target)."""
    took = {}
    with Site("shared-storage", interval=interval) as kopano, Dummies(interval) as dummy:
        for site in (kopano, dummy):
            site.lab.wait_online()
            site.load()
        kopano.wait_started()
        kopano.wait_serving()
        kopano.create_user()
        dummy.wait_started()
        both = {"Kopano": kopano, "Dummies": dummy}
        victims = {name: site.active() for name, site in both.items()}
        survivors = {name: site.lab.others(victims[name])[0] for name, site in both.items()}

        def mail_flows():
            try:
                kopano.deliver("after the power cut", timeout=1)
                return kopano.mails(timeout=1)[-1:] == ["after the power cut"]
            except (OSError, smtplib.SMTPException):
                return False

        def started():
            status = dummy.lab.status(survivors["Dummies"])
            return status and all(status.running.get(name) == [survivors["Dummies"].name] for name in GROUPED)

        def measure(name, condition):
            try:
                begin = time.monotonic()
                victims[name].power_off()
                wait_for(condition, 120, name, every=0.1)
                took[name] = time.monotonic() - begin
            except (TimeoutError, LabError) as error:
                print(error, both[name].lab.report())
        threads = [threading.Thread(target=measure, args=("Kopano", mail_flows)),
                   threading.Thread(target=measure, args=("Dummies", started))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kopano.lab.settle(node=survivors["Kopano"])
        starts = own_start_times(survivors["Kopano"], GROUPED)
    if len(took) != 2:
        return f"takeover: not finished: {took}", False
    daemons = starts["mysqld"] + starts["kopano-server"] + max(
        seconds for name, seconds in starts.items() if name.startswith("kopano-") and name != "kopano-server")
    allowed = FACTOR * took["Dummies"] + daemons
    return (f"takeover: from the power cut until mail flowed: {took['Kopano']:.1f} s; Dummies in the same groups: "
            f"{took['Dummies']:.1f} s, own starts of mysqld, kopano-server and the slowest client {daemons:.1f} s: "
            f"allowed {FACTOR} x {took['Dummies']:.1f} + {daemons:.1f} = {allowed:.1f} s"), took["Kopano"] <= allowed


if __name__ == "__main__":
    print(beside_dummies()[0])
