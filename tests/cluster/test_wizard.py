# SPDX-License-Identifier: GPL-2.0-or-later
"""crm/wizard: builds what the .crm files say from a site's values; refuses wrong ones before it changes anything."""
import glob
import os
import re
import runpy
import shlex
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

import sandbox
from kopano_site import CLONED, DAEMONS, ROOT, Site
from namespaces import wait_for

WIZARD = f"{ROOT}/crm/wizard"
CRM = ["crm", f"--scriptdir={WIZARD}"]
DEVICES = {"drbd": {"mysql_device": "/dev/drbd0", "kopano_device": "/dev/drbd1"},
           "shared-storage": {"mysql_device": "/dev/mapper/mysql", "kopano_device": "/dev/mapper/kopano"}}
ALONE = {"node1": "bob"}            # all that deployment=virtual-machine needs
MANUAL = {"node1": "bob", "node2": "alice", "nic": "eth0",
          "mysql_ip": "192.168.122.101", "kopano_ip": "192.168.122.100",
          "fence_ip1": "10.0.0.125", "fence_ip2": "10.0.0.126", "fence_username": "fencing",
          "fence_password_script": "/etc/pacemaker/ipmi-password"}
CAROL = {"node3": "carol", "fence_ip3": "10.0.0.127"}
# {what is built: (deployment, values, files of quorum/ that say the same)}
BUILDS = {
    "drbd": ("drbd", MANUAL, []),
    "shared-storage": ("shared-storage", MANUAL, []),
    "virtual-machine": ("virtual-machine", ALONE, []),
    "three equal nodes": ("shared-storage", {**MANUAL, **CAROL, "node3_role": "equal"}, ["three-nodes"]),
    "a third node that votes": ("shared-storage", {**MANUAL, **CAROL, "node3_role": "votes"},
                                ["three-nodes", "arbiter"]),
    "a third node beside DRBD": ("drbd", {**MANUAL, **CAROL, "node3_role": "votes"},
                                 ["three-nodes", "arbiter", "arbiter-drbd"]),
}
OTHER = {"node1": "mail-1.example.com", "node2": "mail-2.example.com", "nic": "br0.7", "cidr_netmask": "64",
         "mysql_ip": "2001:db8::101", "kopano_ip": "2001:db8::100",
         "mysql_device": "/dev/vg0/db", "kopano_device": "/dev/disk/by-id/wwn-0x5000-part1", "fstype": "xfs",
         "mysql_directory": "/srv/db", "kopano_directory": "/srv/kopano",
         "mysql_drbd": "r0", "kopano_drbd": "r1", "fence_agent": "fence_virsh", "fence_ip1": "kvm1.example.com",
         "fence_ip2": "kvm2.example.com", "fence_username": "root", "fence_password_script": "/etc/fence-password",
         "fence_options": "ssh=true identity_file=/root/.ssh/fence", "fence_plug1": "vm-1", "fence_plug2": "vm-2",
         "mysql_binary": "/usr/libexec/mariadbd", "mysql_config": "/etc/my.cnf", "mysql_datadir": "/srv/db/data"}
OTHER_NODE3 = {"node3": "vote.example.com", "fence_ip3": "kvm3.example.com", "fence_plug3": "vm-3"}
MANUALS_VALUES = re.compile(r"bob|alice|carol|192\.168\.|10\.0\.0\.|eth0|/dev/drbd|/dev/mapper|ext4|fencing|lanplus"
                            "|/var/lib|/usr/sbin|ipmi")

pytestmark = pytest.mark.xdist_group("wizard")


def words(deployment, values, **changes):
    """`deployment=... name=value ...`, as `crm script run kopano` takes them."""
    given = {"deployment": deployment, **DEVICES.get(deployment, {}), **values, **changes}
    return [f"{name}={value}" for name, value in given.items() if value is not None]


# ---- what it builds -------------------------------------------------------------------------------------

def crm(*command, cib, **options):
    return subprocess.run([*CRM, *command], env={**os.environ, "CIB_file": str(cib)}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options).stdout


@pytest.fixture(scope="module")
def agents():
    """crmsh asks the agents for their meta-data."""
    assert sandbox.inside()
    subprocess.run(["make", "--silent", "-C", ROOT, "install-agents"], check=True)


def empty_cib(path, *nodes):
    text = subprocess.run(["cibadmin", "--empty"], check=True, text=True, stdout=subprocess.PIPE).stdout
    members = "".join(f'<node id="{number}" uname="{name}"/>' for number, name in enumerate(nodes, 1))
    path.write_text(text.replace("<nodes/>", f"<nodes>{members}</nodes>")
                    .replace("<cib ", '<cib have-quorum="1" dc-uuid="1" '))
    return path


def normal(text):
    """A CIB's configuration as a value to compare: order counts where Pacemaker looks at it."""
    def tree(element):
        members = [tree(child) for child in element]
        ordered = element.tag in ("group", "resource_set")
        return element.tag, sorted(element.items()), members if ordered else sorted(members)
    configuration = ElementTree.fromstring(text).find("configuration")
    return [tree(configuration.find(part)) for part in ("resources", "constraints", "rsc_defaults")]


def properties(text):
    """The cluster's properties, without those that Pacemaker and the lab set."""
    own = ("dc-version", "cluster-infrastructure", "cluster-name", "have-watchdog", "dc-deadtime", "last-lrm-refresh")
    return {pair.get("name"): pair.get("value") for pair in ElementTree.fromstring(text).iterfind(
        "configuration/crm_config/cluster_property_set/nvpair") if pair.get("name") not in own}


def levels(text, resource):
    """The levels that a resource is monitored at."""
    pairs = ElementTree.fromstring(text).iterfind(f".//primitive[@id='{resource}']/operations/op//nvpair")
    return {pair.get("value") for pair in pairs if pair.get("name") == "OCF_CHECK_LEVEL"}


# what crmsh has to say about a machine without fencing
BLIND_FAITH = r"(WARNING: \(unpack_config\) \twarning: Blind faith: not fencing unseen nodes\n)?"


def plain(said):
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", said)


def nodes_of(values):
    return [values[name] for name in ("node1", "node2", "node3") if name in values]


def from_files(deployment, directory, leave_out=(), values=None, quorum=()):
    """The CIB when the files of the deployment have been loaded, and those of quorum/."""
    cib = empty_cib(directory / f"{deployment}-files.xml", *nodes_of(values or MANUAL))
    files = [file for file in sorted(glob.glob(f"{ROOT}/crm/{deployment}/*.crm"))
             if os.path.basename(file) not in leave_out] + [f"{ROOT}/crm/quorum/{name}.crm" for name in quorum]
    orders = "".join(f"load update {file}\n" for file in files) + "commit\n"
    assert re.fullmatch(BLIND_FAITH if deployment == "virtual-machine" else "",
                        plain(crm("configure", cib=cib, input=orders)))
    return cib.read_text()


def from_wizard(deployment, directory, values=MANUAL, **changes):
    """The CIB when the wizard has been run. Its checks are left out (`action=2` is the load alone): they need
    the cluster. So does waiting for it, and crmsh counts that there is none as an error."""
    cib = empty_cib(directory / f"{deployment}-wizard.xml", *nodes_of(values))
    said = plain(crm("script", "run", "kopano", *words(deployment, values, **changes),
                     "action=2", f"statefile={directory}/state", cib=cib))
    warned = BLIND_FAITH if deployment == "virtual-machine" else ""
    assert re.search(rf"\[localhost\]: Error \(1\): \s*{warned}\s*ERROR: Configure the cluster \(rc=False\)$",
                     said.strip()), said
    return cib.read_text()


def test_is_what_generate_makes_of_the_files():
    result = subprocess.run(["/usr/bin/python3", f"{WIZARD}/generate.py", "--check"], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (result.returncode, result.stdout) == (0, "")


LONG = pytest.mark.long         # crmsh takes ten seconds for each
SHORT = ("drbd", "virtual-machine", "a third node that votes")


@pytest.mark.parametrize("build", [pytest.param(build, marks=[] if build in SHORT else [LONG])
                                   for build in BUILDS])
def test_builds_what_the_files_say(build, agents, tmp_path):
    deployment, values, quorum = BUILDS[build]
    built = from_wizard(deployment, tmp_path, values=values)
    loaded = from_files(deployment, tmp_path, values=values, quorum=quorum)
    assert normal(built) == normal(loaded)
    assert properties(built) == properties(loaded)


@pytest.mark.parametrize("build", ["shared-storage", pytest.param("virtual-machine", marks=LONG),
                                   pytest.param("a third node that votes", marks=LONG)])
def test_without_webapp(build, agents, tmp_path):
    deployment, values, quorum = BUILDS[build]
    built = from_wizard(deployment, tmp_path, values=values, webapp="no")
    assert "webapp" not in built and "apache" not in built
    if not quorum:                      # arbiter.crm has lines for both
        loaded = from_files(deployment, tmp_path, values=values, leave_out=["050-webapp.crm"])
        assert normal(built) == normal(loaded)


@pytest.mark.parametrize("build", [pytest.param("drbd", marks=LONG), pytest.param("shared-storage", marks=LONG),
                                   "virtual-machine", "a third node beside DRBD"])
def test_another_site_has_no_value_of_the_manual(build, agents, tmp_path):
    deployment, values, _ = BUILDS[build]
    known = takes(deployment, values)
    other = {name: value for name, value in {**OTHER, **OTHER_NODE3, "node3_role": values.get("node3_role")}.items()
             if name in known and value}
    if "node3" not in values:
        other.pop("node3", None)
    if deployment == "virtual-machine":
        cib = from_wizard(deployment, tmp_path, values=other)
        assert levels(cib, "mysqld") == {"10"}
        for name in ("node1", "mysql_directory"):       # nothing is said of the only node
            other.pop(name)
    else:
        cib = from_wizard(deployment, tmp_path, values=other)
        for name in ("mysql_fs", "kopano_fs"):      # no room for root on a full XFS
            assert levels(cib, name) == {"10"}
    assert not MANUALS_VALUES.search(cib)
    other.pop("node3_role", None)
    for name, value in other.items():
        for word in value.split():
            assert word.split("=")[-1] in cib, name


def takes(deployment, values):
    """The parameters that check.py lets pass."""
    return runpy.run_path(f"{WIZARD}/kopano/check.py")["takes"]({"deployment": deployment, **values})


@pytest.mark.parametrize("build", BUILDS)
def test_takes_what_has_an_effect(build):
    deployment, values, _ = BUILDS[build]
    generate = runpy.run_path(f"{WIZARD}/generate.py")
    defined = generate["whole"]((deployment, values.get("node3_role", "none")))
    text = str([generate["versions"](name, words) for name, (words, _) in defined.items()])
    effect = set(re.findall(r"{{[#/]?(\w+)}}", text)) | {"deployment", "node1", "webapp"}
    if deployment != "virtual-machine":
        effect |= {"node3", "node3_role", "check_peers"}
    assert sorted(takes(deployment, values)) == sorted(effect)


def test_check_knows_every_parameter():
    with open(f"{WIZARD}/kopano/main.yml") as file:
        parameters = re.findall(r"^  - name: (\w+)$", file.read(), re.MULTILINE)
    check = runpy.run_path(f"{WIZARD}/kopano/check.py")
    assert sorted(check["SHAPES"]) == sorted(parameters)
    assert check["defaults"]()["fence_options"] == "lanplus=true"
    assert "node2" not in check["defaults"]()


def test_the_commands_that_are_shown_can_be_pasted():
    with open(f"{WIZARD}/README.md") as file:
        readme = re.sub("^    ", "", file.read(), flags=re.MULTILINE)
    shown = subprocess.run([*CRM, "script", "show", "kopano"], check=True, text=True, stdout=subprocess.PIPE).stdout
    shown = shown.replace("\ncrm script", f"\ncrm --scriptdir={WIZARD} script")
    commands = re.findall(r"^crm .* script run (?:.*\\\n)*.*$", readme + shown, re.MULTILINE)
    assert len(commands) == 4
    check = runpy.run_path(f"{WIZARD}/kopano/check.py")
    for command in commands:
        # verify: what would be loaded; there is no cluster that a node could be a member of
        pasted = command.replace(" script run ", " script verify ").replace("$(crm_node -n)", "bob")
        values = dict(word.split("=") for word in shlex.split(pasted.replace("\\\n", "")) if re.match(r"\w+=", word))
        values = {**check["defaults"](), **values}
        assert list(check["shapes"](values)) == [], command
        values = {name: value for name, value in values.items() if name in check["takes"](values)}
        assert list(check["pairs"](values)) == [], command
        said = subprocess.run(["sh", "-c", pasted], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT).stdout
        assert "ERROR" not in said and "\n2. Configure the cluster\n" in said, command


# ---- what it refuses ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def site():
    with Site() as running:
        running.lab.wait_online()
        node = running["bob"]
        # each of these is in the way of a single case below
        node.put("/etc/fstab", "/dev/mapper/spare /srv/in-fstab ext4 noauto 0 0\n")
        node.run("mkdir -p /srv/in-fstab /srv/mounted /srv/free; mount -t tmpfs none /srv/mounted")
        node.run("crm configure", input="property stonith-enabled=false\nprimitive elsewhere ocf:heartbeat:IPaddr2 "
                                        "params ip=192.168.122.77 meta target-role=Stopped\ncommit\n")
        yield running


def configuration(node):
    """The live cluster's configuration, and how often it has been changed."""
    cib = node.out("cibadmin --query")
    return re.search(r' epoch="\d+"', cib)[0], re.search("<configuration>.*</configuration>", cib, re.DOTALL)[0]


WRONG = [
    ("an address of another machine", {"kopano_ip": "192.168.122.26"},
     r"kopano_ip=192\.168\.122\.26: [0-9a-f:]{17} answers for it: another machine has it"),
    ("an address of this node", {"mysql_ip": "192.168.122.25"},
     r"mysql_ip=192\.168\.122\.25: this node has it on eth0 already: give one that only the cluster brings up"),
    ("an address of the cluster", {"mysql_ip": "192.168.122.77"},
     r"mysql_ip=192\.168\.122\.77: the cluster's resource elsewhere has it already"),
    ("an address on no network", {"kopano_ip": "192.168.123.100"},
     r"kopano_ip=192\.168\.123\.100: is not on the network of eth0, 192\.168\.122\.0/24"),
    ("an address on the other network", {"kopano_ip": "10.0.0.100"},
     r"kopano_ip=10\.0\.0\.100: is not on the network of eth0, 192\.168\.122\.0/24, but on that of eth1"),
    ("IPv4 and IPv6", {"kopano_ip": "2001:db8::100"},
     r"kopano_ip=2001:db8::100: IPv4 or IPv6 as mysql_ip: they have one cidr_netmask"),
    ("IPv6 addresses where there are none",
     {"mysql_ip": "2001:db8::101", "kopano_ip": "2001:db8::100", "cidr_netmask": "128"},
     r"mysql_ip=2001:db8::101: is not on the network of eth0, which has no IPv6 address\n"
     r"kopano_ip=2001:db8::100: is not on the network of eth0, which has no IPv6 address"),
    ("the broadcast address", {"kopano_ip": "192.168.122.255"},
     r"kopano_ip=192\.168\.122\.255: is the network's own address, or its broadcast address"),
    ("the same address twice", {"kopano_ip": "192.168.122.101"},
     r"kopano_ip=192\.168\.122\.101: is the same as mysql_ip"),
    ("no address", {"kopano_ip": "192.168.122.1000"}, r"kopano_ip=192\.168\.122\.1000 is not an IP address"),
    ("a parameter is missing", {"kopano_ip": None}, r"kopano_ip is missing"),
    ("no node", {"node1": None}, r"Missing required parameter\(s\): node1"),
    ("a parameter that isn't", {"kopano_port": "236"}, r"Unknown parameter kopano_port"),
    ("a wide prefix", {"cidr_netmask": "33"}, r"cidr_netmask=33: for an IPv4 address 32, or the network's own length"),
    ("an unknown interface", {"nic": "eth7"}, r"nic=eth7: no such interface, but eth0, eth1"),
    ("an unknown node", {"node2": "carol"}, r"node2=carol: the cluster has no such node, but alice, bob"),
    ("the same node twice", {"node2": "bob"}, r"node2=bob: is the same as node1"),
    ("a missing device", {"mysql_device": "/dev/mapper/mysq"},
     r"mysql_device=/dev/mapper/mysq: No such file or directory"),
    ("a file for a device", {"mysql_device": "/etc/hostname"}, r"mysql_device=/etc/hostname: is not a block device"),
    ("the same device twice", {"kopano_device": "/dev/mapper/mysql"},
     r"kopano_device=/dev/mapper/mysql: is the same as mysql_device"),
    ("another file system", {"fstype": "btrfs"},
     r"mysql_device=/dev/mapper/mysql: has ext4 where fstype=btrfs is expected\n"
     r"kopano_device=/dev/mapper/kopano: has ext4 where fstype=btrfs is expected"),
    ("no mount point", {"kopano_directory": "/srv/missing"},
     r"kopano_directory=/srv/missing: is not there: mkdir /srv/missing"),
    ("a mount point in fstab", {"kopano_directory": "/srv/in-fstab"},
     r"kopano_directory=/srv/in-fstab: /dev/mapper/spare is mounted at /srv/in-fstab by /etc/fstab: .*"),
    ("a mount point in use", {"kopano_directory": "/srv/mounted"},
     r"kopano_directory=/srv/mounted: none is mounted at /srv/mounted: umount it"),
    ("a database that isn't told", {"mysql_directory": "/srv/free"},
     r"mysql_datadir=/var/lib/mysql: isn't below mysql_directory=/srv/free: .*"),
    ("an unknown fence agent", {"fence_agent": "fence_nix"}, r"fence_agent=fence_nix: is not installed: .*"),
    ("another fence agent's option", {"fence_agent": "fence_virsh"},
     r"fence_options=lanplus=true: fence_virsh has no parameter lanplus: see `crm ra info stonith:fence_virsh`"),
    ("a fence agent without its address", {"fence_ip1": None, "fence_ip2": None},
     r"fence_ip1 is missing: fence_ipmilan needs ip"),
    ("one fence device", {"fence_ip2": None}, r"fence_ip1, fence_ip2: give both or none: each node has its own"),
    ("the same fence device twice", {"fence_ip2": "10.0.0.125"},
     r"fence_ip2=10\.0\.0\.125: is the same as fence_ip1: .*"),
    ("fence_ipmilan without ipmitool", {"fence_options": "ipmitool_path=/usr/bin/nix"},
     r"fence_agent=fence_ipmilan: /usr/bin/nix is not a program: install ipmitool, which it calls"),
    ("no password", {"fence_password_script": "/etc/pacemaker/nix"},
     r"fence_password_script=/etc/pacemaker/nix: is not a program: .*"),
    ("RHEL's MariaDB", {"mysql_binary": "/usr/libexec/mariadbd"},
     r"mysql_binary=/usr/libexec/mariadbd: is not a program: here it is /usr/sbin/mariadbd"),
    ("RHEL's my.cnf", {"mysql_config": "/etc/my.cnf"},
     r"mysql_config=/etc/my\.cnf: is not a file: here it is /etc/mysql/my\.cnf"),
    ("an unknown deployment", {"deployment": "drdb"},
     r"deployment=drdb does not match 'drbd\|shared-storage\|virtual-machine'"),
    ("DRBD's resource where there is no DRBD", {"mysql_drbd": "r0"},
     r"mysql_drbd='r0': has no effect with deployment=shared-storage: leave it out"),
    ("a virtual machine among two nodes", {"deployment": "virtual-machine", "values": ALONE},
     r"the cluster has alice too: a virtual machine is alone, for nothing in it fences: .*"),
    ("a virtual machine with all of two nodes", {"deployment": "virtual-machine"},
     "\n".join(rf"{name}='{re.escape(MANUAL[name])}': has no effect with deployment=virtual-machine: leave it out"
               for name in ("node2", "nic", "mysql_ip", "kopano_ip", "fence_ip1", "fence_ip2", "fence_username",
                            "fence_password_script"))),
    ("a virtual machine with other defaults",
     {"deployment": "virtual-machine", "values": {**ALONE, "fence_agent": "fence_virsh", "cidr_netmask": "24",
                                                  "check_peers": "yes", "mysql_device": "/dev/sdb1"}},
     "\n".join(f"{name}='.*': has no effect with deployment=virtual-machine: leave it out"
               for name in ("cidr_netmask", "mysql_device", "fence_agent", "check_peers"))),
    ("an unknown third node", {**CAROL, "node3_role": "votes"},
     r"node3=carol: the cluster has no such node, but alice, bob"),
    ("the same node thrice", {**CAROL, "node3": "alice", "node3_role": "votes"}, r"node3=alice: is the same as node2"),
    ("a third node for nothing", CAROL, r"node3=carol: say what for: node3_role=votes or, .*"),
    ("a third node that isn't said", {"node3_role": "votes"}, r"node3_role=votes: node3 is missing"),
    ("a third node's device without it", {"fence_ip3": "10.0.0.127"},
     r"fence_ip3='10\.0\.0\.127': has no effect without node3: leave it out"),
    ("a third node without a device", {"node3": "carol", "node3_role": "equal"},
     r"fence_ip1, fence_ip2, fence_ip3: give all or none: each node has its own"),
    ("a third copy of the data", {"deployment": "drbd", **CAROL, "node3_role": "equal"},
     r"node3_role=equal: with DRBD two nodes have the data: node3_role=votes"),
    ("DRBD's resource of another name", {"deployment": "drbd", "mysql_drbd": "db"},
     r"mysql_drbd=db: .*'db' not defined.*"),
    ("DRBD's other resource", {"deployment": "drbd", "kopano_device": "/dev/drbd0", "mysql_device": "/dev/drbd1"},
     r"mysql_device=/dev/drbd1: mysql_drbd=mysql is /dev/drbd0\n"
     r"kopano_device=/dev/drbd0: kopano_drbd=kopano is /dev/drbd1"),
    ("DRBD's resource without a disk", {"deployment": "drbd", "kopano_drbd": "gone", "kopano_device": "/dev/drbd2"},
     r"kopano_drbd=gone: /dev/mapper/gone: No such file or directory"),
    ("DRBD without fencing", {"deployment": "drbd", "kopano_drbd": "rash", "kopano_device": "/dev/drbd3"},
     r"kopano_drbd=rash: DRBD's configuration lacks `fencing resource-and-stonith`: .*"),
    ("a second statement", {"nic": "'eth0\"; property stonith-enabled=false'"},
     r"nic='eth0\"; property stonith-enabled=false': has characters that it can't have"),
    ("a command", {"fence_username": "'$(touch /tmp/run)`touch /tmp/run`'"},
     r"fence_username='.*': has characters that it can't have"),
    ("a placeholder", {"fence_username": "{{nic}}"}, r"fence_username='{{nic}}': has characters that it can't have"),
    ("an empty value", {"fence_username": ""}, r"fence_username: is empty: give it a value, or leave it out"),
]

DRBD_RESOURCE = """\
resource {} {{
    net {{ protocol C; fencing {}; }}
    device /dev/drbd{}; disk {}; meta-disk internal;
    on bob {{ address 10.0.0.25:778{}; }}
    on alice {{ address 10.0.0.26:778{}; }}
}}
"""
DRBD_RESOURCES = [("mysql", "/dev/mapper/mysql", "resource-and-stonith"),
                  ("kopano", "/dev/mapper/kopano", "resource-and-stonith"),
                  ("gone", "/dev/mapper/gone", "resource-and-stonith"),
                  ("rash", "/dev/mapper/../mapper/kopano", "resource-only")]
DRBD_CONF = "".join(DRBD_RESOURCE.format(name, fencing, number, disk, number, number)
                    for number, (name, disk, fencing) in enumerate(DRBD_RESOURCES))


@pytest.fixture(scope="module")
def refusals(site):
    """{case: what the wizard said}: all of them in one session of crmsh, which starts slower than it works."""
    node = site["bob"]
    node.put("/etc/drbd.conf", DRBD_CONF)
    orders = [" ".join(["script run kopano", *words(**{"deployment": "shared-storage", "values": MANUAL, **changes})])
              for _, changes, _ in WRONG]
    before, there = configuration(node), node.out("ls /tmp")
    said = node.run(CRM, input="\n".join(orders) + "\n", check=False, timeout=250).stdout
    assert configuration(node) == before, said
    assert node.out("ls /tmp") == there
    said = plain(said)
    said = re.sub(r"INFO: (Kopano Groupware|Nodes: .*)\n|ERROR: Check the values \(rc=False\)\n", "", said)
    said = re.split(r"^\s*ERROR: (?:\[bob\]: Error \(1\): |script\.run: )", said, flags=re.MULTILINE)[1:]
    assert len(said) == len(WRONG), said
    return {case: text.strip() for (case, _, _), text in zip(WRONG, said)}


@pytest.mark.timeout(300)           # all of them are tried before the first one
@pytest.mark.parametrize("case, line", [(case, line) for case, _, line in WRONG], ids=[case for case, _, _ in WRONG])
def test_refuses(refusals, case, line):
    assert re.fullmatch(line, refusals[case])


SSH = """\
#!/bin/sh
while [ "$1" != -- ]; do shift; done
echo "$2" >>/root/asked
shift 2
exec unshare --mount sh -c 'mount -t tmpfs none /dev/mapper; exec "$@"' sh "$@"
"""


def test_looks_at_the_other_node_when_asked(site):
    node = site["bob"]
    # an ssh that reaches a machine with the same network and other disks
    node.put("/usr/local/bin/ssh", SSH, 0o755)
    before = configuration(node)
    said = node.run([*CRM, "script", "run", "kopano", *words("shared-storage", MANUAL, check_peers="yes")],
                    check=False).stdout
    node.run("rm /usr/local/bin/ssh")
    assert node.out("cat /root/asked") == "alice"
    assert "[bob]: Error (1): alice: mysql_device=/dev/mapper/mysql: No such file or directory\n" \
        "alice: kopano_device=/dev/mapper/kopano: No such file or directory\n" in plain(said)
    assert configuration(node) == before


def test_knows_a_disk_in_fstab_by_its_uuid(site):
    node = site["bob"]
    fstab = node.out("cat /etc/fstab")
    node.put("/etc/fstab", f"UUID={node.out('blkid -p -s UUID -o value /dev/mapper/kopano')} /mnt ext4 noauto 0 0\n")
    said = node.run([*CRM, "script", "run", "kopano", *words("shared-storage", MANUAL)], check=False).stdout
    node.put("/etc/fstab", f"{fstab}\n")
    assert "kopano_device=/dev/mapper/kopano: is mounted at /mnt by /etc/fstab: take it out there" in said


def test_ipv6_addresses_are_as_good(site):
    node = site["bob"]
    node.run("ip address add 2001:db8::25/64 dev eth0 nodad")
    node.put("/root/state", "[]")               # what crmsh wants for action=1, the check alone
    values = words("shared-storage", MANUAL, cidr_netmask="128", mysql_ip="2001:db8::101", kopano_ip="2001:db8::100")
    said = node.run([*CRM, "script", "run", "kopano", *values, "action=1", "statefile=/root/state"], check=False)
    assert (said.returncode, "INFO\x1b[0m: Check the values" in said.stdout) == (0, True), said.stdout


def test_the_cluster_that_it_builds_runs(site, agents, tmp_path):
    node = site["bob"]
    command = [*CRM, "script", "run", "kopano", *words("shared-storage", MANUAL)]
    node.run("crm configure delete elsewhere")
    said = node.run(command, timeout=150).stdout        # it waits until everything has been started
    assert "ERROR" not in said and "WARNING" not in said
    site.wait_started(on="bob")
    built, loaded = node.out("cibadmin --query"), from_files("shared-storage", tmp_path)
    configured = configuration(node)
    assert normal(built) == normal(loaded)
    assert properties(built) == properties(loaded)
    # a second time would change what runs
    said = node.run(command, check=False).stdout
    assert re.search(r"Error \(1\): the cluster already has .*kopano-server, .*: the wizard builds", said)
    assert configuration(node) == configured


def test_no_node_is_left_out(tmp_path):
    """A node that the wizard isn't told of would start services too, and nobody could fence it."""
    def refused(nodes, **values):
        cib = empty_cib(tmp_path / "cib.xml", *nodes)
        (tmp_path / "state").write_text("[]")
        before = cib.read_text()
        said = plain(crm("script", "run", "kopano", *words("shared-storage", MANUAL, **values),
                         "action=1", f"statefile={tmp_path}/state", cib=cib))
        assert cib.read_text() == before
        return said
    three, four = ("bob", "alice", "carol"), ("bob", "alice", "carol", "dave")
    assert "the cluster has carol too: node3=carol node3_role=votes or equal, or `crm node delete`" in refused(three)
    assert "the cluster has" not in refused(three, **CAROL, node3_role="votes")
    assert "the cluster has dave too: the wizard knows three nodes" in refused(four, **CAROL, node3_role="votes")


def test_an_arbiter_is_asked_for_its_fence_agent_only(tmp_path):
    """What the other nodes are asked, with check_peers=true: an ssh that keeps it."""
    (tmp_path / "ssh").write_text("#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\n"
                                  f"head -n 1 >{tmp_path}/asked-$2\n")
    (tmp_path / "ssh").chmod(0o755)
    values = {**MANUAL, **CAROL, "node3_role": "votes"}
    program = f"import runpy; print(list(runpy.run_path({WIZARD + '/kopano/check.py'!r})['peers']({values!r})))"
    said = subprocess.run(["/usr/bin/python3", "-c", program], text=True, stdout=subprocess.PIPE,
                          env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}).stdout
    assert said == "[]\n"
    asked = {path.name: path.read_text() for path in tmp_path.glob("asked-*")}
    assert asked == {name: f"LOOK, VALUES = '{look}', {values!r}\n" for name, look in (
        ("asked-bob", "machine"), ("asked-alice", "machine"), ("asked-carol", "fencing"))}


# ---- one machine ----------------------------------------------------------------------------------------

@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_machine_that_it_builds_runs(agents, tmp_path):
    with Site(names=("bob",)) as site:
        site.lab.wait_online()
        node = site["bob"]
        # its own disks and addresses, nothing of the cluster's
        for name in ("mysql", "kopano"):
            node.run(["mount", f"/dev/mapper/{name}", f"/var/lib/{name}"])
        for address in ("192.168.122.100", "192.168.122.101"):
            node.run(["ip", "address", "add", f"{address}/24", "dev", "eth0"])
        before = configuration(node)

        def wizard(*given, **options):
            return plain(node.run([*CRM, "script", "run", "kopano", "deployment=virtual-machine", *given],
                                  check=False, **options).stdout)
        assert "Error (1): mysql_datadir=/srv/nix: is not there: mkdir /srv/nix\n" in \
            wizard("node1=bob", "mysql_datadir=/srv/nix")
        assert configuration(node) == before
        said = wizard("node1=bob", timeout=150)
        assert "ERROR" not in said
        running = [*(f"kopano-{name}" for name in DAEMONS), "mysqld", *CLONED]
        wait_for(lambda: all(site.lab.where(name) == ["bob"] for name in running), 60, "everything runs")
        site.wait_serving()
        built, loaded = node.out("cibadmin --query"), from_files("virtual-machine", tmp_path, values=ALONE)
        assert normal(built) == normal(loaded)
        assert properties(built) == properties(loaded)
        assert re.search("the cluster already has .*kopano-server, .*: the wizard builds", wizard("node1=bob"))
