# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/guide.md: it names only what there is, and its commands do what it says when they are pasted."""
import glob
import os
import re
import shutil
import subprocess

import pytest

import sandbox
from kopano_ocf import kopano_cfg
from kopano_site import ROOT
from lab import Lab
from namespaces import ENVIRONMENT, wait_for
from practice import LABS_SYSTEM, packages_corosync_conf

GUIDE = f"{ROOT}/docs/guide.md"
NODE = f"{ROOT}/crm/node"
DEPLOYMENTS = ("drbd", "shared-storage", "virtual-machine")


def text():
    with open(GUIDE) as file:
        return file.read()


def blocks():
    """[(heading, block of commands), ...] in order."""
    found, heading, lines, before = [], "", [], ""
    for line in text().splitlines() + ["#"]:
        if line.startswith("    ") and (lines or not before.strip()):
            lines.append(line[4:])
        elif lines and not line.strip():
            lines.append("")
        else:
            if lines:
                found += [(heading, part.strip("\n") + "\n") for part in "\n".join(lines).split("\n\n") if part.strip()]
            lines = []
            if line.startswith("## "):
                heading = line[3:]
        before = line
    return found


def commands(heading):
    """The blocks of one step, by the beginning of its heading."""
    found = [block for name, block in blocks() if name.startswith(heading)]
    assert found, heading
    return found


def code():
    """All commands, those in the running text too."""
    return "\n".join([block for _, block in blocks()] + re.findall(r"`([^`]+)`", text()))


@pytest.mark.parametrize("block", [block for _, block in blocks()])
def test_block_is_shell(block):
    done = subprocess.run(["bash", "-n"], input=block, text=True, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", ["docs/guide.md", "crm/node/README.md"])
def test_links_lead_somewhere(page):
    with open(f"{ROOT}/{page}") as file:
        words = file.read()
    headings = {re.sub("[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in words.splitlines() if line.startswith("#")}
    for link in re.findall(r"\]\(([^)]+)\)", words):
        if link.startswith("#"):
            assert link[1:] in headings
        else:
            assert os.path.exists(os.path.join(ROOT, os.path.dirname(page), link)), link


def test_files_exist():
    names = set(re.findall(r"(?<![\w/])(?:crm|docs)/[\w./*-]+", code()))
    assert len(names) > 30
    for name in names:
        assert glob.glob(f"{ROOT}/{name}"), name
        other = name.replace("crm/drbd/", "crm/shared-storage/")
        assert glob.glob(f"{ROOT}/{other}"), f"shared storage has no {other}"


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_all_steps_of_a_deployment_are_told(deployment):
    steps = {os.path.basename(path) for path in glob.glob(f"{ROOT}/crm/{deployment}/*.crm")}
    assert steps == set(re.findall(r"crm/drbd/(\d{3}-\w+\.crm)", code()))


def resources():
    found = set()
    for path in glob.glob(f"{ROOT}/crm/*/*.crm"):
        with open(path) as file:
            found |= set(re.findall(r"(?m)^(?:primitive|group|clone) (\S+)", file.read()))
    return found


def test_resources_and_nodes_exist():
    named = re.findall(r"crm resource \w+ (\S+)", code()) + re.findall(r"\bcrm_resource .*?--resource (\S+)", code())
    assert {"mysqld", "kopano"} <= set(named) <= resources()
    assert set(re.findall(r"crm node \w+ (\S+)", code())) <= {"bob", "alice"}


def test_drills_exist():
    with open(f"{ROOT}/docs/drills.md") as file:
        known = set(re.findall(r"(?m)^## (\S+)", file.read()))
    table = text()[text().index("| what fails | drills |"):].split("\n\n")[0]
    named = set(re.findall(r"\b[a-z]+(?:-[a-z]+)+\b|\bstandby\b", table))
    meant = {f"{verb}-{daemon}" for verb in ("kill", "freeze") for daemon in ("spooler", "gateway", "ical", "monitor")}
    assert named | meant == known


def test_every_file_of_a_node_has_its_place():
    """In the guide, or it would never be installed; in the table of the README."""
    with open(f"{NODE}/README.md") as file:
        table = set(re.findall(r"`([^`]+)`", file.read()))
    named = [re.sub(r"[).,:]*$", "", word) for word in re.findall(r"crm/node/[\w./*-]+", code())]
    installed = {path for name in named for path in glob.glob(f"{ROOT}/{name}")}
    for folder, _, names in os.walk(NODE):
        for name in names:
            if name == "README.md":
                continue
            path = f"{folder}/{name}"
            assert path in installed or path.endswith("webapp/config.php"), path
            assert any(path.endswith(f"/{entry}") for entry in table), f"{path} isn't in the README"


def test_files_are_copied_to_where_they_say():
    copies = re.findall(r"cp (?:-r )?((?:crm/node/\S+\s+(?:\\\n\s*)?)+)(/\S+)", code())
    assert len(copies) > 8
    for sources, target in copies:
        for source in sources.replace("\\", "").split():
            wanted = source[len("crm/node"):]
            assert target in (wanted, os.path.dirname(wanted) + "/"), (source, target)


@pytest.mark.parametrize("distribution", ["apt-get install", "dnf install"])
def test_packages_bring_what_fencing_calls(distribution):
    """Debian's fence-agents depends on none of the programs that its agents call."""
    words = next(block for block in commands("1.") if block.startswith(distribution)).split()
    metadata = subprocess.run(["fence_ipmilan", "--action=metadata"], check=True, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    program = re.search(r'<parameter name="ipmitool_path".*?default="([^"]+)"', metadata, re.DOTALL)[1]
    assert os.path.basename(program) in words


COPIES = [(page, copy) for page in ("docs/guide.md", "docs/migration.md", "docs/procedures.md", "crm/README.md")
          for copy in re.findall(r"cp -[a-zA-Z]*[rRa][a-zA-Z]* crm/\S+ [\w./-]+", open(f"{ROOT}/{page}").read())]


def test_every_page_says_how_to_copy_a_folder():
    assert {page for page, _ in COPIES} == {"docs/guide.md", "docs/migration.md", "docs/procedures.md", "crm/README.md"}


@pytest.mark.parametrize("copy", sorted({copy for _, copy in COPIES}))
def test_a_copied_folder_is_complete(tmp_path, copy):
    """The files of a deployment are links to ../common, which isn't there any more."""
    command, options, source, target = copy.split()
    target = f"{tmp_path}/{os.path.basename(target)}"
    subprocess.run([command, options, source, target], cwd=ROOT, check=True)
    files = [f"{folder}/{name}" for folder, _, names in os.walk(target) for name in names]
    assert len(files) > 5
    for file in files:
        assert os.path.isfile(file) and not os.path.islink(file), file


# ---- pasted --------------------------------------------------------------------------------------------

# As systemd has it: what runs is neither started anew nor does it read its files again, unless told to restart or
# reload. $UNITS has a file for each unit that runs, with what it has read; and NAME.enabled.
SYSTEMCTL = """
echo "systemctl $*" >>"$SAID"
declare -A reads=([corosync]=/etc/corosync/corosync.conf [nftables]=/etc/nftables.conf [postfix]=/etc/postfix/main.cf)
verb=$1 now=
shift
for word; do [ "$word" != --now ] || now=1; done
read_files() { cat "${reads[$unit]:-/dev/null}" >"$UNITS/$unit"; }
for unit; do
    unit=${unit%.service}
    case $verb,$unit in
    *,--*) ;;
    cat,* | daemon-reload,*) ;;
    enable,*) touch "$UNITS/$unit.enabled"; [ ! "$now" ] || [ -e "$UNITS/$unit" ] || read_files ;;
    disable,*) rm -f "$UNITS/$unit.enabled"; [ ! "$now" ] || rm -f "$UNITS/$unit" ;;
    start,*) [ -e "$UNITS/$unit" ] || read_files ;;
    stop,*) rm -f "$UNITS/$unit" ;;
    restart,* | reload-or-restart,*) read_files ;;
    *) echo "systemctl stub: what is $verb?"; exit 1 ;;
    esac
done
"""
POSTFIX = """
echo "postfix $*" >>"$SAID"
case $1 in
reload)
    [ -e "$UNITS/postfix" ] || { echo "postfix-script: fatal: the Postfix mail system is not running"; exit 1; }
    cat /etc/postfix/main.cf >"$UNITS/postfix"
    ;;
*) exit 1 ;;
esac
"""
STUBS = {
    "systemctl": SYSTEMCTL,
    "postfix": POSTFIX,
    "systemd-tmpfiles": 'echo "systemd-tmpfiles $*" >>"$SAID"',
    "getent": "exit 2",
}
CLUSTER = {"corosync", "pacemaker"}
MANAGED = {"mariadb", "apache2", *(f"kopano-{name}" for name in ("server", "dagent", "spooler", "gateway", "ical",
                                                                 "monitor"))}


@pytest.fixture
def paste(tmp_path):
    """Runs blocks in a copy of the files, with an /etc of their own; (/etc, what was said to the stubs)."""
    assert sandbox.inside()
    shutil.copytree(f"{ROOT}/crm", tmp_path / "crm", ignore=shutil.ignore_patterns("wizard"))
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, body in STUBS.items():
        (stubs / name).write_text(f"#!/bin/bash\n{body}\n")
        (stubs / name).chmod(0o755)
    etc, said, units = tmp_path / "etc", tmp_path / "said", tmp_path / "units"
    subprocess.run(["cp", "-a", "/etc", etc], check=True)
    said.write_text("")
    units.mkdir()
    for unit in CLUSTER | MANAGED | {"postfix"}:        # Debian's packages start what they bring
        for name in (unit, f"{unit}.enabled"):
            (units / name).write_text("as installed\n")

    def run(*parts):
        script = "\n".join((f"mount --bind {etc} /etc; ip link set lo up", *parts))
        done = subprocess.run(["unshare", "--mount", "--net", "--uts", "bash", "-e", "-c", script], text=True,
                              cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60,
                              env={**ENVIRONMENT, "PATH": f"{stubs}:{ENVIRONMENT['PATH']}", "SAID": str(said),
                                   "UNITS": str(units)})
        assert done.returncode == 0, done.stdout
        return done.stdout

    def running():
        return {file.name for file in units.iterdir() if file.suffix != ".enabled"}

    def enabled():
        return {file.stem for file in units.glob("*.enabled")}
    run.etc, run.said, run.directory, run.units = etc, said, tmp_path, units
    run.running, run.enabled = running, enabled
    return run


def test_names_pasted(paste):
    (paste.etc / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 bob\n")
    paste(*commands("2."))
    lines = (paste.etc / "hosts").read_text().splitlines()
    assert [line.split() for line in lines] == [["127.0.0.1", "localhost"], ["192.168.122.25", "bob"],
                                                ["192.168.122.26", "alice"]]


def test_boot_pasted(paste):
    paste(*commands("3."))
    assert paste.enabled() == {*CLUSTER, "postfix"}
    assert paste.running() == {*CLUSTER, *MANAGED, "postfix"}, "a site with mail needs them until its data is copied"
    assert "daemon-reload" in paste.said.read_text()
    assert (paste.etc / "systemd/system/resource-agents-deps.target.d/kopano.conf").exists()


@pytest.mark.parametrize("runs", [False, True])
def test_firewall_pasted(paste, runs):
    """It is in force at once, also where another one was."""
    if runs:
        (paste.units / "nftables").write_text("another firewall")
    paste(commands("4.")[0])
    with open(f"{NODE}/etc/nftables.conf") as file:
        assert (paste.units / "nftables").read_text() == file.read()
    assert "nftables" in paste.enabled()


class AsInstalled(Lab):
    """A lab whose nodes have the corosync.conf of Debian's package, with which it starts a cluster."""
    def node_files(self, node):
        return {**super().node_files(node), "/etc/corosync/corosync.conf": packages_corosync_conf()}


# as systemd has it: what runs isn't started anew
LABS_SYSTEMCTL = """\
#!/bin/sh
case "$*" in
"stop pacemaker corosync") exec lab-cluster stop ;;
"start corosync pacemaker" | "enable --now corosync pacemaker") exec lab-cluster start ;;
"enable corosync pacemaker") ;;
*) echo "the lab's systemctl: what is $*?" >&2; exit 1 ;;
esac
"""


@pytest.mark.host
@pytest.mark.timeout(200)
def test_corosync_pasted():
    """On nodes where the packages have started a cluster each, of one node; node numbers other than its 1."""
    key, start = commands("5.")
    with open(f"{NODE}/etc/corosync/corosync.conf") as file:
        conf = re.sub(r"nodeid: (\d)", r"nodeid: 2\1", file.read())
    with AsInstalled() as lab:
        for node in lab:
            wait_for(lambda: "Online: [ node1 ]" in node.out("crm_mon -1", check=False), 40, f"{node}: node1 is online")
            node.put("/root/crm/node/etc/corosync/corosync.conf", conf + LABS_SYSTEM)
            node.put("/usr/local/sbin/systemctl", LABS_SYSTEMCTL, 0o755)
        keygen, scp = key.strip().splitlines()
        assert scp == "scp /etc/corosync/authkey alice:/etc/corosync/"
        lab["bob"].run(f"{keygen} && cp /etc/corosync/authkey /lab/")
        lab["alice"].run("cp /lab/authkey /etc/corosync/")
        for node in lab:
            said = node.run(["bash", "-e", "-c", f"cd /root\n{start}"])
            assert "rror" not in said.stdout
        lab.wait_online()
        for node in lab:
            assert set(lab.status(node).online) == {"bob", "alice"}
        assert "node1" not in lab["bob"].out("cibadmin --query")
        flags = lab["bob"].out("corosync-quorumtool -s", check=False)
        assert re.search("Flags:.*2Node Quorate WaitForAll", flags)


def test_disks_pasted(paste):
    disk = paste.directory / "disk"
    with open(disk, "wb") as file:
        file.truncate(1 << 40)
    partition, copy, nine = commands("6a.")[:3]
    paste(partition.replace("/dev/sdb", str(disk)))
    sizes = [int(size) for size in re.findall(r"size=\s*(\d+)", subprocess.run(
        ["sfdisk", "--dump", disk], check=True, text=True, stdout=subprocess.PIPE).stdout)]
    assert sizes[0] * 512 == 100 << 30 and sizes[1] * 512 > 900 << 30 and len(sizes) == 2
    shutil.rmtree(paste.etc / "drbd.d")
    (paste.etc / "drbd.d").mkdir()
    paste(copy)
    assert 'include "common-8.4.conf"' in (paste.etc / "drbd.d/global_common.conf").read_text()
    paste(nine)
    assert 'include "common-9.conf"' in (paste.etc / "drbd.d/global_common.conf").read_text()


@pytest.mark.parametrize("module", ["8.4.11", "9.2.0"])
def test_drbd_pasted(paste, module):
    """Every command with drbdadm is understood: it says what it would do."""
    shutil.rmtree(paste.etc / "drbd.d")
    (paste.etc / "drbd.d").mkdir()
    copy, nine = commands("6a.")[1:3]
    orders = re.findall(r"drbdadm ((?!dump)\w[^`\n]*)", "\n".join(commands("6a.") + commands("7."))
                        + "\n".join(re.findall(r"`([^`]+)`", text())))
    assert {order.split()[0] for order in orders} == {"create-md", "up", "status", "primary", "new-current-uuid",
                                                      "down"}
    said = paste("ip addr add 10.0.0.25/32 dev lo", "hostname bob",
                 f"export DRBD_DRIVER_VERSION_OVERRIDE={module}", copy, nine if module > "9" else "",
                 *(f"drbdadm --dry-run {order}" for order in orders))
    assert re.search("fencing=resource-and-stonith", said)
    assert len(re.findall(r"drbdsetup\S* primary \S+ --force", said)) == 2


def test_data_pasted(paste):
    old, new, either, _, before = commands("7.")[2:]
    checks = re.findall(r"`(rsync [^`]+)`", text())
    assert "rsync" in old and "install-db" in new and "chown" in either and "before" in before and len(checks) == 1

    def only(word, block):
        return "\n".join(line for line in block.splitlines() if line.startswith(word))
    said = paste("mount -t tmpfs none /var/lib", "mount -t tmpfs none /mnt",
                 "mkdir -p /var/lib/mysql/db /var/lib/kopano/attachments /mnt/{1,2}/lost+found /mnt/mysql /mnt/kopano",
                 "mount --bind /mnt/1 /mnt/mysql; mount --bind /mnt/2 /mnt/kopano",
                 "echo data >/var/lib/mysql/db/t.ibd; echo mail >/var/lib/kopano/attachments/1",
                 "chown -R mysql:mysql /var/lib/mysql; chmod 700 /var/lib/mysql",
                 only("rsync", old), "echo CHECK", checks[0], "echo DONE",
                 "cat /mnt/kopano/attachments/1; stat -c '%U %a' /mnt/mysql; stat -c %U /mnt/mysql/db/t.ibd",
                 "rm -rf /mnt/mysql/db", "echo NEW", new.replace("\n", " >/dev/null 2>&1\n"), either, before,
                 "stat -c %U /mnt/1 /mnt/1/mysql/global_priv.frm /mnt/2; ls /mnt/mysql; ls /var/lib; ls /var/lib/mysql")
    assert said.split("CHECK\n")[1].split("DONE")[0].split() in ([], ["*deleting", "lost+found/"])
    assert said.split("DONE\n")[1].split("NEW")[0].split() == ["mail", "mysql", "700", "mysql"]
    assert said.split("NEW\n")[1].split() == ["mysql", "mysql", "kopano", "kopano", "kopano.before", "mysql",
                                              "mysql.before"]


WEBAPP = """<?php
\tdefine("CONFIG_CHECK", TRUE);
\t// Examples: define("DEFAULT_SERVER", "default:");
\tdefine("DEFAULT_SERVER", "default:");
\tdefine("SSLCERT_FILE", NULL);
"""


def test_services_pasted(paste):
    webapp = paste.etc / "kopano/webapp/config.php"
    webapp.parent.mkdir(parents=True, exist_ok=True)
    webapp.write_text(WEBAPP)
    (paste.etc / "postfix").mkdir(exist_ok=True)
    (paste.etc / "postfix/main.cf").write_text("compatibility_level = 3.6\nmyhostname = bob.example.com\n"
                                               "virtual_transport = virtual\n")
    paste(commands("7.")[1])
    assert paste.running() == CLUSTER
    said = paste(*commands("8."), "apache2ctl -t", "postconf -n")
    assert "Syntax OK" in said
    assert paste.running() == {*CLUSTER, "postfix"} and "postfix" in paste.enabled()
    assert "virtual_transport = lmtp:192.168.122.100:2003\n" in (paste.units / "postfix").read_text()
    assert kopano_cfg.default_server(str(webapp)).host == "192.168.122.100"
    assert webapp.read_text().count("\n") == WEBAPP.count("\n")
    assert kopano_cfg.read(str(paste.etc / "kopano/server.cfg"))["server_listen"] == "192.168.122.100:236"
    assert os.stat(paste.etc / "kopano/server.cfg").st_mode & 0o777 == 0o640
    for name in ("virtual_transport = lmtp:192.168.122.100:2003", "lmtp_destination_concurrency_limit = 8",
                 "smtpd_recipient_restrictions = permit_mynetworks, reject_unverified_recipient",
                 "myhostname = bob.example.com"):
        assert f"{name}\n" in said
    assert (paste.etc / "apache2/conf-enabled/kopano-cluster.conf").exists()


def test_ipv6_pasted(paste):
    differs = "diff -r crm/node ipv6"
    said = paste("\n".join(commands("IPv6")).replace(differs, f"{differs} || test $? = 1"))
    assert "> server_listen = [2001:db8:122::100]:236" in said
    assert "192.168" not in (paste.directory / "ipv6/etc/corosync/corosync.conf").read_text()


def test_one_machine_pasted(paste):
    paste(*commands("One machine"))
    conf = (paste.directory / "crm/node/etc/corosync/corosync.conf").read_text()
    assert conf.count("nodeid:") == 1 and "ring0_addr: 192.168.122.100" in conf
    assert "two_node: 1" not in conf and "ring1_addr" not in conf and conf.count("{") == conf.count("}")
    assert kopano_cfg.read(str(paste.directory / "crm/node/etc/kopano/server.cfg"))["mysql_host"] == "127.0.0.1"
    assert "'kopano'@'127.0.0.1'" in (paste.directory / "crm/node/sql/account.sql").read_text()
