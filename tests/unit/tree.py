# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories that stand for a host, for the tests of validate-all: one with Kopano alone, one a cluster's node."""
import os
import pwd
import time
from unittest import mock

from kopano_ocf import action, declare, kopano_cfg, talk, validate
from kopano_ocf.validate import ERROR

AGENTS = {
    "server": declare.Daemon("server", "s", "l", {}, "server", 60, (120, 90, 30, 30), listens="soap"),
    "dagent": declare.Daemon("dagent", "s", "l", {}, "dagent", 35, (60, 60, 30, 30), listens="lmtp",
                             foreground=("-l",), role=("-l",)),
    "spooler": declare.Daemon("spooler", "s", "l", {}, "portless", 70, (60, 60, 30, 30)),
    "gateway": declare.Daemon("gateway", "s", "l", {}, "mailbox", 15, (60, 60, 30, 30), listens="imap",
                              login=True),
    "ical": declare.Daemon("ical", "s", "l", {}, "mailbox", 35, (60, 60, 30, 30), listens="caldav",
                           login=True),
    "monitor": declare.Daemon("monitor", "s", "l", {}, "portless", 15, (60, 60, 30, 30)),
    "webapp-health": declare.Page("webapp-health", "s", "l", {}, (40, 20, 30, 30), [
        declare.Parameter("url", "", "", default="http://localhost/webapp/", form="url"),
        declare.Parameter("status_url", "", "", default="http://localhost/server-status?auto", form="url", empty=True),
        declare.Parameter("match", "", "", default="", form="regex"),
        declare.Parameter("config", "", "", default="/etc/kopano/webapp/config.php", form="absolute"),
        declare.Parameter("attribute", "", "", default="kopano-webapp-health", form="attribute", empty=True),
        declare.TEST_USER, declare.TEST_PASSWORD_FILE, declare.CA_FILE, declare.tls_verify(True)]),
}


def _me():
    """Name of the user who runs the tests."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:        # in a container a uid need not have one, but run_as_user does
        known = pwd.getpwnam
        me = pwd.struct_passwd(("builder", "x", os.geteuid(), os.getegid(), "", "/", "/bin/sh"))
        pwd.getpwnam = lambda name: me if name == me.pw_name else known(name)
        return me.pw_name


ME = _me()
OTHER = "daemon" if ME == "nobody" else "nobody"

# A daemon that prints its configuration as the real ones do, and refuses the key "bogus".
DUMPER = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = -c ] && cfg=$2; shift; done
if grep -q '^bogus' "$cfg"; then
    echo '[crit   ] Config error: Unknown option "bogus" found!' >&2; exit %d
fi
cat <<END
%s
END
grep = "$cfg" | grep -v '^#'
"""
REMOVED = set(kopano_cfg.RENAMED) | {"server_bind", "server_bind_intf"}
DEFAULTS = dict((name, "\n".join(
    "# %s = %s" % entry for entry in sorted(dict(kopano_cfg._COMMON, **kopano_cfg._DEFAULTS[name]).items())
    if entry[0] not in REMOVED)) for name in kopano_cfg.DAEMONS)
TOO_OLD = """#!/bin/sh
echo "[crit   ] Config error: Commandline option 'dump-config' cannot be empty!" >&2; exit 1
"""
GOOD = {
    "server": "server_listen = 192.168.122.100:236\nserver_pipe_name = /run/kopano/server.sock\n"
              "server_pipe_priority = /run/kopano/prio.sock\nlocal_admin_users = root kopano\n"
              "mysql_host = 192.168.122.101\nmysql_user = kopano\nmysql_password = geheim\n",
    "dagent": "lmtp_listen = 192.168.122.100:2003\nserver_socket = file:///var/run/kopano/server.sock\n",
    "spooler": "server_socket = default:\n",
    "gateway": "imap_listen = 192.168.122.100:143 127.0.0.1:143\npop3_listen = *:110\n"
               "server_socket = http://192.168.122.100:236/\n",
    "ical": "ical_listen = *:8080\nserver_socket = http://192.168.122.100:236/\n",
    "monitor": "server_socket = file:///run/kopano/server.sock\n",
}
ROUTE = ("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
         "eth0\t00000000\t017AA8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
         "eth0\t007AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")
ROUTE6 = ("fd000000000000000000000000000000 40 00000000000000000000000000000000 00 "
          "00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n")


class Tree:
    """A host's files below a directory of their own, all good to begin with."""

    def __init__(self, root):
        self.root = str(root)
        # what the database answers, and who has asked it: a directory has no network
        self.database, self.asked = talk.Seen(talk.UNREACHABLE, "no route to host"), []
        os.makedirs(self.root, exist_ok=True)
        os.chmod(self.root, 0o755)
        for name, text in GOOD.items():
            code = 0 if name in ("ical", "dagent") else 1
            self.write("/usr/sbin/kopano-" + name, DUMPER % (code, DEFAULTS[name]), 0o755)
            self.write("/etc/kopano/%s.cfg" % name, text + "run_as_user = %s\nrun_as_group =\n" % ME, 0o640)
        for folder in ("/run/kopano", "/var/run/kopano", "/sys/class/net/lo", "/sys/class/net/eth0"):
            os.makedirs(self.root + folder)
        self.write("/proc/net/route", ROUTE)
        self.write("/proc/net/ipv6_route", ROUTE6)

    def write(self, path, text, mode=0o644):
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        if os.path.lexists(self.root + path):
            os.remove(self.root + path)
        with open(self.root + path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        os.chmod(self.root + path, mode)

    def add(self, name, text):
        with open(self.root + "/etc/kopano/%s.cfg" % name, "ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def link(self, path, to="/usr/lib/systemd/system/x.service"):
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        os.symlink(to, self.root + path)

    def cluster(self):
        """Two nodes."""
        self.write("/etc/corosync/corosync.conf",
                   "totem {\n version: 2\n}\nnodelist {\n node {\n  nodeid: 1\n  ring0_addr: 192.168.122.25\n }\n"
                   " node {\n  nodeid: 2\n  ring0_addr : 192.168.122.26\n }\n}\n"
                   "quorum {\n provider: corosync_votequorum\n two_node: 1\n}\n")

    def findings(self, name, level=10, seconds=20, **parameters):
        call = called(name, seconds, **parameters)
        with mock.patch("kopano_ocf.probe.mysql.ask", self._ask):
            found = validate.validate(AGENTS[name], call, level, self.root)
        for finding in found:
            assert "\n" not in finding.text and len(finding.text) < 900 and "geheim" not in finding.text
            assert (finding.code in (5, 6)) == (finding.severity == ERROR)
            assert self.root not in finding.text, finding.text
            finding.text.encode("utf-8")
        # without root the files of this test can't belong to root
        return [f for f in found if os.geteuid() == 0 or "it belongs to user" not in f.text]

    def _ask(self, database, deadline):
        self.asked.append((database, deadline - time.monotonic()))
        return self.database

    def texts(self, name, **parameters):
        return ["%s: %s" % (f.severity, f.text) for f in self.findings(name, **parameters)]


def called(name, seconds=20, **parameters):
    env = dict(("OCF_RESKEY_" + key, value) for key, value in parameters.items())
    env["OCF_RESKEY_CRM_meta_timeout"] = "%d" % (seconds * 1000)
    call = action.Call(AGENTS[name], "validate-all", env)
    call.deadline = time.monotonic() + seconds
    return call


NODE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crm", "node")
ADDRESSES = {"bob": ("192.168.122.25", "10.0.0.25"), "alice": ("192.168.122.26", "10.0.0.26")}
SECOND_ROUTE = "eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
HANDLERS = ("crm-fence-peer.sh", "crm-unfence-peer.sh", "crm-fence-peer.9.sh", "crm-unfence-peer.9.sh",
            "notify-split-brain.sh", "notify-out-of-sync.sh")
# The drbd deployment, as Pacemaker writes it down.
CIB = """<cib crm_feature_set="3.16.2" validate-with="pacemaker-3.9" epoch="9" num_updates="0" admin_epoch="0">
  <configuration>
    <crm_config><cluster_property_set id="cib-bootstrap-options">
      <nvpair id="a" name="stonith-enabled" value="true"/>
    </cluster_property_set></crm_config>
    <nodes><node id="1" uname="bob"/><node id="2" uname="alice"/></nodes>
    <resources>
      <clone id="drbd_mysql_clone">%(drbd_mysql)s</clone><clone id="drbd_kopano_clone">%(drbd_kopano)s</clone>
      <group id="mysql">%(mysql_fs)s%(mysql_ip)s%(mysqld)s</group>
      <group id="kopano">%(kopano_fs)s%(kopano_ip)s%(kopano-server)s</group>
      %(kopano-dagent)s%(kopano-gateway)s%(kopano-ical)s%(kopano-spooler)s%(kopano-monitor)s
      <clone id="apache_clone">%(apache)s</clone><clone id="webapp-health_clone">%(webapp-health)s</clone>%(more)s
    </resources>
    <constraints>
      <rsc_colocation id="c1" score="INFINITY" rsc="mysql" with-rsc="drbd_mysql_clone" with-rsc-role="Promoted"/>
      <rsc_colocation id="c2" score="INFINITY" rsc="kopano" with-rsc="drbd_kopano_clone" with-rsc-role="Promoted"/>
      <rsc_colocation id="c3" score="INFINITY">
        <resource_set id="s1" sequential="false"><resource_ref id="kopano-dagent"/><resource_ref id="kopano-gateway"/>
          <resource_ref id="kopano-ical"/><resource_ref id="kopano-spooler"/><resource_ref id="kopano-monitor"/>
        </resource_set>
        <resource_set id="s2"><resource_ref id="kopano"/></resource_set>
      </rsc_colocation>
      <rsc_colocation id="c4" score="-100" rsc="kopano" with-rsc="mysql"/>
      <rsc_order id="o1" kind="Mandatory" first="mysql" then="kopano"/>
    </constraints>
  </configuration>
</cib>
"""
RESOURCES = {
    "drbd_mysql": ("ocf:linbit:drbd", {"drbd_resource": "mysql"}),
    "drbd_kopano": ("ocf:linbit:drbd", {"drbd_resource": "kopano"}),
    "mysql_fs": ("ocf:heartbeat:Filesystem",
                 {"device": "/dev/drbd0", "directory": "/var/lib/mysql", "fstype": "ext4"}),
    "mysql_ip": ("ocf:heartbeat:IPaddr2", {"ip": "192.168.122.101", "cidr_netmask": "32", "nic": "eth0"}),
    "mysqld": ("ocf:heartbeat:mysql", {"binary": "/usr/sbin/mariadbd"}),
    "kopano_fs": ("ocf:heartbeat:Filesystem",
                  {"device": "/dev/drbd1", "directory": "/var/lib/kopano", "fstype": "ext4"}),
    "kopano_ip": ("ocf:heartbeat:IPaddr2", {"ip": "192.168.122.100", "cidr_netmask": "32", "nic": "eth0"}),
    "apache": ("ocf:heartbeat:apache", {}),
}
RESOURCES.update((name if name == "webapp-health" else "kopano-" + name, ("ocf:kopano:" + name, {}))
                 for name in AGENTS)


def primitive(name, kind, params):
    """A resource as XML."""
    words = kind.split(":")
    attributes = zip(("class", "type") if len(words) == 2 else ("class", "provider", "type"), words)
    pairs = "".join('<nvpair id="%s-%s" name="%s" value="%s"/>' % (name, key, key, value)
                    for key, value in sorted(params.items()))
    return '<primitive id="%s" %s><instance_attributes id="%s-p">%s</instance_attributes></primitive>' % (
        name, " ".join('%s="%s"' % pair for pair in attributes), name, pairs)


class NodeTree(Tree):
    """Node bob of the cluster in crm/node, before its CIB is loaded (None) or with the drbd deployment."""

    def __init__(self, root):
        Tree.__init__(self, root)
        for folder, _, files in os.walk(NODE + "/etc"):
            for name in files:
                path = os.path.relpath(os.path.join(folder, name), NODE)
                with open(os.path.join(NODE, path), "rb") as file:
                    self.write("/" + path, file.read(), 0o700 if "password" in name else 0o640)
        for name in GOOD:
            self.add(name, "run_as_user = %s\nrun_as_group =\n" % ME)
        self.replace("/etc/tmpfiles.d/kopano-cluster.conf", "kopano kopano", "%s %s" % (ME, ME))
        self.write("/etc/corosync/authkey", b"x" * 128, 0o400)
        self.write("/proc/sys/kernel/hostname", "bob\n")
        self.write("/proc/net/route", ROUTE + SECOND_ROUTE)
        for path in ("/dev/sdb1", "/dev/sdb2"):
            self.write(path, "")
        for name in HANDLERS:
            self.write("/usr/lib/drbd/" + name, "#!/bin/sh\n", 0o755)
        os.makedirs(self.root + "/sys/class/net/eth1")
        # what Debian's packages bring
        self.write("/etc/drbd.conf", 'include "drbd.d/global_common.conf";\ninclude "drbd.d/*.res";\n')
        self.write("/etc/mysql/my.cnf", "[client-server]\nsocket = /run/mysqld/mysqld.sock\n"
                   "!includedir /etc/mysql/conf.d/\n!includedir /etc/mysql/mariadb.conf.d/\n")
        self.write("/etc/mysql/mariadb.conf.d/50-server.cnf", "[mysqld]\npid-file = /run/mysqld/mysqld.pid\n"
                   "basedir = /usr\n#datadir = /srv\nbind-address = 127.0.0.1\n[mariadb-10.11]\n")
        self.write("/etc/apache2/apache2.conf", "IncludeOptional mods-enabled/*.load\n"
                   "IncludeOptional mods-enabled/*.conf\nInclude ports.conf\n")
        self.write("/etc/apache2/mods-enabled/status.conf", "<IfModule mod_status.c>\n\t<Location /server-status>\n"
                   "\t\tSetHandler server-status\n\t\tRequire local\n\t</Location>\n</IfModule>\n")
        for unit in ("mariadb", "drbd", "apache2", "corosync", "pacemaker", "postfix", "nftables"):
            self.write("/usr/lib/systemd/system/%s.service" % unit, "[Unit]\n")
        for unit in ("corosync", "pacemaker", "postfix", "nftables"):
            self.enable(unit)
        self.write("/etc/resolv.conf", "nameserver 192.168.122.1\n")

    def enable(self, unit):
        """Start it at boot."""
        self.link("/etc/systemd/system/multi-user.target.wants/%s.service" % unit)

    def replace(self, path, old, new):
        """Another text in a file."""
        with open(self.root + path) as file:
            text = file.read()
        assert old in text, "%s: no '%s'" % (path, old)
        self.write(path, text.replace(old, new), os.stat(self.root + path).st_mode & 0o777)

    def cib(self, more="", properties=None, **changes):
        """Load the CIB; changes: NAME={...} for other params, NAME=None to leave a resource out, both with _ for -."""
        found = {"more": more}
        for name, (kind, params) in RESOURCES.items():
            change = changes.get(name.replace("-", "_"), {})
            found[name] = "" if change is None else primitive(name, change.pop("kind", kind), dict(params, **change))
        text = CIB % found
        for key, value in (properties or {}).items():
            text = text.replace('name="%s" value="true"' % key, 'name="%s" value="%s"' % (key, value))
        self.write("/var/lib/pacemaker/cib/cib.xml", text, 0o600)
