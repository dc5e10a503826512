# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured: our agents' actions, and what others run for the same purpose beside their real services."""
import contextlib
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)

from measure import Case  # noqa: E402

DAEMONS = ("server", "dagent", "spooler", "gateway", "ical", "monitor")
AGENTS = DAEMONS + ("webapp-health",)
BASELINE = "ocf:heartbeat:dummypy monitor"
HEARTBEAT = "/usr/lib/ocf/resource.d/heartbeat/"
WEBAPP = "/etc/kopano/webapp/config.php"

NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:5080;
    location /nginx_status {{ stub_status; }}
  }}
}}
"""
DOVECOT = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = no
service imap-login {{
  inet_listener imap {{
    port = 10143
  }}
}}
"""


def environment(world, name, action, level=None, provider="kopano", instance=None, rsctmp=None, **parameters):
    """Variables as Pacemaker sets them."""
    variables = {
        "PATH": world.sbin + ":/usr/sbin:/usr/bin:/sbin:/bin",
        "OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESOURCE_INSTANCE": instance or "kopano-" + name, "OCF_RESOURCE_TYPE": name,
        "OCF_RESOURCE_PROVIDER": provider, "OCF_RESKEY_crm_feature_set": "3.16.2",
        "HA_RSCTMP": rsctmp or world.rsctmp, "OCF_RESKEY_CRM_meta_name": action,
        "OCF_RESKEY_CRM_meta_timeout": "30000",
        "OCF_RESKEY_CRM_meta_interval": "10000" if action == "monitor" else "0", "HA_debug": "0",
        "HA_logfacility": "none", "PCMK_logfacility": "none",
    }
    if level is not None:
        variables["OCF_CHECK_LEVEL"] = level
    variables.update(("OCF_RESKEY_" + key, value) for key, value in parameters.items())
    return variables


def ours(world, name, action, level=None, title=None, **more):
    """A case: one of our agents."""
    if name == "webapp-health":
        more.setdefault("attribute", "")        # there is no cluster that could keep one
    depth = ", %s %s" % ("depth" if action == "monitor" else "level", level) if level else ""
    return Case(title or "%s %s%s" % (name, action, depth),
                [os.path.join(ROOT, "agents", name), action], environment(world, name, action, level, **more))


def heartbeat(world, name, action, level=None, title=None, **parameters):
    """A case: one of ClusterLabs' agents."""
    return Case(title or "ocf:heartbeat:%s %s%s" % (name, action, ", depth " + level if level else ""),
                [HEARTBEAT + name, action],
                environment(world, name, action, level, "heartbeat", "bench-" + name, **parameters))


def dummypy(world, title=BASELINE):
    """A case: the baseline, upstream's agent in Python that does nothing; its resource is started."""
    case = heartbeat(world, "dummypy", "monitor", title=title, state=world.rsctmp + "/dummypy.state")
    subprocess.run([case.words[0], "start"], env=case.environment, check=True)
    return case


def started_and_stopped(world, rounds):
    """[(title, CPU samples of start, CPU samples of stop)] of upstream agents, dummypy first."""
    found = []
    for name, parameters in (("dummypy", {"state": world.rsctmp + "/dummypy.state"}),
                             ("Dummy", {"state": world.rsctmp + "/Dummy.state"}),
                             ("anything", {"binfile": "/bin/sleep", "cmdline_options": "600",
                                           "pidfile": world.rsctmp + "/anything.pid"})):
        pair = [heartbeat(world, name, action, **parameters) for action in ("start", "stop")]
        for _ in range(rounds):
            for case in pair:
                case.cpu.append(case.run()[0])
        found.append(("ocf:heartbeat:" + name, pair[0].cpu, pair[1].cpu))
    return found


def actions_of(name):
    """The actions that one of our agents declares."""
    words = [os.path.join(ROOT, "agents", name), "meta-data"]
    said = subprocess.run(words, env={"PATH": "/usr/bin:/bin", "OCF_ROOT": "/usr/lib/ocf"}, check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return re.findall(r'<action name="([^"]*)"', said)


def dummy(world):
    """A case: the same in shell."""
    case = heartbeat(world, "Dummy", "monitor", state=world.rsctmp + "/Dummy.state")
    subprocess.run([case.words[0], "start"], env=case.environment, check=True, stderr=subprocess.DEVNULL)
    return case


def interpreter():
    """A case: the floor for an agent in Python."""
    return Case("python3 -IS -c pass", ["/usr/bin/python3", "-IS", "-c", "pass"], {})


def lsb(name):
    """A case: status of an init script as distributions had them."""
    folder = "/run/bench-init.d"
    os.makedirs(folder, exist_ok=True)
    script = "%s/kopano-%s" % (folder, name)
    if not os.path.lexists(script):
        os.symlink(os.path.join(TESTS, "cluster/lsb/kopano"), script)
    return Case("init script of kopano-%s, status" % name, [script, "status"],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def systemctl():
    """A case: whether a unit is active; None where there is no systemd."""
    if not os.path.isdir("/run/systemd/system"):
        return None
    return Case("systemctl is-active", ["/usr/bin/systemctl", "is-active", "--quiet", "systemd-journald"], {})


def serving(world):
    """All six daemons and webapp-health started by their agents, serving; returns the world."""
    world.database.start()
    os.makedirs(os.path.dirname(WEBAPP), exist_ok=True)
    with open(WEBAPP, "w") as file:
        file.write('<?php define("DEFAULT_SERVER", "default:");\n')
    for name in AGENTS:
        act(world, name, "start")
    world.wait_ready(*DAEMONS)
    return world


def act(world, name, action, **how):
    """Run an action to its good end; its Result."""
    if name == "webapp-health":
        how.setdefault("params", {"attribute": ""})
    result = world.agent(name, action, timeout=120, **how)
    assert result.rc == 0, result
    return result


@contextlib.contextmanager
def neighbours(world):
    """Cases: monitors of other agents, each beside its own service (Apache and MariaDB run already)."""
    from peers.services import Services, write
    services = Services()
    try:
        folder = services.folder()
        write(folder, "conf", NGINX.format(folder=folder))
        services.start(folder, ["nginx", "-p", folder, "-c", folder + "/conf"], [5080])
        nginx = dict(configfile=folder + "/conf", httpd="/usr/sbin/nginx", port="5080", status10regex="Active",
                     status10url="http://127.0.0.1:5080/nginx_status")
        folder = services.folder()
        write(folder, "conf", DOVECOT.format(folder=folder))
        services.start(folder, ["dovecot", "-F", "-c", folder + "/conf"], [10143])
        dovecot = dict(binary="/usr/sbin/dovecot", config_file=folder + "/conf",
                       pid_file=folder + "/run/master.pid")
        apache = dict(configfile="/run/bench-apache/apache.conf", httpd="/usr/sbin/apache2", client="curl",
                      port="80", statusurl="http://localhost/server-status")
        page = dict(apache, testurl="/webapp/", testregex10="password")
        mysql = dict(binary="/usr/sbin/mariadbd", pid="/run/mysqld/mysqld.pid", socket=world.database.socket,
                     datadir=world.database.folder, config="/etc/mysql/my.cnf", test_table="kopano.settings",
                     test_user="root")
        yield [heartbeat(world, "apache", "monitor", "0", **apache),
               heartbeat(world, "apache", "monitor", "10", **page),
               heartbeat(world, "dovecot", "monitor", **dovecot),
               heartbeat(world, "mysql", "monitor", "0", **mysql),
               heartbeat(world, "mysql", "monitor", "10", **mysql),
               heartbeat(world, "nginx", "monitor", "10", **nginx)]
    finally:
        services.end()
