# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual's Kopano site on a lab: bob and alice, two disks, MariaDB, Kopano, WebApp beside Apache.

The nodes get what an administrator would give them: the installed files (installed.py), out of these the node's
configuration files (crm/node, by way of rootfs/) and those of crm/DEPLOYMENT, loaded with crmsh in the order of their
numbers; and the daemons (stand-ins, or real ones from KOPANO_SBIN). In the nodes are stand-ins for what a namespace
can't have: an ipmitool that asks the lab's BMC (fence_ipmilan is the real one), and ocf:linbit:drbd (drbd).
"""
import functools
import glob
import grp
import imaplib
import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import threading
import time
from email.message import EmailMessage

import installed
import systemd_image
from installed import PYTHON, ROOT
from lab import Lab
from namespaces import CROWDED, ENVIRONMENT, LabError, command, wait_for
from node import processes

HERE = os.path.dirname(os.path.abspath(__file__))
DEPLOYMENTS = ("shared-storage", "drbd")
CONFIGURATION = f"{ROOT}/crm/shared-storage"

# in tests: monitors every 2, 4 and 12 s (CROWDED: every 4, 8 and 24 s) instead of every 10, 20 and 60 s
QUICK = 0.4 if CROWDED else 0.2
FAILED = f"{ROOT}/build/failed-drills"
DAEMONS = ("server", "dagent", "spooler", "gateway", "ical", "monitor")
GROUPED = ("mysql_fs", "mysql_ip", "mysqld", "kopano_fs", "kopano_ip",
           *(f"kopano-{name}" for name in DAEMONS))
CLONED = ("apache", "webapp-health")
ADDRESS, DATABASE_ADDRESS = "192.168.122.100", "192.168.122.101"      # the cluster's
PORTS = {"server": 236, "dagent": 2003, "gateway": 143, "ical": 8080}
USER, PASSWORD, MAILBOX = "anna", "secret", "anna@example.com"

DATABASE_ACCOUNT = f"{ROOT}/crm/node/sql/account.sql"


# ---- what the nodes are made of ------------------------------------------------------------------------

def furnish(image, deployment="shared-storage", units=False):
    """Fill the image of the nodes' root directory: what is installed, the site's files, daemons; their units."""
    installed.install(image)
    crm = f"{image}{installed.SHARE}/crm"

    def copy(source, target):
        """A file of rootfs/; what is a link to crm/ there comes from the installed crm/."""
        real = os.path.realpath(source)
        shutil.copy2(real.replace(f"{ROOT}/crm/", f"{crm}/"), target)
    shutil.copytree(f"{HERE}/rootfs", image, copy_function=copy, dirs_exist_ok=True)
    for path in ("/etc/pacemaker", "/etc/drbd.d"):
        shutil.copytree(f"{crm}/node{path}", image + path, dirs_exist_ok=True)
    shutil.copytree(f"{crm}/{deployment}", f"{image}/root/crm")     # links become files
    for path in ("/usr/lib/ocf/resource.d/linbit/drbd", "/usr/sbin/drbdadm") if deployment == "drbd" else ():
        os.makedirs(os.path.dirname(image + path), exist_ok=True)
        shutil.copy(f"{HERE}/drbd", image + path)
    _install_daemons(f"{image}/usr")
    if units:
        systemd_image.add_kopano(image, DAEMONS)
    _add_account(image)
    for path in ("/var/lib/kopano", "/var/log/kopano"):
        os.makedirs(image + path)
        os.chown(image + path, *_account())
    os.makedirs(f"{image}/var/lib/mysql")
    # nothing that this machine has there may shine through
    for path in ("/etc/kopano", "/var/lib/kopano", "/var/lib/mysql"):
        os.setxattr(image + path, "trusted.overlay.opaque", b"y")


def _install_daemons(prefix):
    """Real daemons from KOPANO_SBIN, else the stand-ins."""
    real = os.environ.get("KOPANO_SBIN")
    if real:
        os.makedirs(f"{prefix}/sbin", exist_ok=True)
        for program in glob.glob(f"{real}/kopano-*"):
            shutil.copy2(program, f"{prefix}/sbin")
    else:
        command([PYTHON, f"{ROOT}/tests/standin/build.py", prefix, "--generation", "11"])


def _account():
    """Numbers of user and group kopano in the nodes: this machine's, else free ones."""
    try:
        return pwd.getpwnam("kopano").pw_uid, grp.getgrnam("kopano").gr_gid
    except KeyError:
        taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
        free = next(number for number in range(999, 100, -1) if number not in taken)
        return free, free


def _add_account(image):
    """Give the image this machine's accounts, and kopano."""
    user, group = _account()
    for path, line in (("/etc/passwd", f"kopano:x:{user}:{group}::/var/lib/kopano:/usr/sbin/nologin\n"),
                       ("/etc/group", f"kopano:x:{group}:\n")):
        with open(path) as source, open(image + path, "w") as target:
            lines = source.readlines()
            target.writelines(lines if any(line.startswith("kopano:") for line in lines) else lines + [line])


def mysql_disk(file, account=DATABASE_ACCOUNT):
    """Make a disk with a MariaDB in which Kopano has its account."""
    data = f"{file}.d"
    os.mkdir(data)
    fill_database(data, account)
    owner = pwd.getpwnam("mysql")
    _format(file, "512M", owner.pw_uid, owner.pw_gid, "-d", data)
    shutil.rmtree(data)


def fill_database(data, account=DATABASE_ACCOUNT):
    """Make the data directory of a MariaDB in which Kopano has its account (a file with SQL) in an empty one."""
    shutil.chown(data, "mysql", "mysql")
    common = ["--no-defaults", "--user=mysql", f"--datadir={data}", "--innodb-log-file-size=16M",
              "--innodb-use-native-aio=0"]
    command(["mariadb-install-db", *common, "--skip-test-db", "--auth-root-authentication-method=socket"])
    with open(account) as orders:
        bootstrap = subprocess.run(["mariadbd", *common, "--bootstrap"], stdin=orders, text=True, env=ENVIRONMENT,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if bootstrap.returncode:
        raise LabError(f"mariadbd --bootstrap:\n{bootstrap.stdout}")


def kopano_disk(file):
    """Make an empty disk for what Kopano keeps beside its database."""
    _format(file, "64M", *_account())


def _format(file, size, user, group, *options):
    command(["truncate", "--size", size, file])
    command(["mkfs.ext4", "-q", "-E", f"root_owner={user}:{group}", *options, file])


# ---- the site -------------------------------------------------------------------------------------------

class Site:
    """A running site: `with Site() as site: site.load(); ...`.

    `deployment`: a folder of crm/. `interval`: factor on the monitors' intervals in there, and on the delays of
    fencing; the drills shorten them to save waiting (the timeouts stay as shipped).
    """
    grouped, cloned = GROUPED, CLONED   # what runs on one node, and on all
    accepted = None                     # words of the one line that crmsh may say about the configuration
    DISKS = {"shared-storage": {"/dev/mapper/mysql": mysql_disk, "/dev/mapper/kopano": kopano_disk},
             "drbd": {"/dev/sdb1": mysql_disk, "/dev/sdb2": kopano_disk}}

    def __init__(self, deployment="shared-storage", interval=1.0, **of_lab):
        self.deployment, self.interval = deployment, interval
        self.fenced_before = []         # nodes fenced before restore()
        self.leaked = 0                 # slots that dagent may have lost by 421s
        units = of_lab.get("init") == "systemd"
        self.lab = Lab(furnish=functools.partial(furnish, deployment=deployment, units=units),
                       disks=self.DISKS[deployment], **of_lab)

    def __enter__(self):
        self.lab.up()
        return self

    def __exit__(self, *_):
        self.lab.down()

    def __getitem__(self, name):
        return self.lab[name]

    def load(self):
        """Load the crm configuration, as one transaction; the files' names. LabError when crmsh has anything
        to say about it."""
        node = self.lab["bob"]
        files = self.hasten(node)
        orders = "".join(f"load update /root/crm/{os.path.basename(file)}\n" for file in files) + "commit\n"
        result = node.run("crm configure", input=orders, check=False)
        complaints = [line for line in result.stdout.splitlines()
                      if re.search("WARNING|ERROR", line) and not (self.accepted and self.accepted in line)]
        if result.returncode or complaints:
            raise LabError(f"crm configure: exit code {result.returncode}\n{result.stdout}")
        return [os.path.basename(file) for file in files]

    def hasten(self, node):
        """Shorten the monitors' intervals in the node's copies of the crm files; the files in the image."""
        files = sorted(glob.glob(f"{self.lab.image}/root/crm/*.crm"))
        for file in files:
            with open(file) as source:
                shipped = source.read()
            if self.adapted(shipped) != shipped:
                node.put(f"/root/crm/{os.path.basename(file)}", self.adapted(shipped))
        return files

    def adapted(self, text):
        """A crm file as this site loads it."""
        if self.interval == 1.0:
            return text

        def shorter(found):
            return f"{found[1]}={max(1, round(int(found[3]) * self.interval))}s"
        text = re.sub(r"(op monitor( role=\w+)? interval)=(\d+)s", shorter, text)
        # It must be longer than the other one's fencing takes, beside busy neighbours too.
        text = text.replace("pcmk_delay_base=5s", "pcmk_delay_base=3s")
        # fence_ipmilan sleeps for two seconds after each word to a BMC
        return re.sub(r"(stonith:fence_ipmilan\s.*?params )", r"\1power_wait=0 ", text, flags=re.DOTALL)

    def ready(self):
        """From nothing to a site that serves, with a user."""
        self.lab.wait_online()
        self.load()
        self.wait_started()
        self.wait_serving()
        self.create_user()

    def everything_runs(self, on=None):
        """Whether every resource runs, those of the groups all on the node named `on` when given."""
        status = self.lab.status(self.lab[on] if on else None)
        if not status:
            return False
        up = [node.name for node in self.lab if status.online.get(node.name)]
        return (all(status.running.get(resource, []) in ([[on]] if on else [[name] for name in up])
                    for resource in self.grouped) and
                all(sorted(status.running.get(resource, [])) == sorted(up) for resource in self.cloned))

    def wait_started(self, on=None, timeout=60):
        """Until everything_runs(), and the cluster is idle."""
        try:
            wait_for(lambda: self.everything_runs(on), timeout, f"everything runs on {on or 'its node'}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.lab.report()}") from None
        self.lab.settle(timeout=timeout, node=self.lab[on] if on else None)

    def create_user(self):
        """Create the user with a mailbox."""
        node = self.active()
        node.run(["kopano-admin", "-c", USER, "-p", PASSWORD, "-e", MAILBOX, "-f", "Anna"])
        if os.environ.get("KOPANO_SBIN"):
            node.run(["kopano-storeadm", "-C", "-n", USER], check=False)

    def active(self, resource="kopano-server"):
        """The node where a resource runs. LabError when that isn't exactly one."""
        places = self.lab.where(resource)
        if len(places) != 1:
            raise LabError(f"{resource} runs on {places or 'no node'}\n{self.lab.report()}")
        return self.lab[places[0]]

    # ---- getting it into a state -----------------------------------------------------------------------

    def restore(self):
        """All nodes up, everything running, no failure remembered: the state before a drill."""
        self.lab.bmc.broken = False
        for node in self.lab:
            node.plug()
        self.lab.boot()
        self.lab.wait_online()
        if self.leaked:                 # a dagent that has lost slots takes its time to stop, or serves no more
            for process in self.instances()["dagent"]:
                os.kill(process.pid, signal.SIGKILL)
                wait_for(lambda: process not in self.instances()["dagent"], 10, "kopano-dagent has ended")
            self.leaked = 0
        self.forget_failures()
        self.wait_started()
        self.wait_serving()
        self.fenced_before = self.lab.bmc.fenced()

    def forget_failures(self):
        """Clean up after every resource that has failed."""
        if self.lab.status().failures:
            next(iter(self.lab)).run(["crm_resource", "--cleanup"], timeout=120)
            self.lab.settle()

    def separate(self):
        """Bring the groups to two nodes: mysql away from kopano."""
        home = self.active()
        if self.active("mysqld") is home:
            self._move("mysql", self.lab.others(home)[0])

    def gather(self):
        """Bring both groups to one node: mysql to kopano."""
        home = self.active()
        if self.active("mysqld") is not home:
            self._move("mysql", home)

    def _move(self, group, node):
        node.run(["crm_resource", "--move", "--resource", group, "--node", node.name])
        self.wait_started()
        node.run(["crm_resource", "--clear", "--resource", group])
        self.lab.settle()

    # ---- processes -------------------------------------------------------------------------------------

    def instances(self):
        """{daemon: [main Process, ...]}: what runs, on whatever node (a daemon's own children left out, and what
        only tells its settings)."""
        words = [(process, _command_line(process.pid))
                 for process in processes(self.lab, *(f"kopano-{name}" for name in DAEMONS))]
        # without words it has ended meanwhile
        found = [process for process, line in words if line and "--dump-config" not in line]
        mains = {name: [] for name in DAEMONS}
        of_pid = {process.pid: process for process in found}
        for process in found:
            parent = of_pid.get(process.parent)
            if not parent or parent.name != process.name:
                mains[process.name.removeprefix("kopano-")].append(process)
        return mains

    def databases(self):
        """MariaDB's Processes, on whatever node (without what only makes a data directory)."""
        words = [(process, _command_line(process.pid)) for process in processes(self.lab, "mariadbd")]
        return [process for process, line in words if line and "--bootstrap" not in line]

    def snapshot(self):
        """{daemon: its one main Process}. LabError when one isn't there exactly once."""
        found = self.instances()
        for name, mains in found.items():
            if len(mains) != 1:
                raise LabError(f"kopano-{name}: {len(mains)} processes: {mains}\n{self.lab.report()}")
        return {name: mains[0] for name, mains in found.items()}

    # ---- as clients see it, from outside the nodes -----------------------------------------------------

    def deliver(self, subject, timeout=10):
        """Deliver a mail over LMTP; it is acknowledged on return. OSError or smtplib.SMTPException."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "postfix@example.com", MAILBOX, subject
        message.set_content(f"{subject}\n")

        def talk():
            with smtplib.LMTP(ADDRESS, PORTS["dagent"], timeout=timeout) as lmtp:
                lmtp.send_message(message)
        self.lab.outside(talk)

    def subjects(self, timeout=10, first=1):
        """Subjects in the inbox from the mail number `first` on, over IMAP, in order. OSError or
        imaplib.IMAP4.error."""
        def talk():
            with imaplib.IMAP4(ADDRESS, PORTS["gateway"], timeout=timeout) as imap:
                imap.login(USER, PASSWORD)
                _, count = imap.select("INBOX", readonly=True)
                if int(count[0]) < first:
                    return []
                _, parts = imap.fetch(f"{first}:*", "(BODY.PEEK[HEADER])")
                headers = (part[1].decode() for part in parts if isinstance(part, tuple))
                return [re.search(r"^Subject: (.*?)\r?$", header, re.MULTILINE)[1] for header in headers]
        return self.lab.outside(talk)

    def count(self, timeout=10):
        """How many mails are in the inbox."""
        def talk():
            with imaplib.IMAP4(ADDRESS, PORTS["gateway"], timeout=timeout) as imap:
                imap.login(USER, PASSWORD)
                return int(imap.select("INBOX", readonly=True)[1][0])
        return self.lab.outside(talk)

    def mails(self, timeout=2):
        """Like subjects(), but [] while nothing answers."""
        try:
            return self.subjects(timeout)
        except (OSError, imaplib.IMAP4.error):
            return []

    def answers(self, daemon, timeout=2):
        """Whether a daemon with a port says the first word of its protocol. Asks dagent only while the server
        is well: each 421 would cost it a slot."""
        if daemon == "dagent" and not self.answers("server", timeout):
            return False
        request, answer, farewell = {
            "server": (b"HEAD / HTTP/1.1\r\nHost: kopano\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200", b""),
            "dagent": (b"", b"220 ", b"QUIT\r\n"),
            "gateway": (b"", b"* OK", b"1 LOGOUT\r\n"),
            "ical": (b"OPTIONS / HTTP/1.1\r\nHost: kopano\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200", b""),
        }[daemon]

        def talk():
            try:
                with socket.create_connection((ADDRESS, PORTS[daemon]), timeout) as connection:
                    connection.sendall(request)
                    reader = connection.makefile("rb")
                    line = reader.readline()
                    connection.sendall(farewell)
                    reader.read()
                    return line.startswith(answer)
            except OSError:
                return False
        return self.lab.outside(talk)

    def wait_serving(self, timeout=60):
        """Until server, LMTP, IMAP and CalDAV answer a client."""
        for daemon in PORTS:
            # each 421 costs dagent a slot
            wait_for(lambda: self.answers(daemon), timeout, f"kopano-{daemon} answers",
                     every=0.5 if daemon == "dagent" else 0.1)


def _command_line(pid):
    """Words of a process, "" when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", errors="replace") as file:
            return file.read().replace("\0", " ")
    except OSError:
        return ""


def addresses(node):
    """The IPv4 addresses that a node has; no process is needed to see them."""
    try:
        with open(f"/proc/{node.pid}/net/fib_trie") as file:
            return set(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", file.read()))
    except OSError:
        return set()                    # it is off


class Watch(threading.Thread):
    """Looks at the nodes five times a second and notes what must never be: a daemon of Kopano or MariaDB that runs
    twice, a disk that is mounted on two nodes, a cluster address that two nodes have. `with Watch(site) as watch: ...;
    assert not watch.violations`."""
    INTERVAL = 0.2

    def __init__(self, site):
        super().__init__(name="watch", daemon=True)
        self.site = site
        self.violations = []
        self.looks = 0
        self._end = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()

    def run(self):
        try:
            while not self.looks or not self._end.wait(self.INTERVAL):
                self.looks += 1
                self._look()
        except Exception as error:
            self._note(f"the watch itself has ended, and saw nothing more: {error!r}")
            raise

    def _look(self):
        for name, mains in self.site.instances().items():
            if len(mains) > 1:
                self._note(f"kopano-{name} runs {len(mains)} times: {mains}")
        # another walk through all of /proc, 10 ms: every other time is enough
        databases = self.site.databases() if self.looks % 2 == 0 else []
        if len(databases) > 1:
            self._note(f"mariadbd runs {len(databases)} times: {databases}")
        mounted = [(node.name, path) for node in self.site.lab for path in node.mounts()]
        for path in {path for _, path in mounted}:
            if len([1 for _, other in mounted if other == path]) > 1:
                self._note(f"{path} is mounted on two nodes")
        for address in (ADDRESS, DATABASE_ADDRESS):
            # twice: it may have left the first node while the second was looked at
            if len(self._holders(address)) > 1 and len(self._holders(address)) > 1:
                self._note(f"{address} is on two nodes")

    def _holders(self, address):
        return [node.name for node in self.site.lab if node.alive() and address in addresses(node)]

    def _note(self, words):
        self.violations.append(f"{time.strftime('%H:%M:%S')} {words}")


def keep_logs(lab, name):
    """Copy the logs of a test's nodes to build/failed-drills; returns the directory."""
    directory = f"{FAILED}/{re.sub('[^a-z0-9-]+', '-', name)}"
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    return lab.keep_logs(directory)
