# SPDX-License-Identifier: GPL-2.0-or-later
"""The alert agent: what Pacemaker tells it, in words."""
import subprocess

import pytest

from conformance.agents import ROOT

PROGRAM = ROOT + "/extras/kopano-ocf-alert"


def told(recipient, env, **more):
    """What it did on a call by Pacemaker; more: further environment."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CRM_alert_timestamp": "10:11:12", "CRM_alert_node": "alice",
           "CRM_alert_recipient": str(recipient), **more,
           **{"CRM_alert_" + key: str(value) for key, value in env.items()}}
    return subprocess.run([PROGRAM], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)


def operation(task, rc, wanted=0, status=0, desc="ok"):
    return {"kind": "resource", "rsc": "kopano-gateway", "task": task, "rc": rc, "target_rc": wanted,
            "status": status, "desc": desc}


@pytest.mark.parametrize("event, words", [
    ({"kind": "node", "desc": "lost"}, "node alice is gone"),
    ({"kind": "node", "desc": "member"}, "node alice has joined the cluster"),
    ({"kind": "fencing", "rc": 0, "desc": "Operation reboot of alice by fence_alice for bob: OK"},
     "node alice was fenced: Operation reboot of alice by fence_alice for bob: OK"),
    ({"kind": "fencing", "rc": 1, "desc": "No route to host"},
     "FENCING OF alice FAILED, the cluster waits until it works: No route to host"),
    (operation("monitor", 190, desc="degraded"),
     "kopano-gateway on alice: degraded: it runs, but something is wrong that a restart would not cure"),
    (operation("monitor", 190, desc="its server is away"),
     "kopano-gateway on alice: degraded: it runs, but something is wrong that a restart would not cure "
     "(its server is away)"),
    (operation("monitor", 7, desc="not running"), "kopano-gateway on alice: it has stopped by itself"),
    (operation("monitor", 1, desc="error"), "kopano-gateway on alice: failed"),
    (operation("monitor", 1, status=2, desc="Timed Out"),
     "kopano-gateway on alice: monitor took longer than its timeout allows"),
    (operation("start", 0), "kopano-gateway was started on alice"),
    (operation("stop", 0), "kopano-gateway was stopped on alice"),
    (operation("start", 5, desc="not installed"),
     "kopano-gateway on alice: start failed: not installed, or not usable, on this node (not installed)"),
    ({"kind": "attribute", "attribute_name": "kopano-webapp-health", "attribute_value": 0},
     "WebApp on alice is NOT fit for users"),
    ({"kind": "attribute", "attribute_name": "kopano-webapp-health", "attribute_value": 1},
     "WebApp on alice is fit for users"),
    # the last run of a monitor that ends with its resource
    (operation("monitor", 7, status=1, desc="Cancelled"), None),
    (operation("monitor", 0), None), (operation("monitor", 7, wanted=7), None),
    ({"kind": "attribute", "attribute_name": "fail-count-x", "attribute_value": 1}, None),
])
def test_words(event, words, tmp_path):
    done = told(tmp_path / "log", event)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    if words is None:
        assert not (tmp_path / "log").exists()
    else:
        assert (tmp_path / "log").read_text() == f"10:11:12 {words}\n"


def fake(folder, name):
    """A directory with a command that keeps what it is given."""
    folder.mkdir()
    (folder / name).write_text(f'#!/bin/sh\necho "$@" >{folder}/words\ncat >{folder}/text\n')
    (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_mail(tmp_path):
    path = fake(tmp_path / "bin", "sendmail")
    done = told("admin@example.com", {"kind": "node", "desc": "lost"}, PATH=path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "bin/words").read_text() == "-i admin@example.com\n"
    mail = (tmp_path / "bin/text").read_text()
    assert mail.startswith("To: admin@example.com\nSubject: [cluster] node alice is gone\n")
    assert "\n\nnode alice is gone\n" in mail


def test_syslog(tmp_path):
    path = fake(tmp_path / "bin", "logger")
    assert told("", {"kind": "node", "desc": "lost"}, PATH=path).returncode == 0
    assert (tmp_path / "bin/words").read_text() == "-t kopano-ocf-alert -p daemon.notice node alice is gone\n"


def test_a_file_that_can_not_be_written_to(tmp_path):
    path = fake(tmp_path / "bin", "logger")
    done = told("/proc/cluster-words", {"kind": "node", "desc": "lost"}, PATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert (tmp_path / "bin/words").read_text() == (
        "-t kopano-ocf-alert -p daemon.err root can't write to /proc/cluster-words: node alice is gone\n")


def test_called_by_hand_it_says_how_to_use_it():
    done = subprocess.run([PROGRAM], env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=20, check=False)
    assert done.returncode == 0
    assert b"crm configure alert" in done.stdout and b"pcs alert create" in done.stdout
