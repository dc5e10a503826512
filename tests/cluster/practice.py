# SPDX-License-Identifier: GPL-2.0-or-later
"""The cluster on which docs/migration.md and docs/procedures.md are practised, and the commands out of them.

One cluster, of deployment drbd, serves both test files: it is brought into the state that a test begins with.
"""
import os
import re

import pytest

from kopano_site import DAEMONS, GROUPED, ROOT, Site, keep_logs
from namespaces import LabError, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))

# The nodes of this cluster have no systemd (those of test_migration_systemd.py have). They know as much of systemctl as
# the procedures need.
SYSTEMCTL = """\
#!/bin/sh
case "$*" in
"stop pacemaker corosync") exec lab-cluster stop ;;
"start corosync pacemaker") exec lab-cluster start ;;
esac
echo "the lab's systemctl: what is $*?" >&2
exit 1
"""

LABS_SYSTEM = "\nsystem {\n    sched_rr: no\n    move_to_root_cgroup: no\n}\n"


def packages_corosync_conf():
    """The corosync.conf with which Debian's package starts a cluster of one node, node1, and what a lab adds: the
    machine under it may forbid realtime scheduling and control groups."""
    with open("/etc/corosync/corosync.conf") as file:
        return file.read() + LABS_SYSTEM


class Document:
    """A file of docs/: the commands below its headings."""

    def __init__(self, name):
        with open(f"{ROOT}/docs/{name}") as file:
            self.text = file.read()

    def commands(self, heading):
        """Blocks of commands below a heading (the words it begins with), in order."""
        found = re.search(rf"^#+ {re.escape(heading)}.*?$(.*?)(?=^## |\Z)", self.text, re.MULTILINE | re.DOTALL)
        if not found:
            raise LabError(f"no heading {heading!r}")
        return re.findall(r"^```sh\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


class Practice:
    """The cluster: `configuration` is what was loaded last, "" (nothing), "manual" or "shipped"."""
    MANUAL = "lsb/manual.crm"

    def __init__(self, site):
        self.site, self.lab = site, site.lab
        self.home, self.idle = site.lab["bob"], site.lab["alice"]       # as the documents have it
        self.configuration = ""
        for node in self.lab:
            self.furnish(node)

    def furnish(self, node):
        """What a node of this cluster has beside those of others: init scripts, a word of systemctl."""
        with open(f"{HERE}/lsb/kopano") as file:
            script = file.read()
        for name in DAEMONS:
            node.put(f"/etc/init.d/kopano-{name}", script, 0o755)
        with open(f"{HERE}/lsb/mysqld") as file:
            node.put("/etc/init.d/mysqld", file.read(), 0o755)
        node.put("/usr/local/sbin/systemctl", SYSTEMCTL, 0o755)
        self.site.hasten(node)

    # ---- commands --------------------------------------------------------------------------------------

    def follow(self, block, node=None, tool="crm", instead=()):
        """Type a block of commands on a node (`home`); with `tool="pcs"` what its comments have for pcs. `instead`:
        (words, other words) to put in their place. What was said; LabError when something went wrong. In the
        documents bob runs everything: where alice does, the two change their parts."""
        lines = []
        for line in block.splitlines():
            other = re.match(r"(crm .*?)\s+# (pcs .*)", line)
            lines.append(other[2] if other and tool == "pcs" else line)
        text = "\n".join(lines)
        for words, others in instead:
            if words not in text:
                raise LabError(f"{words!r} is not in\n{text}")
            text = text.replace(words, others)
        if self.home.name == "alice":
            text = re.sub(r"\b(bob|alice)\b", lambda name: {"bob": "alice", "alice": "bob"}[name[0]], text)
        node = node or self.home
        said = node.run(["bash", "-e", "-o", "pipefail", "-c", text], timeout=120).stdout
        # crmsh ends with 0 whatever happens
        if re.search(r"ERROR|Traceback", said):
            raise LabError(f"{node.name}: {text}\n{said}")
        return said

    def settle(self):
        """Until the cluster has nothing more to do."""
        self.lab.settle(node=next(node for node in self.lab if node.alive()))

    # ---- states ----------------------------------------------------------------------------------------

    def manual(self):
        """The manual's own cluster runs: lsb: in plain groups, DRBD, no fencing."""
        if self.configuration:
            raise LabError("the manual's cluster comes first")
        with open(f"{HERE}/{self.MANUAL}") as file:
            self.home.run("crm configure load update -", input=file.read())
        self.wait_together()
        self.site.wait_serving()
        self.site.create_user()
        self.configuration = "manual"

    def shipped(self):
        """The shipped configuration runs, everything on one node (`home`), both nodes up, nothing failed."""
        if not self.configuration:
            self.site.ready()
            self.configuration = "shipped"
        elif self.configuration != "shipped":
            raise LabError("the manual's cluster is still there")
        self.lab.boot()
        for node in self.lab:                   # as a test that failed may have left it
            self.home.run(["crm_standby", "--node", node.name, "--delete"], check=False)
        self.site.restore()
        self.site.gather()
        self.wait_together()

    def wait_together(self, node=None, timeout=90):
        """Until all of Kopano and its database run on one node (that one), and the cluster is idle. It is `home`."""
        def together():
            for asked in [node] if node else self.lab:
                status = self.lab.status(asked) if asked.alive() else None
                places = [status.running.get(resource) for resource in GROUPED] if status else []
                if places and places == [places[0]] * len(places) and places[0]:
                    if not node or places[0] == [node.name]:
                        return places[0][0]
            return None
        try:
            name = wait_for(together, timeout, f"everything on {node.name if node else 'one node'}", every=0.2)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.lab.report()}") from None
        self.home = self.lab[name]
        self.idle = next(other for other in self.lab if other is not self.home)
        self.lab.settle(node=self.home)


@pytest.fixture(scope="module")
def practice_cluster():
    """The cluster for practice, online; nothing is loaded."""
    with Site("drbd", interval=0.4) as site:
        site.lab.wait_online()
        yield Practice(site)


@pytest.fixture
def practice(practice_cluster, request):
    """The same; its logs are kept when the test fails."""
    yield practice_cluster
    report = getattr(request.node, "report_call", None)
    if report is None or report.failed:
        print("logs of the nodes:", keep_logs(practice_cluster.lab, request.node.name))
