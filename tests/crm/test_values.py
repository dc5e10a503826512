# SPDX-License-Identifier: GPL-2.0-or-later
"""The values in crm/: timeouts against the agents' advice, a site's values in one file, copies that agree."""
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

from offline import CRM, SEQUENCES, STEPS, run

pytestmark = pytest.mark.xdist_group("crm")

# longer than the agents advise, and why
LONGER = {
    ("Filesystem", "monitor"): "on DRBD, which may let reads wait for its fence-peer handler",
    ("apache", "monitor"): "a server-status may be slow under load",
}
# whose advised intervals of monitors aren't ours
OWN_PROVIDER = "kopano"


def advice(primitive):
    """{(action, depth): timeout in s} from the meta-data of a resource's agent."""
    agent = f"{primitive.get('class')}:{primitive.get('provider')}:{primitive.get('type')}"
    actions = ElementTree.fromstring(run("crm_resource", "--show-metadata", agent)).iter("action")
    return {(action.get("name"), int(action.get("depth") or 0)): seconds(action.get("timeout"))
            for action in actions if action.get("timeout")}


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|min|h)?", text).groups()
    return int(number) * {"s": 1, "min": 60, "h": 3600}[unit or "s"]


def level(op):
    """The OCF_CHECK_LEVEL of an op."""
    return next((int(pair.get("value")) for pair in op.iter("nvpair") if pair.get("name") == "OCF_CHECK_LEVEL"), 0)


@pytest.mark.parametrize("name", ["drbd", "shared-storage", "virtual-machine"])
def test_timeouts_are_what_the_agents_advise(loader, name):
    checked = 0
    for primitive in ElementTree.parse(loader.cib(name, "crm")).iter("primitive"):
        if primitive.get("class") != "ocf":
            continue
        advised = advice(primitive)
        ops = list(primitive.iter("op"))
        assert {"start", "stop", "monitor"} <= {op.get("name") for op in ops}, primitive.get("id")
        for op in ops:
            action, depth = op.get("name"), level(op)
            wanted = advised.get((action, depth), advised.get((action, 0)))
            given = seconds(op.get("timeout"))
            where = (primitive.get("id"), action, depth)
            if (primitive.get("type"), action) in LONGER:
                assert given >= wanted, where
            else:
                assert given == wanted, where
            if action == "monitor" and primitive.get("provider") == OWN_PROVIDER:
                assert (action, depth) in advised, where
            checked += 1
        intervals = [op.get("interval") for op in ops if op.get("name") == "monitor"]
        assert len(set(intervals)) == len(intervals), primitive.get("id")
    assert checked > 30


def test_a_sites_values_are_in_one_file():
    sites = re.compile(r"\d+\.\d+\.\d+\.\d+|\beth\d|/dev/|\bbob\b|\balice\b")
    for folder in ("drbd", "shared-storage", "virtual-machine"):
        for step in STEPS:
            for ending in ("crm", "pcs"):
                if step != "020-site":
                    with open(f"{CRM}/{folder}/{step}.{ending}") as file:
                        assert not sites.search(file.read()), file.name


@pytest.mark.parametrize("name", ["virtual-machine", "manual-groups"])
def test_copies_of_the_primitives_agree(loader, name):
    def primitives(cib):
        found = ElementTree.parse(cib).iter("primitive")
        return {entry.get("id"): essence_of(entry) for entry in found
                if entry.get("class") == "ocf" and not entry.get("id").endswith(("_fs", "_ip"))}
    assert primitives(loader.cib(name, "crm")) == primitives(loader.cib("shared-storage", "crm"))


def essence_of(entry):
    return [(part.tag, {key: value for key, value in part.items() if key != "id" or part is entry})
            for part in entry.iter() if isinstance(part.tag, str)]


def test_deployments_share_what_they_have_in_common():
    for folder in ("drbd", "shared-storage"):
        for step in STEPS:
            for ending in ("crm", "pcs"):
                file = f"{CRM}/{folder}/{step}.{ending}"
                assert os.path.islink(file) == (step != "020-site"), file
                assert not os.path.islink(file) or not os.readlink(file).startswith("/")


def test_pcs_scripts_are_clean_shell():
    files = [f"{folder}/{name}" for folder, _, names in os.walk(CRM) for name in names if name.endswith(".pcs")]
    assert len(files) > 20
    for file in files:
        subprocess.run(["sh", "-n", file], check=True)
        with open(file) as text:
            assert "set -eu\n" in text.read()


@pytest.mark.parametrize("piece, votes", [("corosync-three-nodes.conf", 3), ("corosync-quorum-device.conf", 2)])
def test_pieces_of_corosync_conf(tmp_path, piece, votes):
    """In place of the sections of the same names in the shipped corosync.conf they are accepted by corosync."""
    sections = {}
    for file in (f"{CRM}/node/etc/corosync/corosync.conf", f"{CRM}/quorum/{piece}"):
        with open(file) as text:
            sections.update(re.findall(r"^(\w+) (\{\n.*?^\})", text.read(), re.MULTILINE | re.DOTALL))
    assert not re.search(r"^\s*two_node:", sections["quorum"], re.MULTILINE)
    assert sections["nodelist"].count("nodeid:") == votes
    key, file = tmp_path / "authkey", tmp_path / "corosync.conf"
    key.write_bytes(os.urandom(256))
    sections["totem"] = sections["totem"].replace("{", f"{{\n    keyfile: {key}", 1)
    sections["logging"] = "{\n    to_stderr: yes\n    to_syslog: no\n}"
    file.write_text("".join(f"{name} {text}\n" for name, text in sections.items()))
    said = run("unshare", "--uts", "--net", "sh", "-ec", """
        hostname bob
        for address in 192.168.122.25 10.0.0.25; do ip address add $address/24 dev lo; done
        corosync -t -f -c "$0" || echo "error $?" """, str(file))
    assert "error" not in said and "warning" not in said, said


def test_only_one_of_two_waits_before_it_shoots(loader):
    """So that not both are dead after they have lost sight of each other; with a majority nobody waits."""
    for name, (_, sequence) in SEQUENCES.items():
        primitives = ElementTree.parse(loader.cib(name, "crm")).iter("primitive")
        delays = {entry.get("id"): pair.get("value") for entry in primitives
                  if entry.get("class") == "stonith" for pair in entry.iter("nvpair")
                  if pair.get("name") == "pcmk_delay_base"}
        majority = any(step.startswith("quorum/") for step in sequence) or name == "virtual-machine"
        assert set(delays) == (set() if majority else {"fence_alice"}), name


def test_readme_names_every_file():
    with open(f"{CRM}/README.md") as file:
        readme = file.read()
    for folder in ("fencing", "quorum", "variants"):
        for name in os.listdir(f"{CRM}/{folder}"):
            assert name.rpartition(".")[0] in readme, name
