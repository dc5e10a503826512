# SPDX-License-Identifier: GPL-2.0-or-later
"""Meta-data: valid by every schema in use, the same for everybody, and what it was when last looked at."""
import os
import subprocess
import xml.etree.ElementTree as ET

import pytest

from . import agents
from .agents import NAMES, ROOT

HERE = os.path.dirname(os.path.abspath(__file__))
pytestmark = pytest.mark.parametrize("name", NAMES)


def xmllint(document, *options, cwd=None):
    done = subprocess.run(["xmllint", "--noout", *options, "-"], input=document, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=20, cwd=cwd, check=False)
    return done.returncode, done.stdout.decode()


def test_it_is_what_was_agreed(name):
    with open(os.path.join(HERE, "golden", name + ".xml"), "rb") as golden:
        assert agents.printed(name).decode() == golden.read().decode(), "wanted? then `make golden`"


def test_the_dtd_of_ocf_tester_accepts_it(name):
    assert xmllint(agents.printed(name), "--valid", cwd="/usr/share/resource-agents") == (0, "")


def test_the_official_schema_of_ocf_1_1_accepts_it(name):
    code, said = xmllint(agents.printed(name), "--relaxng", os.path.join(HERE, "ocf-1.1-ra-api.rng"))
    # xmllint can't find the DTD here, which the schema has no need of
    assert code == 0 and "- validates" in said


def test_the_schema_of_pcs_accepts_it(name):
    code, said = xmllint(agents.printed(name), "--relaxng", "/usr/share/pcs/data/ocf-1.1.rng")
    assert code == 0 and "- validates" in said


def test_no_encoding_is_declared(name):
    """crmsh 4.4 takes an agent that declares one for no agent at all."""
    assert agents.printed(name).startswith(b'<?xml version="1.0"?>\n')
    agents.printed(name).decode("ascii")


def test_every_advertised_time_has_a_unit(name):
    """Pacemaker and its tools read a bare number in different ways."""
    for action in agents.metadata(name).iter("action"):
        for key in ("timeout", "interval", "start-delay"):
            assert action.get(key) is None or action.get(key).endswith("s"), (action.get("name"), key)


def test_what_is_advertised_is_what_is_promised(name):
    root = agents.metadata(name)
    assert root.findtext("version") == "1.1"
    actions = [action.get("name") for action in root.iter("action")]
    promised = {"start", "stop", "monitor", "reload", "reload-agent", "validate-all", "meta-data"}
    assert set(actions) == promised - ({"reload"} if name == "webapp-health" else set())
    monitors = [(action.get("depth"), action.get("interval")) for action in root.iter("action")
                if action.get("name") == "monitor"]
    assert [depth for depth, interval in monitors] == ["10", "20"]
    assert len({interval for depth, interval in monitors}) == 2, "two monitors at one interval collide"


def test_no_parameter_is_required_and_each_says_what_it_is(name):
    for parameter in agents.metadata(name).iter("parameter"):
        assert parameter.get("required") == "0"
        assert parameter.find("content").get("default") is not None
        assert parameter.findtext("shortdesc").strip() and parameter.findtext("longdesc").strip()
        assert "\n" not in parameter.findtext("shortdesc")
        assert parameter.find("content").get("type") in ("string", "integer", "boolean")


def test_only_what_identifies_an_instance_is_unique(name):
    unique = {parameter.get("name"): parameter.get("unique-group")
              for parameter in agents.metadata(name).iter("parameter") if parameter.get("unique") == "1"}
    assert unique == ({} if name == "webapp-health" else {"config": "config", "pidfile": "pidfile"})


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An installation for everybody, and an empty directory to hide things with."""
    top = tmp_path_factory.mktemp("bare")
    for folder in (top, *top.parents):
        if folder.is_relative_to("/tmp") and str(folder) != "/tmp":
            folder.chmod(0o755)
    subprocess.run(["make", "-s", "-C", ROOT, "install-agents", "DESTDIR=%s" % top], check=True, timeout=60,
                   stdout=subprocess.DEVNULL)
    (top / "empty").mkdir()
    return top


def test_anybody_gets_it_from_a_bare_machine(name, bare):
    """Neither OCF_ROOT nor psutil, requests, ocf.py, a home or a path: so do crmsh, pcs and packagers ask."""
    agent = bare / "usr/lib/ocf/resource.d/kopano" / name
    script = ("for hidden in /usr/lib/python3/dist-packages /usr/lib/ocf /etc/kopano; do"
              " mount --bind %s $hidden; done;"
              "exec setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=-all env -i %s meta-data"
              % (bare / "empty", agent))
    done = agents.run("unshare", "--mount", "sh", "-ec", script, env={"PATH": os.environ["PATH"]}, cwd="/")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == agents.printed(name)


@pytest.mark.parametrize("environment", [
    {"OCF_ROOT": "/nonexistent"}, {"OCF_CHECK_LEVEL": "garbage"}, {"__OCF_ACTION": "start"},
    {"LC_ALL": "tr_TR.UTF-8"}, {"PYTHONPATH": "/nonexistent", "PYTHONHOME": "/nonexistent"},
    {"HA_LOGFILE": "/nonexistent/log", "HA_debug": "1"},
    {"OCF_RESKEY_config": "x", "OCF_RESKEY_stop_escalate": "never", "OCF_RESKEY_CRM_meta_timeout": "x"},
], ids=lambda environment: " ".join("%s=%s" % item for item in environment.items()))
def test_nothing_in_the_environment_changes_it(name, environment):
    done = agents.run(agents.path(name), "meta-data", env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, agents.printed(name), b"")


@pytest.mark.parametrize("word", ["usage", "help", "methods", "--help", "-h"])
def test_usage_is_for_people(name, word):
    done = agents.run(agents.path(name), word, env={})
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    for action in agents.metadata(name).iter("action"):
        assert action.get("name") in text
    with pytest.raises(ET.ParseError):
        ET.fromstring(text)


def test_a_lost_reader_is_no_traceback(name):
    """`agent meta-data | head -1`"""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([agents.path(name), "meta-data"], stdin=subprocess.DEVNULL, stdout=write,
                          stderr=subprocess.PIPE, timeout=20, env={}, check=False)
    os.close(write)
    assert b"Traceback" not in done.stderr
