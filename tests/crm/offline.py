# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of crm/ on a CIB in a file: loaded by the real crmsh and pcs, judged by crm_verify and crm_simulate.

No cluster runs: crmsh, cibadmin and crm_verify take the CIB from $CIB_file, pcs from its -f.
"""
import contextlib
import os
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CRM = f"{ROOT}/crm"

STEPS = ("010-cluster", "020-site", "030-mysql", "040-kopano", "050-webapp")
CAROL = "+carol"            # not a file: the step where a third node joins


def steps(deployment, last="050"):
    """The files of a deployment in their order, without the ending: [folder/010-cluster, ...]."""
    return [f"{deployment}/{step}" for step in STEPS if step <= last + "~"]


# everything that crm/ has, each in a sequence that an administrator would load: {name: (nodes, steps)}
SEQUENCES = {
    "shared-storage": (("bob", "alice"), steps("shared-storage")),
    "drbd": (("bob", "alice"), steps("drbd")),
    "virtual-machine": (("bob",), steps("virtual-machine")),
    **{f"fencing-{agent}": (("bob", "alice"), [*steps("shared-storage"), f"fencing/{agent}"])
       for agent in ("ipmi", "virsh", "xvm", "sbd", "pdu")},
    "three-nodes": (("bob", "alice"), [*steps("shared-storage"), CAROL, "quorum/three-nodes"]),
    "arbiter": (("bob", "alice"), [*steps("drbd"), CAROL, "quorum/three-nodes", "quorum/arbiter",
                                   "quorum/arbiter-drbd"]),
    "arbiter-shared": (("bob", "alice"), [*steps("shared-storage"), CAROL, "quorum/three-nodes", "quorum/arbiter"]),
    "quorum-device": (("bob", "alice"), [*steps("drbd"), "quorum/two-and-device"]),
    "ipv6": (("bob", "alice"), [*steps("shared-storage", "040"), "variants/ipv6"]),
    "lan": (("bob", "alice"), [*steps("shared-storage", "040"), "variants/lan"]),
    "manual-groups": (("bob", "alice"), [*steps("shared-storage", "030"), "variants/manual-groups",
                                         "shared-storage/050-webapp"]),
}
# what crmsh has to say about a cluster without fencing, whatever is loaded
BLIND_FAITH = "WARNING: (unpack_config) \twarning: Blind faith: not fencing unseen nodes\n"


def run(*words, cib=None, **options):
    """What a command says, stderr included. CalledProcessError with it when it fails, unless check=False."""
    environment = {**os.environ, "TERM": "dumb", "PCMK_logfile": "none", **options.pop("env", {})}
    if cib:
        environment["CIB_file"] = str(cib)
    return subprocess.run(words, env=environment, check=options.pop("check", True), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options).stdout


class Loader:
    """Makes CIBs by loading files one after another. What sequences have in common is loaded once."""

    def __init__(self, folder, pcs_bin=None):
        self.folder, self.pcs_bin = str(folder), pcs_bin
        self.words = {}             # what was said at a step: {CIB's path: words}
        self._made = {}
        self._count = 0

    def cib(self, name, ending):
        """The path of the CIB after all steps of a sequence, loaded by crmsh ("crm") or pcs ("pcs")."""
        return self.all(name, ending)[-1][1]

    def all(self, name, ending):
        """[(step, CIB's path after it), ...]"""
        nodes, sequence = SEQUENCES[name]
        path = self._empty(nodes)
        done, made = (nodes, ending), []
        for step in sequence:
            file = step if step == CAROL else os.path.realpath(f"{CRM}/{step}.{ending}")
            done += (file,)
            if done not in self._made:
                self._made[done] = self._step(path, file)
            path = self._made[done]
            made.append((step, path))
        return made

    def copy(self, cib):
        """The path of a copy."""
        return shutil.copy(cib, self._path())

    def _path(self):
        self._count += 1
        return f"{self.folder}/{self._count}.xml"

    def _empty(self, nodes):
        """An empty CIB whose nodes are all online."""
        if nodes not in self._made:
            path = self._path()
            cib = ElementTree.fromstring(run("cibadmin", "--empty"))
            cib.attrib.update({"have-quorum": "1", "dc-uuid": "1"})
            for number, node in enumerate(nodes, 1):
                ElementTree.SubElement(cib.find("configuration/nodes"), "node", id=str(number), uname=node)
            ElementTree.ElementTree(cib).write(path)
            online(path, *nodes)
            self._made[nodes] = path
        return self._made[nodes]

    def _step(self, before, file):
        path = self._path()
        shutil.copy(before, path)
        if file == CAROL:
            cib = ElementTree.parse(path)
            ElementTree.SubElement(cib.find("configuration/nodes"), "node", id="3", uname="carol")
            cib.write(path)
            online(path, "carol")
            self.words[path] = ""
        elif file.endswith(".crm"):
            self.words[path] = plain(run("crm", "configure", "load", "update", file, cib=path))
        else:
            self.words[path] = run("sh", file, path, env={"PATH": f"{self.pcs_bin}:{os.environ['PATH']}"})
        return path

    def at_once(self, name):
        """(CIB's path, what crmsh said) after loading a sequence as one transaction."""
        nodes, sequence = SEQUENCES[name]
        path = self._path()
        shutil.copy(self._empty(nodes), path)
        orders = "".join(f"load update {CRM}/{step}.crm\n" for step in sequence) + "commit\n"
        return path, plain(run("crm", "configure", input=orders, cib=path))

    def running(self, name):
        """The CIB of a sequence's cluster when everything has been started."""
        key = ("running", name)
        if key not in self._made:
            path = self._path()
            shutil.copy(self.cib(name, "crm"), path)
            promotable(path)
            simulate(path, out=path)
            self._made[key] = path
        return self._made[key]


def plain(words):
    """Without colours."""
    return re.sub(r"\x1b\[\d*m", "", words)


def online(path, *nodes):
    """Note in a CIB that nodes have joined."""
    run("crm_simulate", "-x", path, *(word for node in nodes for word in ("-u", node)), "-O", path)


def promotable(path):
    """Note in a CIB what DRBD's agent says of two good copies: each may be promoted."""
    cib = ElementTree.parse(path)
    copies = [entry.get("id") for entry in cib.iter("primitive") if entry.get("type") == "drbd"]
    for state in cib.iter("node_state") if copies else ():
        node = state.get("id")
        attributes = ElementTree.SubElement(ElementTree.SubElement(state, "transient_attributes", id=node),
                                            "instance_attributes", id=f"status-{node}")
        for copy in copies:
            ElementTree.SubElement(attributes, "nvpair", id=f"status-{node}-master-{copy}", name=f"master-{copy}",
                                   value="10000")
    cib.write(path)


def fail_count(path, resource, operation, node, count):
    """Note in a CIB how often an operation has failed on a node, as in ("mysqld", "start_0", "bob", "INFINITY"),
    the last time just now."""
    for name, value in (("fail-count", count), ("last-failure", str(int(time.time())))):
        run("crm_attribute", "--type", "status", "--node", node, "--name", f"{name}-{resource}#{operation}",
            "--update", value, cib=path)


@contextlib.contextmanager
def prefer(path, resource, node):
    """While a resource is sent to a node, as by `crm resource move`."""
    run("crm_resource", "--move", "--resource", resource, "--node", node, cib=path)
    yield
    run("crm_resource", "--clear", "--resource", resource, cib=path)


# ---- what Pacemaker would do ----------------------------------------------------------------------------

def simulate(cib, *faults, out=None):
    """{resource or node: (verb, from, to), ...}: what Pacemaker does about faults, in words of crm_simulate.

    A clone's instance is there by its number. `out`: where the CIB goes that follows."""
    words = run("crm_simulate", "-S", "-x", cib, *faults, *(["-O", out] if out else []))
    if "Transition Summary:" not in words:
        return {}
    summary = words.split("Transition Summary:")[1].split("Executing Cluster Transition:")[0]
    return {match[2]: match[1] for match in re.finditer(r"^  \* (Fence \(\w+\)|\w+) +(\S+)", summary, re.MULTILINE)}


def places(cib):
    """{resource: [node, ...]}: where everything runs; promoted clones as "NAME promoted"."""
    words = run("crm_mon", "--one-shot", "--output-as=xml", "--inactive", cib=cib)
    found = {}
    for entry in ElementTree.fromstring(words).iter("resource"):
        nodes = found.setdefault(entry.get("id").split(":")[0], [])
        nodes += [node.get("name") for node in entry.iter("node")]
        if entry.get("role") in ("Master", "Promoted"):
            found.setdefault(f"{entry.get('id')} promoted", []).extend(nodes[-1:])
    return found


# ---- CIBs compared ---------------------------------------------------------------------------------------

NAMELESS = ("nvpair", "op", "meta_attributes", "instance_attributes", "resource_set", "cluster_property_set",
            "fencing-level", "expression")
ORDERED = ("group", "resource_set", "rsc_order", "rsc_colocation")


def essence(path):
    """A CIB's configuration as text, without what crmsh and pcs may choose: the ids of nameless things, the order
    of what has none, values that are the default. Comments are gone too."""
    root = ElementTree.parse(path).getroot().find("configuration")
    for entry in root.iter():
        if entry.tag in NAMELESS:
            entry.attrib.pop("id", None)
        if entry.tag == "rsc_order":
            entry.attrib.setdefault("first-action", "start")
            # the default of then-action is the value of first-action
            entry.attrib.setdefault("then-action", entry.get("first-action"))
        if entry.tag == "rsc_colocation" and entry.get("rsc-role") == "Started":
            del entry.attrib["rsc-role"]
    return _text(root)


def _text(entry, depth=0):
    head = "  " * depth + " ".join([entry.tag, *(f"{key}={value}" for key, value in sorted(entry.items()))]) + "\n"
    parts = [_text(child, depth + 1) for child in entry]
    return head + "".join(parts if entry.tag in ORDERED else sorted(parts))
