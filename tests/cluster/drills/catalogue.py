# SPDX-License-Identifier: GPL-2.0-or-later
"""The drills, by name. Each is a declaration in words, and a function that does it on a lab's site.

The commands are for an administrator on a live cluster, where bob runs Kopano; docs/drills.md is made of them.
Times in the texts are for the intervals and timeouts as shipped.
"""
import os
import signal
import smtplib
import time

from drills.scene import Drill, Failed, freeze
from drills.takeover import own_start_times
from kopano_site import ADDRESS, DAEMONS, PORTS
from namespaces import LoopDevice, shut_down_filesystem

CLIENTS = tuple(name for name in DAEMONS if name != "server")
MYSQL = ("mysql_fs", "mysql_ip", "mysqld")
KOPANO = ("kopano_fs", "kopano_ip", "kopano-server")
OTHERS = tuple(f"kopano-{name}" for name in CLIENTS)
DRILLS = {}
BOTH = ("shared-storage", "drbd")
# Seconds more than the target. `make drills` allows none; in `make test` four workers share two processors, so that a
# stop, a start and a look of a client, 2 to 3 s on a quiet machine, were seen to take up to three times as long.
RESERVE = 0 if os.environ.get("DRILLS") == "all" else 8
# Seconds that a daemon's restart may take once it is seen to be needed: the monitor's own time, stop, start (1 s each
# for those without a client to wait for) and the clients' next look, 0.3 s later.
RESTART = 5
LOOKED_AT_LESS = ("spooler", "monitor")     # every 20 s instead of every 10 s


def drill(name, does, during, after, breaks, mends="", manual="", **more):
    """Put a function into the catalogue."""
    def enter(act):
        DRILLS[name] = Drill(name, does, during, after, act, breaks, mends, manual, **more)
        return act
    return enter


# ---- daemons -----------------------------------------------------------------------------------------------

BY_ITSELF = "Seen by the next monitor (10 s; spooler, monitor: 20 s)."
ALONE = "It was started again on the same node; nothing else was, and nobody was fenced."


@drill("kill-server", "kopano-server is killed, under clients that are connected and idle",
       BY_ITSELF + " Serving again within 3 s of that; the other daemons wait for it.", ALONE,
       "`pkill -9 -x kopano-server`",
       manual="all six daemons restarted, 29 s; with one idle LMTP client: dagent's stop fails, LMTP, IMAP and CalDAV "
       "down until an administrator comes", deployments=BOTH)
def kill_server(scene):
    scene.idle_clients()
    scene.breaks("kopano-server gets SIGKILL", scene.kill, signal.SIGKILL, "server")
    scene.replaced("server")
    scene.served()
    scene.only_acted_on("kopano-server")
    scene.limit(scene.interval + 3 + RESERVE, "server")


@drill("freeze-server", "kopano-server hangs (SIGSTOP)", BY_ITSELF + " All protocols are silent until then.", ALONE,
       "`pkill -STOP -x kopano-server`", manual="never seen: \"Started\", and every protocol silent")
def freeze_server(scene):
    scene.breaks("kopano-server gets SIGSTOP", scene.kill, signal.SIGSTOP, "server")
    restarted_in_time(scene, "server")


def restarted_in_time(scene, *daemons):
    """These daemons, and no others, are restarted: as soon as a monitor has looked, and a restart takes."""
    scene.replaced(*daemons)
    took = time.monotonic() - scene.broken_at
    scene.served()
    scene.only_acted_on(*(f"kopano-{name}" for name in daemons))
    scene.limit(scene.interval + RESTART + RESERVE, *(name for name in daemons if name in PORTS))
    allowed = scene.interval * (2 if set(daemons) & set(LOOKED_AT_LESS) else 1) + RESTART + RESERVE
    if took > allowed:
        raise Failed(f"restarted only after {took:.1f} s, allowed are {allowed:.1f} s")


def _daemon_drills(name, away, manual_killed):
    def killed(scene):
        scene.breaks(f"kopano-{name} gets SIGKILL", scene.kill, signal.SIGKILL, name)
        restarted_in_time(scene, name)

    def frozen(scene):
        scene.breaks(f"kopano-{name} gets SIGSTOP", scene.kill, signal.SIGSTOP, name)
        restarted_in_time(scene, name)
    drill(f"kill-{name}", f"kopano-{name} is killed", BY_ITSELF + f" {away}", ALONE,
          f"`pkill -9 -x kopano-{name}`", manual=manual_killed)(killed)
    drill(f"freeze-{name}", f"kopano-{name} hangs (SIGSTOP)", BY_ITSELF + f" {away}", ALONE,
          f"`pkill -STOP -x kopano-{name}`", manual="never seen: \"Started\", no failure, no answer")(frozen)


_daemon_drills("dagent", "Mail waits at the MTA.", "27 s; monitor, gateway and ical restarted with it")
_daemon_drills("spooler", "Outgoing mail waits.", "27 s; dagent, monitor, gateway and ical restarted with it")
_daemon_drills("gateway", "IMAP and POP3 are away.", "25 s; ical restarted with it")
_daemon_drills("ical", "CalDAV is away.", "25 s")
_daemon_drills("monitor", "Nobody notices.", "27 s; gateway and ical restarted with it")


@drill("kill-clients", "all five daemons beside kopano-server are killed at once", BY_ITSELF,
       "The five were started again on the same node; kopano-server is the same.",
       "`for d in dagent spooler gateway ical monitor; do pkill -9 -x kopano-$d; done`",
       manual="each restart takes those behind it along")
def kill_clients(scene):
    scene.breaks("the five daemons get SIGKILL", scene.kill, signal.SIGKILL, *CLIENTS)
    restarted_in_time(scene, *CLIENTS)


@drill("freeze-clients", "all five daemons beside kopano-server hang (SIGSTOP)", BY_ITSELF,
       "The five were started again on the same node; kopano-server is the same.",
       "`for d in dagent spooler gateway ical monitor; do pkill -STOP -x kopano-$d; done`",
       manual="never seen")
def freeze_clients(scene):
    scene.breaks("the five daemons get SIGSTOP", scene.kill, signal.SIGSTOP, *CLIENTS)
    restarted_in_time(scene, *CLIENTS)


@drill("schema-upgrade", "kopano-server is restarted and upgrades its database schema, which takes long",
       "The start is a success, monitors say \"degraded\"; nothing is killed, nothing moves.",
       "It serves when the upgrade is over. Nothing else was restarted.",
       "install the new version on this node; `crm resource restart kopano-server`",
       manual="concluded, not measured: "
       "start and status know nothing of it; a stop after 20 s of it is a failure, and with fencing a reboot")
def schema_upgrade(scene):
    seconds = 8
    scene.fault("server", f"upgrade {seconds}")

    scene.breaks(f"kopano-server has {seconds} s of schema upgrade before it; it is killed", scene.kill,
                 signal.SIGKILL, "server")
    scene.replaced("server")

    def pids():
        return [process.pid for process in scene.site.instances()["server"]]
    upgrading = pids()
    scene.for_a_while(lambda: pids() == upgrading, seconds - 2, "the upgrade goes on")
    scene.served()
    if pids() != upgrading:
        raise Failed("kopano-server was killed in its schema upgrade")
    scene.only_acted_on("kopano-server")


@drill("wedged-dagent", "kopano-dagent loses all its slots: the database dies while mail comes in, 20 times 421",
       "MariaDB is restarted; then dagent, whose server is well but which greets nobody, once.",
       "LMTP works, within 40 s of MariaDB's return. Nothing else was restarted.",
       "`pkill -9 -x mariadbd; for n in $(seq 25); do timeout 1 bash -c 'cat </dev/tcp/192.168.122.100/2003'; done`",
       manual="LMTP dead for good, everything \"Started\"")
def wedged_dagent(scene):
    def knock():
        refused = 0
        for _ in range(40):
            try:
                with smtplib.LMTP(ADDRESS, PORTS["dagent"], timeout=0.5):
                    pass
            except smtplib.SMTPConnectError:
                refused += 1
            except OSError:
                break                   # silent: there is no slot left
        return refused
    scene.impatient("kopano-dagent", monitor=8)
    if scene.site.interval != 1.0:
        scene.fault("dagent", "drain 3")
    scene.breaks("mariadbd gets SIGKILL", os.kill, scene.database().pid, signal.SIGKILL)
    scene.say(f"{scene.lab.outside(knock)} clients of dagent were sent away with 421 at once")
    scene.replaced("dagent", within=90)
    scene.served()
    back_in_time(scene)
    scene.only_acted_on("mysqld", "kopano-dagent")
    scene.no_node_given_up()
    if scene.starts("kopano-dagent") != 1:
        raise Failed(f"kopano-dagent was started {scene.starts('kopano-dagent')} times")


# ---- the database ----------------------------------------------------------------------------------------------

def back_in_time(scene, returned=None):
    """All is served now, and must be within 40 s of the database's return: `returned` (time.time()), else the end of
    its last start."""
    served = time.time()
    if returned is None:
        scene.until(lambda: scene.last("start", "mysqld"), 30, "MariaDB was started")
        returned = scene.last("start", "mysqld")
    if served - returned > 40 + RESERVE:
        raise Failed(f"all services back only {served - returned:.0f} s after the database")


@drill("database-killed", "MariaDB is killed", "Seen within 10 s, serving again 5 s after that and its own start.",
       "MariaDB alone was restarted, and dagent at most once, if it had to send clients away.",
       "`pkill -9 -x mariadbd`",
       manual="all six daemons stopped and started, 12.5 s; with one LMTP connection: dagent's stop fails, "
       "MariaDB is not even restarted")
def database_killed(scene):
    before = scene.database()
    scene.breaks("mariadbd gets SIGKILL", os.kill, before.pid, signal.SIGKILL)
    scene.until(lambda: scene.lab.where("mysqld", scene.home) and scene.starts("mysqld"), 60, "MariaDB was started")
    scene.served()
    took = time.monotonic() - scene.broken_at
    allowed = scene.interval + own_start_times(scene.home, ["mysqld"])["mysqld"] + 5 + RESERVE
    if took > allowed:
        raise Failed(f"all services back only after {took:.1f} s, allowed are {allowed:.1f} s")
    scene.only_acted_on("mysqld", perhaps=scene.dagent_perhaps())
    scene.no_node_given_up()


@drill("database-killed-at-start", "MariaDB hangs and dies while kopano-server, killed too, is being started",
       "That start is a success after some seconds: while it lasts Pacemaker does nothing for MariaDB. Then MariaDB is "
       "started.",
       "All is well within 40 s of MariaDB's start. No other daemon was restarted, but perhaps dagent, once.",
       "`pkill -STOP -x mariadbd; pkill -9 -x kopano-server`, and when that runs again `pkill -9 -x mariadbd`",
       manual="concluded, not measured: as for database-killed")
def database_killed_at_start(scene):
    scene.impatient("kopano-dagent", monitor=8)
    if scene.site.interval != 1.0:
        scene.fault("dagent", "drain 3")
    before = scene.database()

    def break_both():
        os.kill(before.pid, signal.SIGSTOP)
        scene.kill(signal.SIGKILL, "server")
    scene.breaks("mariadbd gets SIGSTOP, kopano-server SIGKILL", break_both)
    scene.replaced("server")
    killed = time.monotonic()
    scene.breaks("mariadbd gets SIGKILL, under a kopano-server that is being started", os.kill, before.pid,
                 signal.SIGKILL)
    scene.until(lambda: scene.starts("mysqld"), 120, "MariaDB was started")
    took = time.monotonic() - killed
    # after 3 s start asks the database, for at most 2; so does the monitor after it, after a second
    allowed = scene.interval + 5 + 3 + own_start_times(scene.home, ["mysqld"])["mysqld"] + RESTART + RESERVE
    if took > allowed:
        raise Failed(f"MariaDB was started only after {took:.1f} s, allowed are {allowed:.1f} s")
    scene.served(within=90)
    back_in_time(scene)
    scene.only_acted_on("kopano-server", "mysqld", perhaps=scene.dagent_perhaps())
    scene.no_node_given_up()


@drill("database-down", "MariaDB dies and can't start, on neither node, for ten minutes",
       "Pacemaker keeps trying. Kopano's daemons say \"degraded\" and stay; mail waits at the MTA.",
       "All is well by itself within 40 s of MariaDB's start. No Kopano daemon was restarted, but perhaps "
       "dagent, once, for its slots.",
       "on both nodes `printf '[mysqld]\\nno_such_option\\n' >/etc/mysql/mariadb.conf.d/99-drill.cnf`, then on the one "
       "with MariaDB `pkill -9 -x mariadbd`",
       "on both nodes `rm /etc/mysql/mariadb.conf.d/99-drill.cnf`",
       manual="start fails on both nodes, everything stopped, and stays so when the database is well again")
def database_down(scene):
    path = "/etc/mysql/mariadb.conf.d/99-drill.cnf"
    for node in scene.lab:
        node.put(path, "[mysqld]\nno_such_option\n")
        scene.later(lambda node=node: node.run(["rm", "-f", path]))
    scene.breaks("mariadbd can't start any more, and gets SIGKILL", os.kill, scene.database().pid, signal.SIGKILL)
    scene.for_a_while(lambda: scene.site.snapshot()["server"] == scene.before["server"], scene.at_length(25, 600),
                      "kopano-server stays, without a database")
    scene.no_node_given_up("mysqld")
    for node in scene.lab:
        node.run(["rm", path])
    scene.mends("MariaDB can start again")
    scene.served(within=90)
    back_in_time(scene)
    scene.only_acted_on("mysqld", perhaps=["mysql_fs", "mysql_ip", *scene.dagent_perhaps()])
    scene.no_node_given_up("mysqld")


@drill("database-hung", "MariaDB hangs (SIGSTOP), for ten minutes or until it is killed",
       "Its monitor runs into its timeout (30 s), its stop kills it (115 s). Kopano's daemons stay: they are not at "
       "fault, and say so.",
       "MariaDB was restarted, within 3 minutes; Kopano's daemons were not (dagent at most once, if it had to send "
       "clients away).", "`pkill -STOP -x mariadbd`",
       manual="never seen; all protocols silent")
def database_hung(scene):
    monitor, stop = scene.at_length(6, 30), scene.at_length(14, 120)
    scene.impatient("mysqld", monitor=monitor, stop=stop)
    before = scene.database()
    scene.breaks("mariadbd gets SIGSTOP", os.kill, before.pid, signal.SIGSTOP)
    took = scene.until(lambda: scene.starts("mysqld"), 300, "MariaDB was started anew")
    scene.served()
    back_in_time(scene)
    # the agent's stop kills it five seconds before its time is up, and looks a moment too early whether it is gone
    allowed = scene.interval + monitor + stop + own_start_times(scene.home, ["mysqld"])["mysqld"] + RESTART + RESERVE
    if took > allowed:
        raise Failed(f"MariaDB was started anew only after {took:.1f} s, allowed are {allowed:.1f} s")
    scene.only_acted_on("mysqld", perhaps=[*MYSQL, *scene.dagent_perhaps()])
    scene.no_node_given_up()


@drill("foreign-database-hung", "a database that isn't the cluster's own hangs (SIGSTOP), for ten minutes",
       "All protocols are silent. Kopano's daemons say \"degraded\" and stay.",
       "All is well by itself within 40 s of the database's return. No daemon was restarted.",
       "`crm resource unmanage mysqld; pkill -STOP -x mariadbd`",
       "`pkill -CONT -x mariadbd; crm resource cleanup mysqld; crm resource manage mysqld`",
       manual="not seen, and well again by itself")
def foreign_database_hung(scene):
    def managed(value):
        scene.crm("crm_resource", "--meta", "--set-parameter", "is-managed", "--parameter-value", value, "--resource",
                  "mysqld")

    def hand_back():
        scene.crm("crm_resource", "--cleanup", "--resource", "mysqld")      # it failed meanwhile: no reason to act now
        managed("true")
    managed("false")
    scene.later(hand_back)
    before = scene.database()
    scene.later(lambda: os.kill(before.pid, signal.SIGCONT))
    scene.breaks("mariadbd gets SIGSTOP", os.kill, before.pid, signal.SIGSTOP)
    scene.for_a_while(lambda: scene.site.snapshot() == scene.before, scene.at_length(40, 600),
                      "no daemon is restarted, without a database")
    scene.no_node_given_up("mysqld")
    mended = time.time()
    scene.mends("mariadbd gets SIGCONT", os.kill, before.pid, signal.SIGCONT)
    scene.served()
    back_in_time(scene, mended)
    scene.only_acted_on()
    scene.no_node_given_up("mysqld")


# ---- nodes -------------------------------------------------------------------------------------------------------

@drill("kill-node", "the node with everything loses its power",
       "It counts as lost after the token's timeout; its fencing is confirmed; only then is anything started on the "
       "other one.",
       "Everything runs on the other node. The dead one boots, and takes nothing back.",
       "`echo b >/proc/sysrq-trigger`, or pull the plug",
       manual="3.3 to 5.7 s, but without fencing: luck alone kept the disk from being mounted twice. When the node is "
       "back everything moves again, 2 to 12 s, asked by nobody", deployments=BOTH)
def kill_node(scene):
    scene.breaks(f"{scene.home.name} loses its power", scene.home.power_off)
    scene.moved(scene.peer)
    scene.only_fenced(scene.home)
    scene.boot()
    if scene.site.active() is not scene.peer or scene.site.active("mysqld") is not scene.peer:
        raise Failed("services moved back")


@drill("kill-database-node", "the node with MariaDB alone loses its power",
       "MariaDB is started on the other node, once the first is fenced. Kopano's daemons wait for it.",
       "None of Kopano's daemons was restarted.", "`echo b >/proc/sysrq-trigger`",
       manual="the healthy Kopano group is restarted as well, 11.7 s", layout="apart")
def kill_database_node(scene):
    victim = scene.site.active("mysqld")
    scene.breaks(f"{victim.name}, where MariaDB runs, loses its power", victim.power_off)
    scene.moved(scene.home, only=MYSQL)
    scene.only_fenced(victim)
    scene.lab.settle(node=scene.home)
    if scene.site.snapshot() != scene.before:
        raise Failed("a daemon of Kopano was restarted")


@drill("node-rejoin", "the node without services loses its power, and boots again",
       "It is fenced. No client notices.", "It has joined; nothing has moved.",
       "on alice `echo b >/proc/sysrq-trigger`", manual="as here, but see kill-database-node")
def node_rejoin(scene):
    scene.breaks(f"{scene.peer.name} loses its power", scene.peer.power_off)
    scene.until(lambda: scene.fenced() == [scene.peer.name], 60, f"{scene.peer.name} is fenced")
    scene.lab.settle(node=scene.home)
    scene.lab.boot()
    scene.until(lambda: scene.site.everything_runs(scene.home.name), 90, f"{scene.peer.name} has joined again")
    scene.limit(1.5)
    if scene.site.snapshot() != scene.before:
        raise Failed("a daemon of Kopano was restarted")


@drill("freeze-node", "the node with everything hangs: no process runs, its power is on, its disks are mounted",
       "As kill-node; fencing is what makes sure that it doesn't wake up and write.",
       "Everything runs on the other node.", "`sysctl kernel.panic=0; echo c >/proc/sysrq-trigger`",
       manual="concluded, not measured: "
       "without fencing the other node mounts the disk beside it; when it wakes up both write", deployments=BOTH)
def freeze_node(scene):
    scene.breaks(f"all processes of {scene.home.name} are stopped", freeze, scene.home)
    scene.moved(scene.peer)
    scene.only_fenced(scene.home)


@drill("kill-corosync", "Corosync is killed on the node with everything",
       "Pacemaker there ends, its services run on without it; the other node fences it.",
       "Everything runs on the other node.", "`pkill -9 -x corosync`",
       manual="concluded, not measured: without fencing both nodes run everything", deployments=BOTH)
def kill_corosync(scene):
    (process,) = scene.home.processes("corosync")
    scene.breaks(f"corosync on {scene.home.name} gets SIGKILL", os.kill, process.pid, signal.SIGKILL)
    scene.moved(scene.peer)
    scene.only_fenced(scene.home)


@drill("power-loss", "both nodes lose their power; first one is back, alone, then the other",
       "One alone starts nothing: it can't know what the other one does (wait_for_all). docs/procedures.md has what to "
       "do when the other one is gone for good.",
       "With both everything runs, and every acknowledged mail is there.",
       "pull both plugs; plug one in; then the other",
       manual="concluded, not measured: one node alone starts everything, whatever the other does", deployments=BOTH)
def power_loss(scene):
    alone = scene.lab["alice"]

    def both():
        for node in scene.lab:
            node.power_off()
    scene.breaks("both nodes lose their power", both)
    alone.power_on()
    scene.until(lambda: scene.lab.status(alone), 60, f"{alone.name} is up, alone")
    scene.for_a_while(lambda: not any((scene.lab.status(alone) or NOTHING).running.values()), 4,
                      f"nothing runs on {alone.name}")
    scene.lab.boot()
    scene.mends("the other node has power again")
    scene.until(scene.site.everything_runs, 120, "everything runs")
    scene.served()
    scene.only_fenced()


class NOTHING:
    """A status while there is none."""
    running = {}


# ---- networks ------------------------------------------------------------------------------------------------

@drill("cut-lan", "the node with everything loses its LAN, not the replication link",
       "The nodes still see each other, by the second link; `lan` (crm/variants/lan) sees that the LAN is down, and "
       "what serves it moves. Without it nothing happens.",
       "Everything that clients need runs on the other node; nobody was fenced.",
       "pull the cable of eth0 (a mere `ip link set eth0 down` takes the addresses away, too)", "plug it in",
       manual="concluded, not measured: not noticed: clients are cut off until an administrator comes")
def cut_lan(scene):
    scene.extra("variants/lan.crm", "mysql_on_the_lan", "kopano_on_the_lan", "lan_clone", "lan")
    scene.until(lambda: scene.peer.out("attrd_updater -Q -A -n pingd", check=False).count('value="10000"') == 2,
                60, "both nodes see the LAN")
    scene.breaks(f"the LAN cable of {scene.home.name} is pulled", scene.home.unplug, "eth0")
    scene.moved(scene.peer, only=[*MYSQL, *KOPANO, *OTHERS])
    scene.only_fenced()
    scene.home.plug("eth0")
    scene.mends("the cable is back")
    scene.served()


@drill("cut-replication", "the link between the nodes is cut, the LAN is not",
       "The cluster goes on by the LAN. DRBD marks the other node's data as outdated, and forbids its promotion.",
       "When the link is back the other node is brought up to date, and the ban is lifted. No client noticed.",
       "`ip link set eth1 down`, or pull the cable", "`ip link set eth1 up`; `drbdadm status`",
       manual="concluded, not measured: "
       "Corosync has this link only: both nodes think the other dead and start everything; split brain",
       deployments=BOTH)
def cut_replication(scene):
    scene.breaks("the replication cable is pulled", scene.home.unplug, "eth1")
    if scene.site.deployment == "drbd":
        scene.until(lambda: banned(scene), 30, "the other node's promotion is forbidden")
    scene.for_a_while(lambda: scene.lab.status().quorum and not scene.fenced(), 5, "the cluster goes on")
    scene.home.plug("eth1")
    scene.mends("the cable is back")
    if scene.site.deployment == "drbd":
        scene.until(lambda: not banned(scene), 60, "the other node is up to date, its promotion is allowed")
    scene.limit(1.5)
    scene.only_acted_on()
    scene.only_fenced()


def banned(scene):
    """Whether DRBD forbids a promotion."""
    node = next(node for node in scene.lab if node.alive())
    return "drbd-fence-by-handler" in node.out("cibadmin --query --scope constraints", check=False)


@drill("cut-replication-then-kill", "the replication link is cut; some time later the node with the data dies",
       "The other node has old data: it is not promoted, nothing runs. Mail waits at the MTA.",
       "When the first node is back everything runs there, with every acknowledged mail; the other is brought up "
       "to date.",
       "`ip link set eth1 down; sleep 60; echo b >/proc/sysrq-trigger`", "boot the node, then plug the link in",
       manual="concluded, not measured: "
       "the other node is promoted with old data: the mail since the cut is lost", deployments=("drbd",))
def cut_replication_then_kill(scene):
    scene.breaks("the replication cable is pulled", scene.home.unplug, "eth1")
    scene.until(lambda: banned(scene), 30, "the other node's promotion is forbidden")
    acknowledged = len(scene.traffic.acknowledged)
    scene.until(lambda: len(scene.traffic.acknowledged) > acknowledged + 2, 20, "more mail comes in")
    scene.breaks(f"{scene.home.name} loses its power", scene.home.power_off)
    scene.until(lambda: scene.fenced() == [scene.home.name], 60, f"{scene.home.name} is fenced")
    scene.for_a_while(lambda: not scene.peer.mounts(), 6, f"{scene.peer.name} does not mount its old data")
    scene.lab.boot()
    scene.mends(f"{scene.home.name} has power again")
    scene.moved(scene.home, only=[*MYSQL, *KOPANO, *OTHERS])
    scene.home.plug("eth1")
    scene.until(lambda: not banned(scene), 60, f"{scene.peer.name} is up to date")


@drill("cut-both", "the nodes lose sight of each other: both links of one node are cut",
       "Both want to fence, one has to wait (pcmk_delay_base): exactly one is fenced.",
       "Everything runs on the one that survived; when its links are whole, the other joins.",
       "pull both cables of bob", "plug them in",
       manual="concluded, not measured: both nodes run everything; with shared storage both write to it",
       deployments=BOTH)
def cut_both(scene):
    scene.breaks(f"both cables of {scene.home.name} are pulled", scene.home.unplug)
    scene.until(scene.fenced, 60, "a node is fenced")
    survivor = next(node for node in scene.lab if node.name not in scene.fenced())
    scene.until(lambda: scene.lab.where("kopano-monitor", survivor) == [survivor.name], 60,
                f"everything runs on {survivor.name}")
    scene.for_a_while(lambda: len(scene.fenced()) == 1 and survivor.alive(), 3, "the other one is not fenced")
    scene.home.plug()
    scene.mends("the cables are back")
    scene.served()
    scene.boot()


# ---- storage -------------------------------------------------------------------------------------------------

@drill("storage-lost", "the node with everything loses its path to the disks: every read and write fails",
       "The monitor that reads from the disk fails: the node is fenced, unless all could be stopped before that.",
       "Everything runs on the other node.",
       "with a SAN, for each path that `multipath -ll kopano` and `multipath -ll mysql` list (sdb, say): "
       "`echo 1 >/sys/block/sdb/device/delete`", "nothing: the reboot has found the disk again",
       drbd="break its disk: `echo 1 >/sys/block/sdb/device/delete`. Nobody is fenced: `on-io-error detach` lets go of "
       "the disk, `drbdadm status` says `disk:Diskless` on bob, which goes on with alice's data over the replication "
       "link. DRBD's agent sees it within 10 s and values her copy higher: both groups move to her in order, as in "
       "switch-over (so says crm_simulate; the lab's stand-in for DRBD can't lose its disk). Mend: put the disk in; a "
       "new one is partitioned as before and gets its metadata (docs/procedures.md, \"Replace a node\", 3); then "
       "`drbdadm attach all`. Until `drbdadm status` says UpToDate twice there is one copy only, alice's",
       manual="concluded, not measured: status looks for processes only: not seen as long as they are there")
def storage_lost(scene):
    disks = scene.home.disks

    def lose():
        for path in disks:
            scene.home.run(["rm", path])
        for mount_point in scene.home.mounts():
            shut_down_filesystem(f"/proc/{scene.home.pid}/root{mount_point}")

    def find():
        for path, loop in disks.items():
            if scene.home.alive():
                scene.home.run(["sh", "-c", f"test -e {path} || mknod -m 660 {path} b {loop.major} {loop.minor}"])
    scene.later(find)
    scene.breaks(f"the disks of {scene.home.name} are gone", lose)
    scene.moved(scene.peer)
    # Pacemaker remembers one failure of a resource: that of level 20, a moment later, asks for a restart only. A stop
    # that hangs at the disk is fenced all the same.
    if scene.fenced():
        scene.only_fenced(scene.home)


@drill("storage-readonly", "Kopano's file system becomes read-only, as after an error of the disk",
       "Its monitor writes a file, and fails; the file system is mounted anew, kopano-server is restarted around it.",
       "Everything runs, on the same node.", "`mount -o remount,ro /var/lib/kopano`",
       manual="concluded, not measured: not seen: attachments can't be stored until an administrator comes")
def storage_readonly(scene):
    scene.breaks("/var/lib/kopano is remounted read-only", scene.home.run,
                 ["mount", "-o", "remount,ro", "/var/lib/kopano"])
    scene.until(lambda: scene.starts("kopano-server"), 120, "kopano-server was started again")
    scene.home.run("touch /var/lib/kopano/.writable && rm /var/lib/kopano/.writable")
    scene.served()
    scene.only_acted_on("kopano_fs", "kopano_ip", "kopano-server", perhaps=OTHERS)
    scene.only_fenced()


@drill("fill-disk", "Kopano's file system is full",
       "Nothing is restarted or moved: that can't help, it would be full there too.", "Nothing has happened.",
       "`su -s /bin/sh kopano -c 'cat /dev/zero >/var/lib/kopano/full'`",
       "`rm /var/lib/kopano/full`", manual="concluded, not measured: the same")
def fill_disk(scene):
    scene.breaks("/var/lib/kopano is filled", scene.home.run,
                 "setpriv --reuid kopano --regid kopano --clear-groups cat /dev/zero >/var/lib/kopano/full; true")
    scene.for_a_while(lambda: not scene.acted_on(), 2 * 2 * scene.interval + 1, "nothing is restarted")
    scene.mends("the disk has room again", scene.home.run, ["rm", "/var/lib/kopano/full"])
    scene.served()
    scene.only_acted_on()


# ---- the cluster itself ----------------------------------------------------------------------------------------

@drill("stop-fails", "a file system can't be unmounted when services are to leave the node",
       "The stop fails, so nobody can know what that node still writes: it is fenced.",
       "Everything runs on the other node.",
       "`truncate -s 1M /var/lib/kopano/held; losetup --find --show /var/lib/kopano/held; crm resource move kopano`",
       "`crm resource clear kopano`",
       manual="blocked: no switch-over, LMTP, IMAP and CalDAV down until an administrator comes", deployments=BOTH)
def stop_fails(scene):
    scene.home.run(["truncate", "-s", "1M", "/var/lib/kopano/held"])
    scene.impatient("kopano_fs", stop=10)
    held = LoopDevice(f"/proc/{scene.home.pid}/root/var/lib/kopano/held")
    scene.home.dies_with_it.append(held.close)
    scene.later(held.close)
    scene.later(lambda: scene.peer.run("crm_resource --clear --resource kopano", check=False))
    scene.breaks("a loop device holds a file of /var/lib/kopano; kopano is to move", scene.crm, "crm_resource",
                 "--move", "--resource", "kopano", "--node", scene.peer.name)
    scene.moved(scene.peer, within=150)
    scene.only_fenced(scene.home)


@drill("fence-device-broken", "the node with everything dies, and its fence device doesn't answer",
       "Nothing is started elsewhere, however long it takes: the node may be alive and write.",
       "When the device answers again everything starts on the other node by itself. (A node that is surely dead can "
       "be declared so: `stonith_admin --confirm bob`.)",
       "take the network cable out of bob's BMC; `echo b >/proc/sysrq-trigger`", "plug the BMC in",
       manual="there is no fencing", deployments=BOTH)
def fence_device_broken(scene):
    scene.lab.bmc.broken = True
    scene.later(lambda: setattr(scene.lab.bmc, "broken", False))
    scene.breaks(f"the BMCs don't answer, and {scene.home.name} loses its power", scene.home.power_off)
    failed = []

    def tried():
        scene.tell_news()
        failed[:] = [event for event in scene.events if event.kind == "fence" and not event.good]
        return failed
    scene.until(tried, 60, "fencing was tried, and failed")
    scene.for_a_while(lambda: not scene.peer.mounts(), 3, f"nothing is started on {scene.peer.name}")
    scene.lab.bmc.broken = False
    scene.mends("the BMCs answer again")
    scene.moved(scene.peer)
    scene.only_fenced(scene.home)


@drill("standby", "the node with everything is put on standby, under clients that are connected and idle",
       "Orderly: Kopano's daemons stop, dagent lets its clients finish for up to 30 s, then all start on the "
       "other node.",
       "At most 45 s; nobody was fenced, no connection of the database was cut.",
       "`crm node standby bob`", "`crm node online bob`",
       manual="with one idle LMTP client: dagent's stop fails, nothing moves, LMTP, IMAP and CalDAV are down",
       deployments=BOTH)
def standby(scene):
    scene.idle_clients()
    scene.breaks(f"{scene.home.name} is put on standby", scene.crm, "crm_standby", "--node", scene.home.name,
                 "--update", "on")
    scene.later(lambda: scene.peer.run(["crm_standby", "--node", scene.home.name, "--delete"], check=False))
    scene.moved(scene.peer, only=[*MYSQL, *KOPANO, *OTHERS])
    scene.only_fenced()
    scene.limit(45 + RESERVE)


@drill("switch-over", "Kopano is moved, MariaDB stays, under clients that are connected and idle",
       "As standby; MariaDB is not touched.", "At most 45 s.",
       "`crm resource move kopano alice`", "`crm resource clear kopano`",
       manual="as standby", deployments=BOTH)
def switch_over(scene):
    scene.idle_clients()
    scene.later(lambda: scene.peer.run("crm_resource --clear --resource kopano", check=False))
    scene.breaks(f"kopano is to move to {scene.peer.name}", scene.crm, "crm_resource", "--move", "--resource",
                 "kopano", "--node", scene.peer.name)
    scene.moved(scene.peer, only=[*KOPANO, *OTHERS])
    scene.only_fenced()
    scene.limit(45 + RESERVE)
    if scene.acted_on() & set(MYSQL):
        raise Failed("MariaDB was touched")
