# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages on the nodes of a cluster: installed, upgraded while everything runs and is used, removed.

Debian's with apt; RPM's with rpm and a database of its own, for the nodes are Debian.
"""
import os
import re
import shutil
import signal
import sys
import time

import pytest

from conformance.agents import ROOT

from . import files
from .conftest import LIBRARY, older, older_rpm, version

sys.path.insert(0, os.path.join(ROOT, "tests", "cluster"))
import installed  # noqa: E402
import kopano_site  # noqa: E402
from drills.traffic import SERVICES, Traffic  # noqa: E402
from namespaces import wait_for  # noqa: E402

# the packages are built in the first one's set-up
pytestmark = [pytest.mark.host, pytest.mark.xdist_group("packages"), pytest.mark.timeout(300)]

SERVER = "/usr/lib/ocf/resource.d/kopano/server"
NAME = "resource-agents-kopano"
WORDS = "/var/log/mail-of-the-cluster"
# a node's sendmail, in place of Postfix; alert agents run as hacluster
SENDMAIL = f"#!/bin/sh\nid -un >>{WORDS}\ncat >>{WORDS}\n"


class Package:
    """One kind of package, and its tool on a node: words of commands."""
    def __init__(self, old, new, install, verify, remove):
        self.old, self.new = old, new
        self.install, self.verify, self.remove = install, verify, remove


@pytest.fixture(scope="module", params=["deb", pytest.param("rpm", marks=pytest.mark.long)])
def package(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("older")
    new = request.getfixturevalue(request.param)
    if request.param == "deb":
        apt = ["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends"]
        return Package(older(new, folder), new, [*apt, "install"], ["dpkg", "--verify", NAME], [*apt, "purge", NAME])
    rpm = ["rpm", "--dbpath", "/var/lib/rpm-of-the-test", "--nodeps"]
    return Package(older_rpm(request.getfixturevalue("tarballs"), folder), new,
                   [*rpm, "--force-debian", "-U"], [*rpm, "--verify", NAME], [*rpm, "-e", NAME])


def ours(node):
    """The package's files and directories on a node, with what has come to be beside them."""
    places = "/usr/lib/ocf /usr/share /usr/sbin /run/resource-agents"
    return set(node.out(f"mkdir -p /run/resource-agents; find {places} -path '*kopano*'").splitlines())


@pytest.fixture(scope="module")
def site(package):
    """A site whose nodes have the agents from an older package, with monitors every second or two."""
    furnish = kopano_site.furnish

    def without_agents(image, **options):
        furnish(image, **options)
        with open(files.GOLDEN) as golden:
            paths = [line.rstrip("\n").split(" ", 1)[1].partition(" -> ")[0] for line in golden]
        shutil.rmtree(image + LIBRARY)
        for path in paths:
            if not path.endswith("/") and os.path.lexists(image + path):
                os.unlink(image + path)
        for path in sorted((path for path in paths if "kopano" in path and path.endswith("/")), reverse=True):
            shutil.rmtree(image + path, ignore_errors=True)
        shutil.copy(package.old, f"{image}/root/old-{os.path.basename(package.new)}")
        shutil.copy(package.new, f"{image}/root/new-{os.path.basename(package.new)}")

    kopano_site.furnish = without_agents
    try:
        made = kopano_site.Site(interval=0.1)
    finally:
        kopano_site.furnish = furnish
    with made:
        made.lab.wait_online()
        made.before = {node.name: ours(node) for node in made.lab}
        for node in made.lab:
            assert node.run(["test", "-e", SERVER], check=False).returncode, "nothing is installed"
            put(node, package, "old")
        made.ready()
        yield made


def put(node, package, which):
    """Install a package on a node; what was said."""
    return node.run([*package.install, f"/root/{which}-{os.path.basename(package.new)}"], timeout=120).stdout


def says_version(node):
    """Version of the installed agents, by their meta-data."""
    return re.search(r'<resource-agent .*?version="(.*?)"', node.run([SERVER, "meta-data"]).stdout)[1]


def test_all_comes_from_the_package(site):
    for node in site.lab:
        assert says_version(node) == "0.0.1"
        assert f"{LIBRARY}/kopano_ocf/bygone.py" in ours(node)
    site["alice"].run("set -e; for file in /root/crm/*; do "
                      f"  cmp $file {installed.SHARE}/crm/shared-storage/${{file##*/}}; done")


def test_an_upgrade_disturbs_nothing(site, package):
    """Clients that never rest see nothing of it, and no monitor does."""
    def rounds(count):
        begun = {service: len(looks) for service, looks in traffic.looks.items()}
        wait_for(lambda: all(len(traffic.looks[service]) >= begun[service] + count for service in SERVICES), 60,
                 "clients have looked")
    before = site.snapshot()
    with Traffic(site, "upgrade") as traffic:
        rounds(3)
        for node in site.lab:
            begin = time.monotonic()
            put(node, package, "new")
            tool = time.monotonic() - begin
            assert says_version(node) == version()
            if node is site.active():
                node.run([SERVER, "monitor"])
                served = time.monotonic() - begin
                print(f"{package.install[0]} took {tool:.1f} s, a good monitor was there after {served:.1f} s")
                assert served - tool < 5
        begin = time.monotonic()
        rounds(10)
        wait_for(lambda: time.monotonic() > begin + 6, 10, "each resource's monitor has come round")
    bad = [(service, look.words or f"took {look.end - look.begin:.1f} s") for service, looks in traffic.looks.items()
           for look in looks if not look.good or look.end - look.begin > Traffic.SLOW]
    assert bad == [] and not traffic.vanished
    assert set(traffic.acknowledged) <= set(site.subjects(first=traffic.first))
    assert site.snapshot() == before, "nothing was restarted"
    assert [failure for failure in site.lab.status().failures if "kopano" in failure[0]] == []
    for node in site.lab:
        assert f"{LIBRARY}/kopano_ocf/bygone.py" not in ours(node)
        assert node.run(package.verify).stdout == ""


@pytest.mark.parametrize("package", ["deb"], indirect=True, scope="module")
def test_an_alert_tells_in_words(site):
    """The command of the agent's own help; a daemon dies, then its node does."""
    for node in site.lab:
        node.put("/usr/sbin/sendmail", SENDMAIL, 0o755)
        node.run(f"touch {WORDS}; chmod 666 {WORDS}")
    help_text = site["bob"].out(f"{installed.SHARE}/kopano-ocf-alert")
    site["bob"].run(re.search("^ *(crm configure alert .*)$", help_text, re.MULTILINE)[1])
    home = site.active()
    survivor = site.lab.others(home)[0]

    def told(node):
        return re.findall(r"^Subject: \[cluster\] (.*)$", node.out(["cat", WORDS]), re.MULTILINE)
    victim = site.snapshot()["gateway"]
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: "kopano-gateway was started on " + home.name in told(home), 60, "the alert of a start")
    # its two monitors may both see it
    assert list(dict.fromkeys(told(home))) == [
        f"kopano-gateway on {home.name}: it has stopped by itself", f"kopano-gateway was stopped on {home.name}",
        f"kopano-gateway was started on {home.name}"]
    assert told(survivor) == []
    assert set(re.findall("^[a-z]+$", home.out(["cat", WORDS]), re.MULTILINE)) == {"hacluster"}

    home.power_off()
    wait_for(lambda: f"kopano-monitor was started on {survivor.name}" in told(survivor), 60, "the alert of a takeover")
    words = told(survivor)
    assert words[0] == f"node {home.name} is gone"
    assert re.match(rf"node {home.name} was fenced: Operation reboot of {home.name} by {survivor.name} .*OK", words[1])
    assert [line for line in words[2:] if "kopano-server" in line] == [f"kopano-server was started on {survivor.name}"]
    survivor.run("crm --force configure delete kopano-words")


@pytest.mark.parametrize("package", ["deb"], indirect=True, scope="module")
def test_a_bundle_holds_no_password(site):
    """Of a node that serves: not the database's, a mailbox's, a fence device's, nor the one which that had before."""
    site.restore()
    database, mailbox, fence, former = "d4tab&se-Pw", "m41lbox-Pw", "f3nce&Pw,x", "the-f0rmer-Pw"
    accounts = "".join(f"ALTER USER 'kopano'@'192.168.122.{last}' IDENTIFIED BY '{database}';\n"
                       for last in (25, 26, 100, 101))
    site.active("mysqld").run(["mariadb", "--socket=/run/mysqld/mysqld.sock"], input=accounts)
    for node in site.lab:
        node.run(["sed", "-i", f"s/^mysql_password.*/mysql_password = {database.replace('&', chr(92) + '&')}/",
                  "/etc/kopano/server.cfg"])
        node.put("/etc/kopano/bundle.secret", mailbox + "\n", 0o600)
    home = site.active()
    home.run(["crm_resource", "--restart", "--resource", "kopano-server"], timeout=120)
    site.wait_started()
    site.wait_serving()
    home.run(["kopano-admin", "-c", "bert", "-p", mailbox, "-e", "bert@example.com", "-f", "Bert"])
    for name, value in (("test_user", "bert"), ("test_password_file", "/etc/kopano/bundle.secret")):
        home.run(["crm_resource", "--resource", "kopano-gateway", "--set-parameter", name, "--parameter-value", value])
    home.run(["crm", "configure", "primitive", "fence-other", "stonith:fence_ipmilan", "params", "ip=10.0.0.99",
              "username=fencing", f"password={former}", "pcmk_host_list=nobody", "meta", "target-role=Stopped"])
    home.run(["crm_resource", "--resource", "fence-other", "--set-parameter", "password", "--parameter-value", fence])
    site.lab.settle()
    said = home.out("kopano-ocf-report -o /root/bundle.tar.gz && mkdir /root/bundle && "
                    "tar -xzf /root/bundle.tar.gz --strip-components=1 -C /root/bundle", timeout=240)
    assert "Look through it" in said
    found = {secret: home.run(["grep", "-rlF", secret, "/root/bundle"], check=False).stdout
             for secret in (database, mailbox, fence, fence.replace("&", "&amp;"), former)}
    assert not any(found.values()), found
    # so they were there to be found
    for secret, place in ((database, "/etc/kopano/server.cfg"), (former, "/var/log/pacemaker/pacemaker.log"),
                          (fence.replace("&", "&amp;"), "/var/lib/pacemaker/cib/cib.xml")):
        assert home.run(["grep", "-cF", secret, place], check=False).stdout.strip() not in ("", "0"), place
    assert 'value="********"' in home.out(["grep", "fence-other.*password", "/root/bundle/cluster/cib.xml"])
    assert "mysql_password = ********" in home.out(["cat", "/root/bundle/files/etc/kopano/server.cfg"])
    assert "ready for connections" in home.out("cat /root/bundle/files/var/lib/mysql/mysqld.log")
    assert "kopano-gateway" in home.out(["cat", "/root/bundle/cluster/crm_mon"])
    home.run("rm -r /root/bundle /root/bundle.tar.gz; crm --force configure delete fence-other")


def test_the_installed_agents_recover_a_killed_server(site, package):
    site.restore()
    victim = site.snapshot()["server"]
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: [main for main in site.instances()["server"] if main != victim], 60, "a new server")
    site.wait_started()
    site.wait_serving()
    for node in site.lab:
        assert node.run(package.verify).stdout == ""


def test_removal_leaves_nothing(site, package):
    site["bob"].run(["crm_attribute", "--name", "stop-all-resources", "--update", "true"])
    site.lab.settle()
    wait_for(lambda: not any(site.instances().values()), 60, "Kopano has stopped")
    for node in site.lab:
        node.run(package.remove, timeout=120)
        assert ours(node) - site.before[node.name] == set()
