# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults of the comparison: what a person once did to the manual's own cluster, each as a small function."""
import signal
import time
from dataclasses import dataclass, field
from typing import Callable

from kopano_site import DAEMONS

FAULTS = {}
CLIENTS = tuple(name for name in DAEMONS if name != "server")


@dataclass(frozen=True)
class Fault:
    """One row: `act(side)` breaks; then all is watched for at most `watch` seconds."""
    name: str
    words: str
    act: Callable = field(repr=False)
    watch: float = 95.0             # three of the manual's intervals, and some
    reboots: bool = False           # afterwards the dead node is switched on
    slower: str = ""                # why crm/drbd may need longer than the manual's cluster


def fault(name, words, **more):
    """Put a function into the list."""
    def enter(act):
        FAULTS[name] = Fault(name, words, act, **more)
        return act
    return enter


# ---- daemons -------------------------------------------------------------------------------------------

def _kill(daemon):
    @fault(f"kill-{daemon}", f"kopano-{daemon} killed")
    def act(side):
        side.breaks(side.kill, daemon)


for one in DAEMONS:
    _kill(one)


@fault("kill-server-25-lmtp", "kopano-server killed; 25 LMTP clients before anybody has noticed", watch=120)
def kill_server_under_mail(side):
    """Until dagent has no slot left."""
    side.breaks(side.kill, "server")
    side.knock()


@fault("kill-server-idle-clients", "kopano-server killed, under an idle IMAP and an idle LMTP client", watch=120)
def kill_server_under_clients(side):
    """The idle ones are what makes stops long."""
    side.idle_clients("dagent", "gateway")
    side.breaks(side.kill, "server")


@fault("freeze-clients", "dagent, spooler, gateway, ical and monitor hang (SIGSTOP)")
def freeze_clients(side):
    """For ever."""
    side.breaks(lambda: side.kill(*CLIENTS, number=signal.SIGSTOP))


@fault("freeze-server", "kopano-server hangs (SIGSTOP)")
def freeze_server(side):
    """For ever."""
    side.breaks(lambda: side.kill("server", number=signal.SIGSTOP))


@fault("freeze-server-25-lmtp", "kopano-server hangs (SIGSTOP) for 95 s; 25 LMTP clients meanwhile")
def freeze_server_under_mail(side):
    """They hear nothing, which costs dagent no slot."""
    side.breaks(lambda: side.kill("server", number=signal.SIGSTOP))
    side.knock()
    side.sleep_until(95)
    side.kill("server", number=signal.SIGCONT)      # if it is still there


@fault("server-silent", "kopano-server lives, but says nothing on any of its endpoints; the database is fine",
       watch=180)
def server_silent(side):
    """Until it is restarted: the fault goes with its process."""
    side.breaks(side.silence, "server")


@fault("server-by-hand", "kopano-server stopped and started by hand within seconds; 25 LMTP clients in between")
def server_by_hand(side):
    """Too short to be noticed, by an interval of 30 s."""
    side.breaks(lambda: side.kill("server", number=signal.SIGTERM))
    side.wait_gone("server")
    side.knock()
    side.start_by_hand("server")


@fault("config-broken", "server.cfg broken on one node only (an unknown key), then kopano-server killed")
def config_broken(side):
    """The other node's is good."""
    side.home.run("echo no_such_option = 1 >>/etc/kopano/server.cfg")
    side.breaks(side.kill, "server")


# ---- the database --------------------------------------------------------------------------------------

@fault("database-killed", "MariaDB killed")
def database_killed(side):
    """No mail in between."""
    side.breaks(side.kill_database)


@fault("database-killed-1-lmtp", "MariaDB killed; one LMTP client before it is noticed", watch=110)
def database_killed_under_mail(side):
    """One 421 is enough."""
    side.breaks(side.kill_database)
    side.knock(1)


@fault("database-slow-start", "MariaDB killed; its start takes 45 s", watch=110)
def database_slow_start(side):
    """As after a crash, with a long log to replay."""
    side.delay_database()
    side.breaks(side.kill_database)
    time.sleep(45)
    side.hurry_database()


@fault("database-hung", "MariaDB hangs (SIGSTOP)", watch=240)
def database_hung(side):
    """For ever."""
    side.breaks(lambda: side.kill_database(signal.SIGSTOP))


@fault("database-hung-40", "MariaDB hangs (SIGSTOP) for 40 s; 5 LMTP clients", watch=150,
       slower="its monitor is given 30 s to answer: when the hang is over MariaDB may be about to be restarted")
def database_hung_for_a_while(side):
    """Silence costs no slot."""
    side.breaks(lambda: side.kill_database(signal.SIGSTOP))
    side.knock(5)
    side.sleep_until(40)
    side.kill_database(signal.SIGCONT)


@fault("database-cannot-start", "MariaDB can't start when the whole cluster starts; mended when it has failed on both "
       "nodes, after 20 s at least", watch=90,
       slower="after its last failure MariaDB is tried again every 20 s (failure-timeout of mysqld), mended or not")
def database_cannot_start(side):
    """Mended by its administrator, who then expects the rest of the cluster."""
    side.standby("on", *side.lab)
    wait_for_nothing(side)
    side.break_database_configuration()
    side.breaks(lambda: side.standby("off", *side.lab))
    side.wait_failed("mysqld", "start")
    side.sleep_until(20)
    side.mend_database_configuration()


def wait_for_nothing(side):
    """Until no daemon runs."""
    end = time.monotonic() + 120
    while any(side.site.instances().values()) and time.monotonic() < end:
        time.sleep(0.2)
    side.lab.settle()


@fault("foreign-database-dead", "a database outside the cluster is dead for 40 s; one LMTP client")
def foreign_database_dead(side):
    """One slot is lost."""
    side.unmanage_database()
    side.breaks(side.kill_database)
    side.knock(1)
    time.sleep(40)
    side.start_database()


@fault("foreign-database-dead-25-lmtp", "a database outside the cluster is dead for 40 s; 25 LMTP clients")
def foreign_database_dead_under_mail(side):
    """All slots are lost."""
    side.unmanage_database()
    side.breaks(side.kill_database)
    side.knock()
    side.sleep_until(40)
    side.start_database()


@fault("foreign-database-hung", "a database outside the cluster hangs for 40 s; 5 LMTP clients")
def foreign_database_hung(side):
    """Silence costs no slot."""
    side.unmanage_database()
    side.breaks(lambda: side.kill_database(signal.SIGSTOP))
    side.knock(5)
    side.sleep_until(40)
    side.kill_database(signal.SIGCONT)


@fault("server-starts-without-database", "kopano-server killed while a database outside the cluster hangs, for 130 s")
def starts_without_database(side):
    """The server retries for 90 s, and gives up."""
    side.unmanage_database()
    side.kill_database(signal.SIGSTOP)
    side.breaks(side.kill, "server")
    time.sleep(130)
    side.kill_database(signal.SIGCONT)


def _start_without_database(seconds):
    @fault(f"start-without-database-{seconds}", f"Kopano starts while a database outside the cluster is dead, for "
           f"{seconds} s", watch=120,
           slower="it depends on when the server, which looks every 10 s, or the cluster tries again")
    def act(side):
        side.unmanage_database()
        side.stop_kopano()
        wait_for_nothing(side)
        side.kill_database()
        side.breaks(side.start_kopano)
        side.sleep_until(seconds)
        side.start_database()


for one in (60, 130):               # the server gives up after 90
    _start_without_database(one)


# ---- nodes ---------------------------------------------------------------------------------------------

@fault("standby-idle-clients", "planned standby of the active node, under an idle IMAP and an idle LMTP client")
def standby_under_clients(side):
    """Dagent lets its clients finish for 30 s."""
    side.idle_clients("dagent", "gateway")
    side.breaks(side.standby, "on")


@fault("standby-frozen-gateway", "planned standby of the active node while kopano-gateway hangs")
def standby_with_frozen_gateway(side):
    """It can't be stopped in peace."""
    side.kill("gateway", number=signal.SIGSTOP)
    side.breaks(side.standby, "on")


@fault("power-cut", "the active node loses its power; afterwards it boots", reboots=True,
       slower="the dead node is fenced, and this confirmed, before its disks are mounted elsewhere; the manual's "
       "cluster mounts them unfenced, which two nodes that only lose sight of each other pay with their data")
def power_cut(side):
    """Both groups are there."""
    side.breaks(side.home.power_off)


@fault("power-cut-of-database-node", "MariaDB and Kopano on two nodes; the one with MariaDB loses its power")
def power_cut_of_database_node(side):
    """Kopano's node is healthy."""
    side.crm("crm_resource", "--move", "--resource", "mysql", "--node", side.peer.name)
    side.site.wait_serving()
    side.lab.settle()
    side.before = side.site.snapshot()
    side.peer, side.home = side.home, side.peer
    side.breaks(side.home.power_off)
