# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual's Kopano site with real DRBD: bob and alice are virtual machines, the cluster is crm/drbd as shipped.

The machines get what an administrator would give them: the files of crm/node, the agents and their library, and
the daemons (stand-ins). Partitions, DRBD's meta data, file systems and the database are made as docs/guide.md says.
Their fence_ipmilan asks the lab's BMC, and has the real one's meta-data.
"""
import glob
import os
import re
import shutil
import sys
import threading
import time

from kopano_site import CLONED, GROUPED, Site
from namespaces import LabError, command, wait_for
from virtual_lab import ROOT, VirtualLab

CLUSTER = f"{ROOT}/tests/cluster"
RESOURCES = ("mysql", "kopano")     # DRBD's names, and the groups' on top of them
UPTODATE = "UpToDate/UpToDate"
# An emulated machine is ten to fifty times slower than a real one: what is slow must not look dead.
TOKEN = 10000                       # milliseconds that corosync waits for a sign of life
LONGER_TIMEOUTS, LONGER_INTERVALS = 6, 3    # factors on those of all operations
# a machine for tests: little memory; QEMU's disk in place of a fast one
DATABASE_FILE = "/etc/mysql/mariadb.conf.d/99-lab.cnf"
DATABASE_SETTINGS = """\
[mysqld]
innodb-buffer-pool-size = 32M
innodb-use-native-aio = 0
"""
FIRST_START = FAILOVER = 1200       # seconds, on a busy machine


def say(text):
    """Tell who watches, with the time."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def write(path, text, mode=0o644):
    """Write a file of the tree, and its directories."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def furnish(tree):
    """Fill the tree that is laid over the machines' root directory."""
    command(["make", "--directory", ROOT, "install-agents", f"DESTDIR={tree}"])
    command(["/usr/bin/python3", f"{ROOT}/tests/standin/build.py", f"{tree}/usr", "--generation", "11"])
    # what is no matter of the nodes' configuration: a WebApp to look at
    shutil.copytree(f"{CLUSTER}/rootfs/usr", f"{tree}/usr", dirs_exist_ok=True)
    os.makedirs(f"{tree}/etc/apache2/conf-available")
    shutil.copy(f"{CLUSTER}/rootfs/etc/apache2/conf-enabled/kopano-webapp.conf", f"{tree}/etc/apache2/conf-available")
    shutil.copytree(f"{ROOT}/crm/node/etc", f"{tree}/etc", dirs_exist_ok=True)
    shutil.copytree(f"{ROOT}/crm/node/sql", f"{tree}/root/sql")
    shutil.copytree(f"{ROOT}/crm/drbd", f"{tree}/root/crm")     # links become files
    for source, target in ((f"{CLUSTER}/lab-cluster", "usr/local/sbin/lab-cluster"),
                           (f"{ROOT}/tests/vm/fence_ipmilan", "usr/sbin/fence_ipmilan"),
                           (f"{ROOT}/tests/vm/guest_init.py", "usr/sbin/lab-init")):
        os.makedirs(os.path.dirname(f"{tree}/{target}"), exist_ok=True)
        shutil.copy(source, f"{tree}/{target}")
    metadata = command(["sh", "-c", "fence_ipmilan --action=metadata 2>/dev/null"]).stdout
    write(f"{tree}/usr/share/lab/fence_ipmilan.xml", metadata)
    corosync = f"{tree}/etc/corosync/corosync.conf"
    with open(corosync) as file:
        text = re.sub(r"(?m)^(\s*token:).*$", rf"\1 {TOKEN}", file.read())
    write(corosync, text)
    with open(f"{tree}/etc/corosync/authkey", "wb") as key:
        key.write(os.urandom(256))
    os.chmod(key.name, 0o400)
    write(f"{tree}/etc/default/pacemaker", "PCMK_logfile=/var/log/pacemaker/pacemaker.log\n")
    write(tree + DATABASE_FILE, DATABASE_SETTINGS)


def patient(text):
    """A .crm file with longer timeouts and intervals of its operations."""
    def longer(factor):
        return lambda found: f"{found[1]}={int(found[2]) * factor}s"
    text = re.sub(r"(?<![\w-])(timeout)=(\d+)s", longer(LONGER_TIMEOUTS), text)
    return re.sub(r"(?<![\w-])(interval)=(\d+)s", longer(LONGER_INTERVALS), text)


class Postman(threading.Thread):
    """Delivers one mail after the other over LMTP, each with a subject of its own, as long as the `with` lasts.

    `acknowledged`: subjects of the mails that dagent took responsibility for."""

    def __init__(self, site, label):
        super().__init__(name="postman", daemon=True)
        self.site, self.label = site, label
        self.acknowledged, self.refused = [], []
        self._end = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()

    def run(self):
        number = 0
        while not self._end.is_set():
            number += 1
            subject = f"{self.label} {number}"
            try:
                self.site.deliver(subject, timeout=30)
                self.acknowledged.append(subject)
            except OSError:                 # smtplib's errors are of that kind too
                self.refused.append(subject)
                self._end.wait(1)

    def wait_for_more(self, count, timeout=300):
        """Until `count` more mails are acknowledged."""
        goal = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= goal, timeout, f"{self.label}: {count} mails acknowledged", 0.2)


class DrbdSite(Site):
    """A running site: `with DrbdSite() as site: site.prepare_disks(); site.start_cluster(); site.load(); ...`.

    Of tests/cluster's Site it has the mail clients."""

    def __init__(self):     # pylint: disable=super-init-not-called
        self.lab = VirtualLab(furnish)

    # ---- setting it up ---------------------------------------------------------------------------------

    def everywhere(self, script, timeout=300):
        """Run a script on both machines at a time, the output of each. LabError when it fails on one."""
        outcome = {}

        def visit(machine):
            try:
                outcome[machine.name] = machine.out(["sh", "-ec", script], timeout=timeout)
            except LabError as error:
                outcome[machine.name] = error
        visits = [threading.Thread(target=visit, args=(machine,)) for machine in self.lab]
        for thread in visits:
            thread.start()
        for thread in visits:
            thread.join()
        for result in outcome.values():
            if isinstance(result, LabError):
                raise result
        return outcome

    def prepare_disks(self):
        """Partitions, DRBD's meta data, the first sync, file systems, the database: docs/guide.md. Returns how
        many seconds the first sync took."""
        bob = self.lab["bob"]
        self.everywhere("""
            printf 'label: gpt\\nsize=448MiB\\nsize=+\\n' | sfdisk --quiet /dev/sdb
            drbdadm create-md mysql kopano
            drbdadm up mysql kopano""")
        self.wait_drbd(bob, "cstate", "Connected", 120)
        begin = time.monotonic()
        bob.run("drbdadm primary --force mysql kopano")
        self.wait_drbd(bob, "dstate", UPTODATE, 600)
        took = time.monotonic() - begin
        bob.run(["sh", "-ec", """
            mkfs.ext4 -q -L mysql /dev/drbd0
            mkfs.ext4 -q -L kopano /dev/drbd1
            mkdir -p /mnt/mysql /mnt/kopano
            mount /dev/drbd0 /mnt/mysql
            mount /dev/drbd1 /mnt/kopano
            cp -a /var/lib/mysql/. /mnt/mysql
            mariadbd --user=mysql --datadir=/mnt/mysql --bootstrap </root/sql/account.sql
            chown mysql:mysql /mnt/mysql
            chown kopano:kopano /mnt/kopano
            umount /mnt/mysql /mnt/kopano"""], timeout=600)
        self.everywhere("""
            drbdadm down mysql kopano
            mv /var/lib/mysql /var/lib/mysql.before
            install -d -o kopano -g kopano /var/log/kopano
            mkdir /var/lib/mysql /var/lib/kopano
            a2enmod -q headers status
            a2enconf -q kopano-cluster kopano-webapp""")
        return took

    def start_cluster(self):
        """Start Corosync and Pacemaker on both; seconds until both are members."""
        self.everywhere("lab-cluster start </dev/null >/dev/null 2>&1")
        return self.lab.wait_online()

    def load(self):
        """Load crm/drbd as shipped; then, in the same transaction, only with more time for every operation. LabError
        when crmsh or Pacemaker has anything to say about it."""
        bob = self.lab["bob"]
        files = sorted(glob.glob(f"{ROOT}/crm/drbd/*.crm"))
        orders = [f"load update /root/crm/{os.path.basename(file)}" for file in files] + ["verify"]
        for file in files:
            with open(file) as source:
                name = f"/root/slow-{os.path.basename(file)}"
                bob.run(["tee", name], input=patient(source.read()))
            orders.append(f"load update {name}")
        # what has no timeout in there: the start of fence devices, and fencing itself
        orders += [f"op_defaults timeout={20 * LONGER_TIMEOUTS}s",
                   f"property stonith-timeout={60 * LONGER_TIMEOUTS}s", "commit"]
        words = bob.out("crm configure", input="\n".join(orders) + "\n", timeout=600)
        words += bob.out("crm_verify -LV", check=False)
        if words:
            raise LabError(f"crm configure, crm_verify:\n{words}")
        return [os.path.basename(file) for file in files]

    # ---- what it does ----------------------------------------------------------------------------------

    @staticmethod
    def complete(status, on=None):
        """Whether a Status has every resource running, those of the groups all on the machine named `on`."""
        up = sorted(name for name, online in status.online.items() if online)
        homes = [status.running.get(resource) for resource in GROUPED]
        return (homes[0] in [[name] for name in up if on in (None, name)] and homes == homes[:1] * len(homes) and
                all(sorted(status.running.get(resource, ())) == up for resource in CLONED))

    def wait_complete(self, on=None, timeout=FIRST_START):
        """Until everything runs (on the machine `on`), and answers clients; seconds it took."""
        begin = time.monotonic()
        self.lab.wait(lambda status: self.complete(status, on and on.name), timeout,
                      f"everything runs on {on.name if on else 'one machine'}", on)
        self.wait_serving(timeout=timeout)
        return time.monotonic() - begin

    def home(self):
        """The machine where everything of the groups runs. LabError when there is none."""
        status = self.lab.status()
        if not status or not self.complete(status):
            raise LabError(f"not everything runs on one machine\n{self.lab.report()}")
        return self.lab[status.running["kopano-server"][0]]

    def drbd(self, machine, what):
        """[of mysql, of kopano]: what `drbdadm role|cstate|dstate` says on a machine."""
        return machine.out(f"drbdadm {what} mysql; drbdadm {what} kopano", check=False).splitlines()

    def wait_drbd(self, machine, what, state, timeout):
        """Until drbdadm says so of both resources; seconds it took."""
        begin = time.monotonic()
        try:
            wait_for(lambda: self.drbd(machine, what) == [state] * len(RESOURCES), timeout,
                     f"{machine.name}: drbdadm {what}: {state}", every=1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.lab.report()}") from None
        return time.monotonic() - begin

    def cut_replication_then_kill(self, label):
        """Mails arrive at the primary while its peer gets nothing of them; then the primary's power is cut, and it
        stays off. Returns (old primary, peer, Postman) when the peer has fenced it and knows nothing more to do."""
        primary = self.home()
        peer = self.lab.other(primary)
        self.lab.bmc.stay_off = True
        fenced = len(self.lab.bmc.fenced())
        primary.unplug("eth1")
        wait_for(lambda: set(self.refusals(primary)) == set(RESOURCES), FAILOVER,
                 "crm-fence-peer has forbidden the peer's promotion", every=2)
        say(f"replication cut; in the CIB: {', '.join(self.refusals(primary).values())}")
        with Postman(self, label) as postman:
            postman.wait_for_more(5)
        primary.power_off()
        say(f"power cut of {primary.name} after {len(postman.acknowledged)} mails that {peer.name} never got")
        wait_for(lambda: primary.name in self.lab.bmc.fenced()[fenced:], FAILOVER, f"{primary.name} is fenced", 1)
        self.lab.wait(lambda status: status.online.get(primary.name) is False and not status.unclean, FAILOVER,
                      f"{primary.name} is known to be off", peer)
        self.lab.settle(peer, FAILOVER)
        return primary, peer, postman

    def switch_on(self, machine):
        """Put the replication's cable back if it was out, and the power on."""
        self.lab.bmc.stay_off = False
        machine.plug("eth1")
        machine.power_on()
        say(f"{machine.name} is back after {self.lab.wait_online():.0f} s")

    def refusals(self, machine):
        """{DRBD resource: its constraint's id} of the constraints that crm-fence-peer has put into the CIB."""
        cib = machine.out("cibadmin --query --scope constraints")
        return {found[2]: found[1] for found in re.finditer(r'id="(drbd-fence-by-handler-(\w+)-\w+)"', cib)
                if found[2] in RESOURCES}

    def answers(self, daemon, timeout=30):
        return super().answers(daemon, timeout)

    def inbox(self):
        """Subjects in the inbox, over IMAP, patiently."""
        return self.subjects(timeout=60)
