# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual pages: clean, complete, and their examples work when pasted."""
import os
import re
import subprocess
import xml.etree.ElementTree as ET

import pytest

from conformance import agents

PAGES = ["ocf_kopano_%s.7" % name for name in agents.NAMES] + ["kopano-ocf.7", "kopano-ocf-report.8"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder with the pages."""
    folder = str(tmp_path_factory.mktemp("man"))
    subprocess.run(["/usr/bin/python3", agents.ROOT + "/man/pages.py", folder, "1.2.3", "1795462302"], check=True,
                   timeout=60)
    assert sorted(os.listdir(folder)) == sorted(PAGES)
    return folder


def read(folder, page):
    """A page as a reader sees it, on a wide screen."""
    env = dict(os.environ, MANWIDTH="200", LC_ALL="C.UTF-8", MAN_KEEP_FORMATTING="", GROFF_NO_SGR="1")
    text = subprocess.run(["man", "--local-file", f"{folder}/{page}"], env=env, capture_output=True, check=True,
                          timeout=30).stdout.decode()
    return re.sub(".\b", "", text)


def section(text, title):
    """The lines below a heading."""
    return re.search(rf"^{title}$(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize("page", PAGES)
def test_they_are_clean(pages, page):
    for words in (["mandoc", "-T", "lint", "-W", "style"], ["man", "--warnings", "-l", "-Tutf8", "-Z"]):
        done = subprocess.run([*words, f"{pages}/{page}"], capture_output=True, timeout=30, check=False,
                              env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80"))
        complaints = done.stderr if words[0] == "man" else done.stdout + done.stderr
        assert (done.returncode, complaints) == (0, b""), words


@pytest.mark.parametrize("name", agents.NAMES)
def test_a_page_tells_all_that_the_agent_declares(pages, name):
    text = read(pages, f"ocf_kopano_{name}.7")
    meta = agents.metadata(name)
    assert meta.findtext("shortdesc") in text
    flat = " ".join(text.split())
    for parameter in meta.iter("parameter"):
        entry = section(text, "PARAMETERS").partition(f"\n       {parameter.get('name')}")[2]
        assert parameter.find("content").get("default") in entry.split("\n\n")[0]
        assert " ".join(parameter.findtext("longdesc").split()) in flat
        assert ("reloadable" in entry.split("\n\n")[0].partition(")")[0]) == (parameter.get("reloadable") == "1")
    for action in meta.iter("action"):
        assert re.search(rf"^ +{action.get('name')}\b.*timeout {action.get('timeout')}", section(text, "ACTIONS"),
                         re.MULTILINE)
    depths = section(text, "MONITOR DEPTHS")
    assert re.findall(r"^ {7}(\d+) ", depths, re.MULTILINE) == ["0", "10", "20"]
    assert "190" in section(text, "EXIT CODES")
    for title in ("SYNOPSIS", "DESCRIPTION", "EXAMPLES", "FILES", "SEE ALSO"):
        assert section(text, title).strip()


@pytest.mark.parametrize("name", agents.NAMES)
def test_a_page_speaks_of_its_own_agent(pages, name):
    """What is so of another daemon only is said on that one's page."""
    text = read(pages, f"ocf_kopano_{name}.7")
    body = " ".join(text.partition("SEE ALSO")[0].split())
    assert f"/usr/lib/ocf/resource.d/kopano/{name}\n" in section(text, "FILES")
    assert ("schema upgrade" in body) == (name == "server")
    assert ("lmtp://" in body) == (name == "dagent")
    assert ("imap://" in body) == (name == "gateway")
    others = {"dagent", "spooler", "gateway", "ical"} - {name}
    for title in ("ACTIONS", "PARAMETERS", "EXIT CODES"):
        assert not others & set(re.findall(r"\w+", section(text, title))), title
    if name == "webapp-health":
        assert "daemon" not in section(text, "ACTIONS") + section(text, "EXIT CODES")


def examples(pages, tool):
    """The commands of all pages of agents that begin with the name of a tool, as a shell script."""
    found = []
    for name in agents.NAMES:
        block = section(read(pages, f"ocf_kopano_{name}.7"), "EXAMPLES")
        found += re.findall(rf"^ +({tool} (?:.*\\\n)*.*\n)", block, re.MULTILINE)
    return "".join(found)


@pytest.fixture(scope="module")
def installed():
    """The agents below /usr/lib/ocf, which is the sandbox's own."""
    subprocess.run(["make", "-s", "-C", agents.ROOT, "install-agents"], check=True, timeout=60)
    yield
    subprocess.run(["rm", "-r", "/usr/lib/ocf/resource.d/kopano", "/usr/lib/ocf/lib/kopano"], check=True, timeout=60)


@pytest.fixture
def cib(tmp_path):
    root = ET.fromstring(subprocess.run(["cibadmin", "--empty"], check=True, capture_output=True, timeout=20).stdout)
    root.set("have-quorum", "1")
    options = ET.SubElement(root.find(".//crm_config"), "cluster_property_set", id="options")
    ET.SubElement(options, "nvpair", id="options-fencing", name="stonith-enabled", value="false")
    ET.ElementTree(root).write(tmp_path / "cib.xml")
    return str(tmp_path / "cib.xml")


@pytest.mark.parametrize("tool, begin", [("crm", "crm() { command crm -F \"$@\"; }"),
                                         ("pcs", "pcs() { command pcs -f \"$CIB_file\" \"$@\"; }")])
@pytest.mark.usefixtures("installed")
def test_the_examples_work(pages, cib, tool, begin):
    script = examples(pages, tool)
    done = subprocess.run(["sh", "-c", f"{begin}\n{script}"], env=dict(os.environ, CIB_file=cib, LC_ALL="C.UTF-8"),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                          check=False)
    # what Pacemaker thinks of a cluster without fencing
    said = [line for line in done.stdout.decode().splitlines() if "Blind faith" not in line]
    assert (done.returncode, said) == (0, [])
    root = ET.parse(cib)
    assert {one.get("type") for one in root.iter("primitive")} == set(agents.NAMES)
    assert [one.get("type") for one in root.findall(".//clone/primitive")] == ["webapp-health"]
    for one in root.iter("primitive"):
        monitors = {(op.get("interval"), op.find(".//nvpair[@name='OCF_CHECK_LEVEL']").get("value"))
                    for op in one.iter("op") if op.get("name") == "monitor"}
        assert monitors == {(action.get("interval"), action.get("depth")) for action in
                            agents.metadata(one.get("type")).iter("action") if action.get("name") == "monitor"}
