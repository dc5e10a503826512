# SPDX-License-Identifier: GPL-2.0-or-later
"""The seven agents as files, as declarations and as meta-data."""
import functools
import importlib.machinery
import importlib.util
import os
import subprocess
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMES = ("server", "dagent", "spooler", "gateway", "ical", "monitor", "webapp-health")

# a value other than the default for every parameter, as a configuration might give it
VALUES = {
    "binary": "/opt/kopano/sbin/kopano", "config": "/srv/kopano/etc/x.cfg", "pidfile": "/run/kopano/x.pid",
    "options": "--ignore-unknown-config-options", "stop_escalate": "30", "test_user": "cluster-check",
    "test_password_file": "/etc/kopano/cluster-check.secret", "url": "https://localhost/webapp/",
    "status_url": "http://localhost:8081/server-status?auto", "match": "name=.username.",
    "ca_file": "/etc/ssl/certs/ca-certificates.crt", "tls_verify": "true", "attribute": "#health-webapp",
}
ENDPOINTS = {"server": "http://192.168.122.100:236", "dagent": "lmtp://192.168.122.100:2003",
             "gateway": "imaps://192.168.122.100:993", "ical": "https://192.168.122.100:8443"}


def path(name):
    """Where the agent's file is, in the checkout."""
    return os.path.join(ROOT, "agents", name)


def run(*words, env, timeout=20, **more):
    """A subprocess.CompletedProcess, in bytes; of a process with this environment and without stdin."""
    return subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                          check=False, **more)


@functools.lru_cache(maxsize=None)
def printed(name):
    """What `meta-data` prints, as bytes."""
    done = run(path(name), "meta-data", env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def metadata(name):
    """The meta-data's root element."""
    return ET.fromstring(printed(name))


def declaration(name):
    """The AGENT object of an agent's file."""
    loader = importlib.machinery.SourceFileLoader("agent_" + name.replace("-", "_"), path(name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module.AGENT


def value(agent, parameter):
    """Something that `parameter` of `agent` may be set to."""
    return ENDPOINTS[agent] if parameter == "listen" else VALUES[parameter]
