# SPDX-License-Identifier: GPL-2.0-or-later
"""validate-all on the nodes of a cluster that runs as shipped: nothing to find, and then what was made wrong.

Each single finding is in tests/unit/test_validate_around.py.
"""
import pytest

from kopano_site import DAEMONS, ROOT, Site

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("validate")]

NODES = ("bob", "alice")
# What the site's nodes have to do without elsewhere: nothing there loads a firewall, or is shut down by systemd.
FILES = ("/etc/nftables.conf", "/etc/postfix/main.cf", "/etc/systemd/system/resource-agents-deps.target.d/kopano.conf")
AGENTS = (*DAEMONS, "webapp-health")


@pytest.fixture(scope="module")
def site():
    """The drbd deployment, nothing of it started by the boot."""
    with Site(deployment="drbd") as running:
        running.lab.wait_online()
        running.load()
        running.wait_started()
        for name in NODES:
            # the packages on the machine that runs the tests have switched them on
            for unit in ("mariadb", "apache2"):
                running[name].run(f"SYSTEMD_OFFLINE=1 systemctl disable {unit}.service")
            for path in FILES:
                with open(f"{ROOT}/crm/node{path}") as file:
                    running[name].put(path, file.read())
            for unit in ("nftables", "postfix"):
                running[name].run(f"cd /etc/systemd/system/multi-user.target.wants && "
                                  f"ln -sf /usr/lib/systemd/system/{unit}.service .")
        yield running


def findings(node, *agents):
    """Lines of what agents say at level 10, one after the other."""
    return node.run(f"for agent in {' '.join(agents)}; do OCF_ROOT=/usr/lib/ocf OCF_CHECK_LEVEL=10 "
                    "/usr/lib/ocf/resource.d/kopano/$agent validate-all 2>&1; done", check=False).stdout.splitlines()


def test_every_host_agrees(site):
    """As the guide says: silence, on the node that runs Kopano and on the other."""
    assert {name: findings(site[name], *AGENTS) for name in NODES} == {"bob": [], "alice": []}


def test_a_host_that_does_not(site):
    """A mistake of each kind, told by the agent that it concerns. The daemons themselves don't notice."""
    mistakes = {
        "s/^192.168.122.26 .*/127.0.1.1 alice/": "/etc/hosts",
        "s/fencing resource-and-stonith/fencing resource-only/": "/etc/drbd.d/common-*.conf",
        "s/^bind-address.*/bind-address = 192.168.122.26/": "/etc/mysql/mariadb.conf.d/90-cluster.cnf",
        "s/two_node: 1/two_node: 0/": "/etc/corosync/corosync.conf",
        "s/^mysql_password.*/mysql_password = wrong/": "/etc/kopano/server.cfg",
        "s/{ 7788, 7799 }/7788/": "/etc/nftables.conf",
        "s/^After=postfix.*//": "/etc/systemd/system/resource-agents-deps.target.d/kopano.conf",
        "s/^virtual_transport/#&/": "/etc/postfix/main.cf",
    }
    for change, files in mistakes.items():
        site["alice"].run(f"cp --parents {files} /root && sed -i '{change}' {files}")
    try:
        site["alice"].run("SYSTEMD_OFFLINE=1 systemctl enable apache2.service")
        found = findings(site["alice"], "server")
        for words in ("/etc/hosts: 127.0.1.1 = alice: ", "resource kopano: fencing = resource-only: ",
                      "90-cluster.cnf: bind-address = 192.168.122.26: ", "quorum.two_node = 0: ",
                      "/etc/kopano/server.cfg: mysql_user = kopano: kopano-server can't log in: ", "error 1045 ",
                      "/etc/nftables.conf: chain inet filter input = policy drop: nothing lets tcp 7799 in, for DRBD",
                      "resource-agents-deps.target.d: After = (without postfix.service): "):
            assert [line for line in found if line.startswith("WARNING: ") and words in line], (words, found)
        assert len(found) == 8, found                # fencing: of both resources
        [line] = findings(site["alice"], "dagent")
        assert "/etc/postfix/main.cf: virtual_transport = (none): " in line
        [line] = findings(site["alice"], "webapp-health")
        assert "systemctl disable apache2.service" in line
    finally:
        site["alice"].run("SYSTEMD_OFFLINE=1 systemctl disable apache2.service; cp -r /root/etc /")
    assert findings(site["alice"], "server", "dagent", "webapp-health") == []
