# SPDX-License-Identifier: GPL-2.0-or-later
"""The agents beside ClusterLabs' ocf.py: what they say through it, and that it would declare them alike.

ocf.py logs for the agents. Its oldest release (4.2) doubles on stderr what it logs; those until today's drop
INFO and take Pacemaker's HA_debug=0 for a wish to debug; a node may have none at all. KOPANO_OCF_PY=FOLDER
adds the releases in FOLDER/*/ocf.py to those tried here.
"""
import glob
import importlib.util
import os
import re
import sys
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape

import pytest

from . import agents
from .agents import NAMES, ROOT

INSTALLED = "/usr/lib/ocf/lib/heartbeat"
RELEASES = {os.path.basename(os.path.dirname(file)): os.path.dirname(file)
            for file in sorted(glob.glob(os.environ.get("KOPANO_OCF_PY", "/nonexistent") + "/*/ocf.py"))}
MISSING = ("missing", "a syntax error", "an exception")


def old(source):
    """ocf.py as it was in 4.2, where what matters to its users differs."""
    for now, then in (("log = logging.getLogger(", "logging.basicConfig()\nlog = logging.getLogger("),
                      (", version=1.0, ocf_version=1.0", ""), ("version=self.version", "version='1.0'"),
                      ("self.version = version", ""), ("self.ocf_version = ocf_version", "")):
        source = source.replace(now, then)
    assert "logging.basicConfig()" in source
    return source


@pytest.fixture(params=["installed", "like 4.2", *MISSING, *RELEASES])
def library(request, tmp_path):
    """(what it is, the directory to look for ocf.py in)"""
    if request.param == "installed":
        return request.param, INSTALLED
    if request.param in RELEASES:
        return request.param, RELEASES[request.param]
    if request.param != "missing":
        with open(os.path.join(INSTALLED, "ocf.py"), encoding="utf-8") as source:
            text = {"like 4.2": old(source.read()), "a syntax error": "def:",
                    "an exception": "1 / 0"}[request.param]
        (tmp_path / "ocf.py").write_text(text)
    return request.param, str(tmp_path)


def say(folder, statement, **environment):
    """stderr of an agent's process that runs `statement`, a use of kopano_ocf.report."""
    program = ("import sys; sys.argv = ['gateway', 'start']; sys.path.insert(0, %r)\n"
               "from kopano_ocf import report\n%s" % (os.path.join(ROOT, "lib"), statement))
    environment.update(OCF_FUNCTIONS_DIR=folder, OCF_RESOURCE_INSTANCE="kopano-gateway")
    done = agents.run("/usr/bin/python3", "-IS", "-c", program, env=environment)
    assert (done.returncode, done.stdout) == (0, b"")
    return done.stderr.decode()


def test_the_reason_is_said_once(library):
    kind, folder = library
    said = say(folder, "report.exit_reason('the port is taken by nginx')")
    assert said == "ocf-exit-reason:the port is taken by nginx\n"


def test_what_is_logged_does_not_reach_stderr(library):
    kind, folder = library
    assert say(folder, "report.log('info', 'up'); report.log('warning', 'careful')") == ""


@pytest.mark.parametrize("debug", [None, "0", ""])
def test_the_log_file_gets_reasons_warnings_and_news_but_no_debugging(library, tmp_path, debug):
    kind, folder = library
    log = tmp_path / "ha.log"
    environment = {"HA_LOGFILE": str(log)}
    if debug is not None:
        environment["HA_debug"] = debug
    say(folder, "report.log('info', 'now up')\n"
                "report.log('warning', 'be careful')\n"
                "report.exit_reason('all gone')\n"
                "found = report.ocf()\n"
                "if found: found.logger.debug('detail')", **environment)
    if kind in MISSING:
        assert not log.exists()
        return
    lines = log.read_text().splitlines()
    assert [re.sub(r".*(INFO|WARNING|ERROR|DEBUG): ", r"\1 ", line) for line in lines] == [
        "INFO now up", "WARNING be careful", "ERROR all gone"]
    assert all("kopano-gateway" in line for line in lines)


@pytest.mark.parametrize("variable", ["HA_LOGFILE", "HA_DEBUGLOG"])
def test_a_log_that_can_not_be_written_stops_nothing(library, variable):
    kind, folder = library
    said = say(folder, "report.exit_reason('gone')", **{variable: "/nonexistent/ha.log"})
    assert said == "ocf-exit-reason:gone\n"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "webapp-health"])
def test_an_agent_tells_its_reason_through_it(name, library, tmp_path):
    kind, folder = library
    log = tmp_path / "ha.log"
    done = agents.run(agents.path(name), "start", timeout=60, env={
        "OCF_ROOT": "/usr/lib/ocf", "OCF_FUNCTIONS_DIR": folder, "OCF_RESOURCE_INSTANCE": "r",
        "OCF_RESKEY_config": "/nonexistent.cfg", "OCF_RESKEY_binary": "/bin/sleep",
        "OCF_RESKEY_CRM_meta_timeout": "20000", "HA_LOGFILE": str(log), "HA_debug": "0"})
    assert done.returncode == 5
    reasons = done.stderr.decode().splitlines()
    assert len(reasons) == 1
    assert reasons[0].startswith("ocf-exit-reason:") and "/nonexistent.cfg" in reasons[0]
    if kind not in MISSING:
        assert reasons[0].partition(":")[2] in log.read_text()


# ---- the declaration, as ocf.py's own Agent would print it -----------------------------------------------

@pytest.fixture(scope="module")
def ocf():
    """ClusterLabs' library itself."""
    spec = importlib.util.spec_from_file_location("clusterlabs_ocf", os.path.join(INSTALLED, "ocf.py"))
    module = importlib.util.module_from_spec(spec)
    words, sys.argv = sys.argv, ["agent"]
    try:
        spec.loader.exec_module(module)
    finally:
        sys.argv = words
    return module


def facts(root):
    """What OCF 1.0 knows about an agent, from its meta-data."""
    def text(element, tag):
        return " ".join(element.findtext(tag).split())

    parameters = [(parameter.get("name"), parameter.get("unique", "0"), parameter.get("required", "0"),
                   text(parameter, "shortdesc"), text(parameter, "longdesc"),
                   parameter.find("content").get("type"), parameter.find("content").get("default"))
                  for parameter in root.iter("parameter")]
    actions = [(action.get("name"), action.get("timeout"), action.get("interval"), action.get("depth"))
               for action in root.iter("action")]
    return (root.get("name"), root.get("version"), text(root, "shortdesc"), text(root, "longdesc"),
            parameters, actions)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_meta_data_that_ocf_py_would_print(name, ocf):
    from kopano_ocf import VERSION, metadata

    declared = agents.declaration(name)
    same = ocf.Agent(declared.name, escape(declared.short), escape(metadata.description(declared)))
    same.version = VERSION
    for parameter in declared.parameters:
        same.add_parameter(parameter.name, escape(parameter.short), escape(parameter.long), parameter.kind,
                           parameter.unique, False, escape(metadata.shown(parameter), {'"': "&quot;"}))
    for action in declared.actions:
        same.add_action(action.name, action.timeout, action.interval, action.depth)
    assert facts(agents.metadata(name)) == facts(ET.fromstring(same.to_xml()))
