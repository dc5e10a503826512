# SPDX-License-Identifier: GPL-2.0-or-later
"""The agents as crmsh, pcs and Pacemaker see them: installed below /usr/lib/ocf (the sandbox's own)."""
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from . import agents
from .agents import NAMES, ROOT

pytestmark = pytest.mark.usefixtures("installed")
seven = pytest.mark.parametrize("name", NAMES)
# where every agent is declared in the same way, and pcs and crmsh take seconds: the others in `make test-long`
two = pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ("server", "webapp-health") else
                                                    [pytest.mark.long]) for name in NAMES])


@pytest.fixture(scope="module")
def installed():
    """The agents below /usr/lib/ocf."""
    subprocess.run(["make", "-s", "-C", ROOT, "install-agents"], check=True, timeout=60, stdout=subprocess.DEVNULL)
    yield
    shutil.rmtree("/usr/lib/ocf/resource.d/kopano")
    shutil.rmtree("/usr/lib/ocf/lib/kopano")


@pytest.fixture
def cib(tmp_path):
    """A configuration with nothing in it, for tools that work on a file."""
    root = ET.fromstring(agents.run("cibadmin", "--empty", env=os.environ).stdout)
    root.set("have-quorum", "1")
    options = ET.SubElement(root.find(".//crm_config"), "cluster_property_set", id="options")
    ET.SubElement(options, "nvpair", id="options-fencing", name="stonith-enabled", value="false")
    file = tmp_path / "cib.xml"
    ET.ElementTree(root).write(file)
    return file


def run(*words, **environment):
    """(exit code, what it said on both channels)"""
    environment = dict(os.environ, LC_ALL="C.UTF-8", COLUMNS="200", **environment)
    done = agents.run(*words, env=environment, timeout=60)
    return done.returncode, (done.stdout + done.stderr).decode()


def parameters(name):
    return [parameter.get("name") for parameter in agents.metadata(name).iter("parameter")]


def settings(name):
    """Every parameter, as NAME=VALUE words."""
    return ["%s=%s" % (parameter, agents.value(name, parameter)) for parameter in parameters(name)]


@seven
def test_crm_resource_shows_it(name):
    code, said = run("crm_resource", "--show-metadata", "ocf:kopano:" + name)
    assert code == 0
    assert ET.canonicalize(said) == ET.canonicalize(agents.printed(name).decode())


@two
def test_pcs_describes_it(name):
    code, said = run("pcs", "resource", "describe", "ocf:kopano:" + name, "--full")
    assert code == 0
    assert "Error" not in said and "Warning" not in said
    for parameter in agents.metadata(name).iter("parameter"):
        assert "\n  %s" % parameter.get("name") in said
        assert parameter.findtext("longdesc").split()[0] in said


@two
def test_crmsh_describes_it(name):
    code, said = run("crm", "-F", "ra", "info", "ocf:kopano:" + name)
    assert code == 0
    assert "ERROR" not in said and "WARNING" not in said
    for parameter in agents.metadata(name).iter("parameter"):
        assert "\n%s (" % parameter.get("name") in said
    advised = said.partition("Operations' defaults")[2]
    for action in agents.metadata(name).iter("action"):
        if action.get("name") not in ("meta-data", "validate-all"):
            assert re.search(r"\n +%s +timeout=%s" % (action.get("name"), action.get("timeout")), advised)


# ---- pcs -------------------------------------------------------------------------------------------------

def pcs_create(cib, resource, name, *words):
    return run("pcs", "-f", str(cib), "resource", "create", resource, "ocf:kopano:" + name, *words)


@two
def test_pcs_creates_it_with_nothing_and_adds_the_advertised_monitors(name, cib):
    assert pcs_create(cib, "r", name) == (0, "")
    operations = [(op.get("name"), op.get("interval"), op.find(".//nvpair[@name='OCF_CHECK_LEVEL']"))
                  for op in ET.parse(cib).iter("op")]
    monitors = {(interval, level.get("value")) for kind, interval, level in operations if kind == "monitor"}
    advertised = agents.metadata(name).findall(".//action[@name='monitor']")
    assert monitors == {(action.get("interval"), action.get("depth")) for action in advertised}


@two
def test_pcs_creates_it_with_everything(name, cib):
    assert pcs_create(cib, "r", name, *settings(name)) == (0, "")
    assert len(ET.parse(cib).findall(".//primitive/instance_attributes/nvpair")) == len(parameters(name))


@two
def test_pcs_refuses_an_unknown_parameter(name, cib):
    code, said = pcs_create(cib, "r", name, "colour=blue")
    assert code != 0
    assert "invalid resource option 'colour'" in said


@two
def test_pcs_refuses_two_resources_with_one_configuration(name, cib):
    assert pcs_create(cib, "one", name, "config=/etc/kopano/x") == (0, "")
    code, said = pcs_create(cib, "two", name, "config=/etc/kopano/x")
    if name == "webapp-health":         # several checks may well read the same file
        assert (code, said) == (0, "")
    else:
        assert code != 0
        assert "config" in said and "one" in said


# ---- crmsh -----------------------------------------------------------------------------------------------

def load(cib, tmp_path, text):
    """What crmsh says while it takes over a configuration; its exit code is 0 whatever happens."""
    file = tmp_path / "configuration.crm"
    file.write_text(text)
    code, said = run("crm", "-F", "configure", "load", "update", str(file), CIB_file=str(cib))
    return "rc=%d\n%s" % (code, said) if code else said


def operations(name, factor=1.0):
    """Each advertised operation with its advised timeout, times `factor`."""
    words = []
    for action in agents.metadata(name).iter("action"):
        if action.get("name") in ("start", "stop", "monitor"):
            words.append("op %s timeout=%ds" % (action.get("name"), int(action.get("timeout")[:-1]) * factor))
            if action.get("interval"):
                words.append("interval=%s" % action.get("interval"))
            if action.get("depth"):
                words.append("OCF_CHECK_LEVEL=%s" % action.get("depth"))
    return " ".join(words)


def complaints(said):
    """Lines of crmsh that warn or worse, without crm_verify's opinion of a cluster that fences nobody."""
    return [line for line in said.splitlines()
            if ("WARNING" in line or "ERROR" in line) and not re.search(r"\(\w+\)\s+warning:", line)]


@two
def test_crmsh_creates_it_with_nothing(name, cib, tmp_path):
    assert complaints(load(cib, tmp_path, "primitive r ocf:kopano:%s" % name)) == []
    assert ET.parse(cib).find(".//primitive").get("type") == name


@two
def test_crmsh_takes_everything_and_the_advised_timeouts(name, cib, tmp_path):
    words = " ".join('%s="%s"' % tuple(word.split("=", 1)) for word in settings(name))
    said = load(cib, tmp_path, "primitive r ocf:kopano:%s params %s %s" % (name, words, operations(name)))
    assert complaints(said) == []
    assert len(ET.parse(cib).findall(".//primitive/instance_attributes/nvpair")) == len(parameters(name))


def test_crmsh_warns_of_shorter_timeouts(cib, tmp_path):
    """Or the test above would prove nothing."""
    said = load(cib, tmp_path, "primitive r ocf:kopano:gateway " + operations("gateway", 0.5))
    assert any("smaller than the advised" in line for line in complaints(said))


@two
def test_crmsh_refuses_an_unknown_parameter(name, cib, tmp_path):
    said = load(cib, tmp_path, "primitive r ocf:kopano:%s params colour=blue" % name)
    assert any("colour" in line for line in complaints(said))


@two
def test_crmsh_tells_of_two_resources_with_one_configuration(name, cib, tmp_path):
    line = "primitive %s ocf:kopano:%s params config=/etc/kopano/x\n"
    said = load(cib, tmp_path, line % ("one", name) + line % ("two", name))
    assert bool(complaints(said)) == (name != "webapp-health")
