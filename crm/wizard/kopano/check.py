# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at the values given to `crm script run kopano` before anything is changed.

crmsh runs it in a directory where script.input has the values as JSON, so none of them passes through a shell.
Whatever is wrong becomes a line on stderr, "name=value: what is wrong: what to do", and the exit code is 1: crmsh
stops then, before its first change. Nothing is changed in here. Runs on Python 3.6 and later, without packages.
"""
import ipaddress
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
AGENTS = os.path.join(os.environ.get("OCF_ROOT", "/usr/lib/ocf"), "resource.d", "kopano")
# MariaDB's server: Debian and SUSE, RHEL, and their older packages
MARIADB = ("/usr/sbin/mariadbd", "/usr/libexec/mariadbd", "/usr/sbin/mysqld", "/usr/libexec/mysqld")
MY_CNF = ("/etc/mysql/my.cnf", "/etc/my.cnf")       # the first one is what ocf:heartbeat:mysql takes
APACHE = ("apache2", "httpd", "httpd2", "httpd-prefork", "httpd2-prefork")
# How long an address may take to answer that it is taken.
ANSWER_WITHIN = 2.0

# What a value may look like. Values become words of crmsh's language: no blank, quote or bracket gets into one.
WORD = r"[A-Za-z0-9_][A-Za-z0-9._@%+:,/-]*"
HOST = r"[A-Za-z0-9:][A-Za-z0-9._:-]*"
NODE = r"[A-Za-z0-9][A-Za-z0-9._-]*"
ADDRESS = r"[0-9a-fA-F.:]+"
PATH = r"(?:/[A-Za-z0-9._@%+:,=-]+)+"
OPTION = r"[a-z][a-z0-9_-]*=[A-Za-z0-9._@%+:,/-]+"
BOOLEAN = r"true|false"
SHAPES = {
    "deployment": r"[a-z-]+", "node1": NODE, "node2": NODE, "node3": NODE, "node3_role": "none|votes|equal",
    "nic": r"[A-Za-z0-9_.@-]{1,15}", "cidr_netmask": r"[0-9]{1,3}", "mysql_ip": ADDRESS, "kopano_ip": ADDRESS,
    "mysql_device": PATH, "kopano_device": PATH, "mysql_directory": PATH, "kopano_directory": PATH,
    "fstype": r"[a-z0-9]+", "mysql_drbd": WORD, "kopano_drbd": WORD,
    "mysql_binary": PATH, "mysql_config": PATH, "mysql_datadir": PATH,
    "fence_agent": r"fence_[a-z0-9_]+", "fence_ip1": HOST, "fence_ip2": HOST, "fence_ip3": HOST,
    "fence_username": WORD, "fence_password_script": PATH, "fence_options": f"{OPTION}(?: +{OPTION})*",
    "fence_plug1": NODE, "fence_plug2": NODE, "fence_plug3": NODE, "webapp": BOOLEAN, "check_peers": BOOLEAN,
}
# What a deployment needs, and what it can have too. The rest would have no effect in it.
ONE = ("node1", "mysql_directory", "mysql_binary")
ONE_MAY = ("deployment", "mysql_config", "mysql_datadir", "webapp")
TWO = ("node1", "node2", "nic", "cidr_netmask", "mysql_ip", "kopano_ip", "mysql_device", "kopano_device",
       "mysql_directory", "kopano_directory", "fstype", "mysql_binary", "fence_agent")
TWO_MAY = ONE_MAY + ("fence_ip1", "fence_ip2", "fence_username", "fence_password_script", "fence_options",
                     "fence_plug1", "fence_plug2", "node3", "node3_role", "check_peers")
NEEDED = {"virtual-machine": ONE, "shared-storage": TWO, "drbd": TWO + ("mysql_drbd", "kopano_drbd")}
MAY = {"virtual-machine": ONE_MAY, "shared-storage": TWO_MAY, "drbd": TWO_MAY}
WITH_NODE3 = ("fence_ip3", "fence_plug3")
# Resources of the wizard, by the names they have in every deployment.
RESOURCES = ("drbd_mysql", "drbd_mysql_clone", "drbd_kopano", "drbd_kopano_clone",
             "mysql", "mysql_fs", "mysql_ip", "mysqld", "kopano", "kopano_fs", "kopano_ip", "kopano-server",
             "kopano-spooler", "kopano-dagent", "kopano-monitor", "kopano-gateway", "kopano-ical",
             "apache", "apache_clone", "webapp-health", "webapp-health_clone")


class Wrong(Exception):
    """Something that can't even be looked at; its text is the line for the administrator."""


def output(*words):
    """What a program prints; Wrong when it can't be run or fails."""
    try:
        result = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                universal_newlines=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Wrong(f"{' '.join(words)}: {error}")
    if result.returncode:
        raise Wrong(f"{' '.join(words)}: {' '.join((result.stderr or result.stdout).split())}")
    return result.stdout


# ---- the values alone -------------------------------------------------------------------------------------

def takes(values):
    """The names of the parameters that the deployment takes."""
    deployment = values["deployment"]
    return NEEDED[deployment] + MAY[deployment] + (WITH_NODE3 if values.get("node3") else ())


def defaults():
    """{parameter: its value in main.yml}: crmsh fills it in, so it doesn't say that somebody has given it."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "main.yml")) as file:
        return dict(re.findall(r'^  - name: (\w+)\n(?:    .*\n)*?    value: "?(.*?)"?$', file.read(), re.MULTILINE))


def shapes(values):
    """Values that are missing, without effect, or not what their names say."""
    if values.get("deployment") not in NEEDED:
        yield f"deployment: one of {', '.join(sorted(NEEDED))}"
        return
    needed, useful, untouched = NEEDED[values["deployment"]], takes(values), defaults()
    for name in needed:
        if not values.get(name):
            yield f"{name} is missing"
    for name, value in values.items():
        if name not in useful:
            if value != untouched.get(name):
                where = "without node3" if name in WITH_NODE3 and "node3" in useful else \
                    f"with deployment={values['deployment']}"
                yield f"{name}={value!r}: has no effect {where}: leave it out"
        elif value and not re.fullmatch(SHAPES[name], value, re.ASCII):
            yield f"{name}={value!r}: has characters that it can't have"
        elif not value and name not in needed + ("fence_options",):
            yield f"{name}: is empty: give it a value, or leave it out"
        elif name in ("mysql_ip", "kopano_ip") and same(name, value) == value:
            yield f"{name}={value}: is not an IP address"


def pairs(values):
    """Two values that must differ and don't; values that contradict each other."""
    numbers = [number for number in (1, 2, 3) if f"node{number}" in values]
    every = {kind: [f"{kind}{number}" for number in numbers] for kind in ("node", "fence_plug", "fence_ip")}
    for kind in (every["node"], ("mysql_device", "kopano_device"), ("mysql_directory", "kopano_directory"),
                 ("mysql_drbd", "kopano_drbd"), every["fence_plug"], ["mysql_ip", "kopano_ip"] + every["fence_ip"]):
        seen = {}
        for name in kind:
            if name in values:
                first = seen.setdefault(same(name, values[name]), name)
                if first.startswith("fence_ip") and first != name:
                    if "fence_plug1" not in values:     # with them: one hypervisor or power switch for all
                        yield (f"{name}={values[name]}: is the same as {first}: one device for several nodes needs "
                               f"{' and '.join(every['fence_plug'])}")
                elif first != name:
                    yield f"{name}={values[name]}: is the same as {first}"
    for kind, why in (("fence_plug", ""), ("fence_ip", ": each node has its own")):
        if len({name in values for name in every[kind]}) > 1:
            yield f"{', '.join(every[kind])}: give {'both' if len(numbers) == 2 else 'all'} or none{why}"
    role = values.get("node3_role", "none")
    if "node3" in values and role == "none":
        yield f"node3={values['node3']}: say what for: node3_role=votes or, with shared storage, node3_role=equal"
    elif "node3" not in values and role != "none":
        yield f"node3_role={role}: node3 is missing"
    elif role == "equal" and values["deployment"] == "drbd":
        yield "node3_role=equal: with DRBD two nodes have the data: node3_role=votes"
    if "node2" not in values:
        return
    directory = values["mysql_directory"]
    datadir = values.get("mysql_datadir", "/var/lib/mysql")
    if not f"{datadir}/".startswith(f"{directory}/"):
        yield (f"mysql_datadir={datadir}: isn't below mysql_directory={directory}: the database would be on the "
               "node's own disk")
    if (":" in values["mysql_ip"]) != (":" in values["kopano_ip"]):
        yield f"kopano_ip={values['kopano_ip']}: IPv4 or IPv6 as mysql_ip: they have one cidr_netmask"


def same(name, value):
    """What two equal values have in common, however they are written."""
    if name.endswith("_device"):
        return os.path.realpath(value)
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return value


# ---- the cluster ------------------------------------------------------------------------------------------

def members(values):
    """{parameter: node}"""
    return {name: values[name] for name in ("node1", "node2", "node3") if name in values}


def decides_only(values, name):
    """Whether that node, "node1" and so on, has no services."""
    return name == "node3" and values["node3_role"] == "votes"


def cluster(values):
    """Nodes that the cluster doesn't have, or has besides; resources, addresses and devices that it has already."""
    cib = ElementTree.fromstring(output("cibadmin", "--query"))
    nodes = sorted(node.get("uname") for node in cib.iterfind("configuration/nodes/node"))
    unknown = {name: node for name, node in members(values).items() if node not in nodes}
    for name, node in unknown.items():
        yield f"{name}={node}: the cluster has no such node, but {', '.join(nodes)}"
    others = ", ".join(node for node in nodes if node not in members(values).values())
    if others and not unknown:
        yield f"the cluster has {others} too: " + {
            1: "a virtual machine is alone, for nothing in it fences: deployment=shared-storage or drbd",
            2: f"node3={others} node3_role=votes or equal, or `crm node delete`",
            3: "the wizard knows three nodes, and no more"}[len(members(values))]
    homes = [node for name, node in members(values).items() if not decides_only(values, name)]
    here = this_node()
    if here not in homes:
        yield f"this is {here}: run it on {' or '.join(homes)}, whose disks it wants to look at"
    resources = cib.find("configuration/resources")
    mine = RESOURCES + tuple(f"fence_{node}" for node in members(values).values() if "fence_agent" in values)
    there = [resource.get("id") for resource in resources.iter() if resource.get("id") in mine]
    if there:
        yield (f"the cluster already has {', '.join(there)}: the wizard builds, it doesn't change what is there: "
               "`crm configure edit`")
        return
    held = {(pair.get("name"), pair.get("value")): primitive.get("id")
            for primitive in resources.iter("primitive") if primitive.get("id") not in mine
            for pair in primitive.iterfind("instance_attributes/nvpair")}
    for name, key in (("mysql_ip", "ip"), ("kopano_ip", "ip"), ("mysql_device", "device"), ("kopano_device", "device"),
                      ("mysql_directory", "directory"), ("kopano_directory", "directory"),
                      ("mysql_drbd", "drbd_resource"), ("kopano_drbd", "drbd_resource")):
        if (key, values.get(name)) in held:
            yield f"{name}={values[name]}: the cluster's resource {held[key, values[name]]} has it already"


def this_node():
    """What the cluster calls this node."""
    try:
        return output("crm_node", "--name").strip()
    except Wrong:
        return socket.gethostname()


# ---- a node -----------------------------------------------------------------------------------------------

def machine(values):
    """What this node lacks, or has in the way. Run on the other nodes too, with check_peers=true."""
    if "node2" in values:
        yield from network(values)
        for name in ("mysql", "kopano"):
            yield from disk(values, name)
        yield from fencing(values)
    else:
        for name in ("mysql_directory", "mysql_datadir"):
            yield from directory(values, name)
    yield from programs(values)


def network(values):
    """The interface, and whether the cluster's addresses fit its network."""
    interfaces = {entry["ifname"]: entry for entry in json.loads(output("ip", "-j", "address")) if entry}
    own = {name: [ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}")
                  for address in entry["addr_info"] if "local" in address]
           for name, entry in interfaces.items() if name != "lo"}
    nic = values["nic"]
    if nic not in own:
        yield f"nic={nic}: no such interface, but {', '.join(sorted(own)) or 'lo alone'}"
        return
    if "UP" not in interfaces[nic]["flags"]:
        yield f"nic={nic}: is down"
    for name in ("mysql_ip", "kopano_ip"):
        word, address = f"{name}={values[name]}", ipaddress.ip_address(values[name])
        length, longest = int(values["cidr_netmask"]), address.max_prefixlen
        holder = [other for other, addresses in own.items() if address in [entry.ip for entry in addresses]]
        networks = {other: [entry.network for entry in addresses if not entry.is_link_local and
                            entry.version == address.version] for other, addresses in own.items()}
        around = {other: [network for network in some if address in network] for other, some in networks.items()}
        elsewhere = [other for other, some in around.items() if some]
        if holder:
            yield f"{word}: this node has it on {holder[0]} already: give one that only the cluster brings up"
        elif not around[nic]:
            yield (f"{word}: is not on the network of {nic}, "
                   f"{', '.join(map(str, networks[nic])) or f'which has no IPv{address.version} address'}" +
                   (f", but on that of {elsewhere[0]}" if elsewhere else ""))
        elif any(address in (network[0], network[-1]) for network in around[nic] if network.num_addresses > 2 and
                 address.version == 4):
            yield f"{word}: is the network's own address, or its broadcast address"
        elif not 1 <= length <= longest or length <= 32 < longest:
            yield f"cidr_netmask={length}: for an IPv{address.version} address {longest}, or the network's own length"


def disk(values, name):
    """A device, what is on it, and the place where it is to be mounted."""
    device, place = values[f"{name}_device"], values[f"{name}_directory"]
    word = f"{name}_device={device}"
    if values["deployment"] == "drbd":
        yield from replicated(word, device, f"{name}_drbd={values[f'{name}_drbd']}", values[f"{name}_drbd"])
    else:
        yield from block_device(word, device) or content(word, device, values["fstype"])
    yield from directory(values, f"{name}_directory")
    names = {device, os.path.realpath(device), *aliases(device)}
    for table, where in (("/proc/self/mounts", "is mounted at {}: umount it"),
                         ("/etc/fstab", "is mounted at {} by /etc/fstab: take it out there, the cluster mounts it")):
        for source, target in mounts(table):
            if source in names or os.path.realpath(source) in names:
                yield f"{word}: {where.format(target)}"
            elif target == place:
                yield f"{name}_directory={place}: {source} {where.format(target)}"


def directory(values, name):
    """What keeps a directory from being one, as a list of at most one line."""
    path = values.get(name)
    return [f"{name}={path}: is not there: mkdir {path}"] if path and not os.path.isdir(path) else []


def block_device(word, device):
    """What keeps the device from being a block device, as a list of at most one line."""
    try:
        mode = os.stat(device).st_mode
    except OSError as error:
        return [f"{word}: {error.strerror}"]
    return [] if stat.S_ISBLK(mode) else [f"{word}: is not a block device"]


def replicated(word, device, drbd_word, drbd):
    """Whether DRBD knows the resource, by this device. Its device is there only while it is up: not looked for."""
    try:
        devices, disks = output("drbdadm", "sh-dev", drbd).split(), output("drbdadm", "sh-ll-dev", drbd).split()
    except Wrong as error:
        yield f"{drbd_word}: {error}"
        return
    if device not in devices and os.path.realpath(device) not in devices:
        yield f"{word}: {drbd_word} is {' '.join(devices)}"
    for lower in disks:
        yield from block_device(f"{drbd_word}: {lower}", lower)
    if not re.search(r"fencing\s+resource-and-stonith\s*;", output("drbdadm", "dump", drbd)):
        yield (f"{drbd_word}: DRBD's configuration lacks `fencing resource-and-stonith`: "
               "without it stale data can be promoted")


def content(word, device, fstype):
    """Whether the device has the file system that it is said to have."""
    try:
        found = output("blkid", "-p", "-s", "TYPE", "-o", "value", device).strip()
    except Wrong:
        found = ""
    if found != fstype:
        yield f"{word}: has {found or 'no file system'} where fstype={fstype} is expected"


def mounts(path):
    """(source, mount point) of each line."""
    try:
        with open(path) as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    return [(words[0], words[1].rstrip("/") or "/") for words in lines
            if len(words) > 2 and not words[0].startswith("#")]


def aliases(device):
    """How an fstab may call the device: UUID=..., LABEL=... and the quoted forms."""
    try:
        tags = dict(line.split("=", 1) for line in output("blkid", "-p", "-o", "export", device).split("\n") if
                    "=" in line)
    except Wrong:
        return
    for key in ("UUID", "LABEL", "PARTUUID", "PARTLABEL"):
        if key in tags:
            yield f"{key}={tags[key]}"
            yield f'{key}="{tags[key]}"'


def fencing(values):
    """The fence agent, and whether its parameters are known to it and complete."""
    agent = values["fence_agent"]
    try:
        data = ElementTree.fromstring(output("crm_resource", "--show-metadata", f"stonith:{agent}"))
    except (Wrong, ElementTree.ParseError):
        yield f"fence_agent={agent}: is not installed: `crm ra list stonith` has those that are"
        return
    known = {parameter.get("name"): parameter for parameter in data.iter("parameter")}
    given = {"ip": "fence_ip1", "username": "fence_username", "password_script": "fence_password_script"}
    words = {key: name for key, name in given.items() if name in values}
    words.update((pair.split("=")[0], "fence_options") for pair in values.get("fence_options", "").split())
    for key, name in words.items():
        if key not in known and not key.startswith("pcmk_"):
            yield f"{name}={values[name]}: {agent} has no parameter {key}: see `crm ra info stonith:{agent}`"
    for key, parameter in known.items():
        # fence_ipmilan says that it can do without an address
        wanted = parameter.get("required") == "1" and parameter.get("deprecated") != "1" or key == "ip"
        if wanted and key not in words:
            yield f"{given.get(key, 'fence_options')} is missing: {agent} needs {key}"
    if agent == "fence_ipmilan":
        options = dict(pair.partition("=")[::2] for pair in values.get("fence_options", "").split())
        ipmitool = options.get("ipmitool_path", "/usr/bin/ipmitool")
        if not os.access(ipmitool, os.X_OK):
            yield f"fence_agent={agent}: {ipmitool} is not a program: install ipmitool, which it calls"
    script = values.get("fence_password_script")
    if script and not (os.path.isfile(script) and os.access(script, os.X_OK)):
        yield f"fence_password_script={script}: is not a program: a script that prints the password, chmod 700"


def programs(values):
    """What must be installed."""
    binary = values["mysql_binary"]
    if not (os.path.isfile(binary) and os.access(binary, os.X_OK)):
        found = [path for path in MARIADB if os.access(path, os.X_OK)]
        yield f"mysql_binary={binary}: is not a program: {'here it is ' + found[0] if found else 'install MariaDB'}"
    config = values.get("mysql_config", MY_CNF[0])
    if not os.path.isfile(config):
        found = [path for path in MY_CNF if os.path.isfile(path)]
        yield f"mysql_config={config}: is not a file" + (f": here it is {found[0]}" if found else "")
    if not os.path.exists(f"{AGENTS}/server"):
        yield f"{AGENTS}/server: the agents are not installed"
    if values.get("webapp") == "true" and not any(shutil.which(name, path=SYSTEM_PATH) for name in APACHE):
        yield "webapp=true: Apache is not installed: install it, or webapp=false"


def answers(values):
    """Cluster addresses that somebody on the network has already: asked as the kernel does, by ARP or NDP."""
    names = {values[name]: name for name in ("mysql_ip", "kopano_ip") if name in values}
    deadline = time.monotonic() + ANSWER_WITHIN
    for address in names:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, values["nic"].encode())
            try:
                sock.sendto(b"", (address, 9))                  # discard: the question comes before the packet
            except OSError as error:
                yield f"{names[address]}={address}: can't be reached over {values['nic']}: {error.strerror}"
    silent = set(names)
    while silent and time.monotonic() < deadline:
        neighbours = json.loads(output("ip", "-j", "neighbour", "show", "dev", values["nic"]) or "[]")
        states = {entry["dst"]: (entry.get("state", []), entry.get("lladdr")) for entry in neighbours if "dst" in entry}
        for address in sorted(silent):
            state, lladdr = states.get(str(ipaddress.ip_address(address)), ([], None))
            if "REACHABLE" in state:
                silent.discard(address)
                yield f"{names[address]}={address}: {lladdr} answers for it: another machine has it"
            elif "FAILED" in state:
                silent.discard(address)
        time.sleep(0.05)


# ---- the other nodes --------------------------------------------------------------------------------------

def peers(values):
    """What machine() says on the other nodes, fencing() on one that runs nothing. The values go there on stdin,
    with this program."""
    with open(os.path.abspath(__file__)) as file:
        program = file.read()
    for name, node in members(values).items():
        if node == this_node():
            continue
        what = f"LOOK, VALUES = {'fencing' if decides_only(values, name) else 'machine'!r}, {values!r}\n"
        result = subprocess.run(["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", node, "python3", "-"],
                                input=what + program, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                universal_newlines=True)
        if result.returncode:
            for line in result.stderr.splitlines() or [f"ssh: exit code {result.returncode}"]:
                yield f"{node}: {line}"


def findings(values):
    """All that is wrong; each step only when those before it found nothing, for it relies on them."""
    lines = list(shapes(values))
    if lines:
        return lines
    values = {name: value for name, value in values.items() if name in takes(values)}
    for look in (pairs, cluster, machine, answers) + ((peers,) if values.get("check_peers") == "true" else ()):
        lines = list(look(values))
        if lines:
            return lines
    return []


def main():
    """Check the values of script.input, or those that peers() has put in front of this program."""
    if "VALUES" in globals():
        look, values = globals()[globals()["LOOK"]], globals()["VALUES"]
    else:
        with open("script.input") as file:
            given = json.load(file)[0]
        look, values = findings, {name: str(given[name]) for name in SHAPES if given.get(name) is not None}
    try:
        lines = list(look(values))
    except Wrong as error:
        lines = [str(error)]
    if lines:
        sys.exit("\n".join(dict.fromkeys(lines)))


if __name__ == "__main__":
    main()
