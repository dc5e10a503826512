# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults, by name: what is broken, what can be seen of it, which verdict follows; and how it is done.

The verdicts were written down before any run. "Facts" are the observations of real daemons, 8.7.25 and 11.0.2,
that the agents were built on; "contract" is what the agents promise. Node and network faults: docs/drills.md.
"""
import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time

import certificates
from contract.looks import SOCKET, catches_term, connects, forget, state_of
from contract.rough import Bystander
from world import DAEMONS, PORTS, wait_for

from .breaking import (another_password, fill, half_requests, jumped, no_more_files, read_only, slow, slow_mta,
                       small_disk, stranger_listening, utc)
from .fault import (DEGRADED, ELSEWHERE, GONE, ILL, ILL_LATER, ILL_MUCH_LATER, ILL_TWICE, NO_RESTART, NOTHING, RESTART,
                    WELL, fault)
from .scene import PASSWORD, USER
from .ways import Kopano

ASKED = ("server", "dagent", "gateway", "ical")         # they have a protocol
CLIENTS = tuple(name for name in DAEMONS if name != "server")


def each(server=None, portless=None, **others):
    """{daemon: Says}: what the server, spooler and monitor, and all others say."""
    found = dict.fromkeys(DAEMONS, others.pop("others", None))
    found.update(others)
    if server:
        found["server"] = server
    if portless:
        found.update(spooler=portless, monitor=portless)
    return found


SILENT = each(server=ILL_TWICE, portless=ILL_LATER, others=ILL)

# ---- the process -----------------------------------------------------------------------------------------------


@fault("crash", "process", DAEMONS, cure=RESTART, at10=GONE, at20=GONE,
       broken="it is killed (SIGKILL; a segmentation fault and the kernel's OOM killer look the same)",
       visible="no process; sockets and pid file stay",
       fact="pid files and unix sockets are never removed by the daemons (facts 2); no process of ours is 7")
def crash(scene):
    pid = scene.world.signal(scene.name, signal.SIGKILL)
    wait_for(lambda: scene.world.gone(scene.name) and not state_of(pid))
    yield


@fault("ended", "process", "gateway", cure=RESTART, at10=GONE, at20=GONE,
       broken="somebody ends it by hand (SIGTERM)",
       visible="no process; it said 0 when it ended",
       fact="TERM when idle: 10 to 30 ms, exit code 0 (facts 3)")
def ended(scene):
    scene.world.stop_daemon(scene.name)
    yield


@fault("freeze", "process", DAEMONS, cure=RESTART, at10=ILL, at20=ILL, planned=(0, 0),
       broken="it is stopped (SIGSTOP, a debugger)",
       visible="process state T; connections are accepted, by the kernel, and never answered",
       fact="contract: stopped is 1, and nothing has to be asked for it")
def freeze(scene):
    scene.world.freeze(scene.name)
    yield
    scene.world.thaw(scene.name)


@fault("zombie", "process", ("gateway", "monitor"), cure=RESTART, at10=ILL, at20=ILL, not_for=("unit",),
       broken="it is dead, and its parent, who should collect it, doesn't (systemd always does)",
       visible="process state Z: `kill -0` succeeds, nothing listens",
       fact="`kill -0` succeeds on a zombie (facts 2); contract: a zombie is 1")
def zombie(scene):
    scene.world.kill_daemon(scene.name)
    started = scene.world.start_daemon(scene.name, reap=False)
    scene.world.wait_ready(scene.name)
    scene.way.adopt(started)
    for pid in scene.world.pids(scene.name):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: state_of(started.pid) == "Z")
    yield
    started.reap()
    wait_for(lambda: not state_of(started.pid))


@fault("children-left", "process", "gateway", cure=RESTART, at10=ILL, at20=ILL, planned=(0, 0),
       settings={"gateway": {"process_model": "fork"}},
       broken="the main process of the fork model is killed while a child serves a client",
       visible="the child is there, with the same name and command line; nobody accepts new clients",
       fact="children carry the daemon's command line (facts 2, of dagent and spooler 8.7.25); contract: main "
       "process dead, children alive: 1")
def children_left(scene):
    world = scene.world
    world.hold("imap")
    main = world.main_pid(scene.name)
    children = set(world.pids(scene.name)) - {main}
    os.kill(main, signal.SIGKILL)
    wait_for(lambda: not state_of(main))
    assert children & set(world.pids(scene.name)), "no child is left"
    scene.harms.append(lambda: "a child of the dead daemon runs on beside the new one"
                       if world.main_pid(scene.name) and children & set(world.pids(scene.name))
                       and set(world.pids(scene.name)) - children else "")
    yield


@fault("children-left-8", "process", ("dagent", "spooler"), cure=RESTART, at10=ILL, at20=ILL, planned=(0, 0),
       generation=8,
       broken="the main process is killed while a child receives a mail (dagent) or sends one (spooler), for 10 s",
       visible="the child is there, with the same name and command line, and so is the logger's process",
       fact="8.7.25 runs both in the fork model (facts 2); contract: main process dead, children alive: 1; a child "
       "that sends is given all the time that stop has, or the mail would be sent twice")
def children_left_8(scene):
    world = scene.world
    main, alone = world.main_pid(scene.name), set(world.pids(scene.name))
    if scene.name == "dagent":
        world.hold("lmtp")
    else:
        scene.enter(slow_mta(10))
        world.submit(USER, "nobody@example.org", "takes its time")
    children = wait_for(lambda: set(world.pids(scene.name)) - alone, 10, "a child is at work")
    os.kill(main, signal.SIGKILL)
    wait_for(lambda: not state_of(main))
    assert children & set(world.pids(scene.name)), "no child is left"

    def twice():
        mains = [pid for pid in set(world.pids(scene.name)) - children - alone if state_of(pid) not in ("", "Z")]
        return "a child of the dead daemon runs on beside the new one" \
            if mains and children & set(world.pids(scene.name)) else ""

    scene.harms.append(twice)
    yield


@fault("neighbour", "process", "gateway", cure=RESTART, at10=GONE, at20=GONE, planned=(0, 0),
       broken="it is killed, while another instance of the same program, with its own configuration, runs on",
       visible="a process of that name, with another command line",
       fact="contract: identity is executable, role and configuration, never the name alone")
def neighbour(scene):
    world = scene.world
    values = dict(world.settings["gateway"], imap_listen="*:1143", pop3_listen="", imaps_listen="",
                  pop3s_listen="", log_file=world.log + "/second.log")
    with open(world.etc + "/second.cfg", "w", encoding="utf-8") as file:
        file.write("".join("%s = %s\n" % item for item in values.items()))
    victim = world.main_pid("gateway")
    second = world.start_daemon("gateway", config=world.etc + "/second.cfg")
    wait_for(lambda: connects(1143))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not state_of(victim))
    scene.harms.append(lambda: "the other instance was ended" if second.rc is not None else "")
    yield
    if second.rc is None:
        os.kill(second.pid, signal.SIGKILL)
        second.wait()


@fault("term-ignored", "process", ("gateway", "server", "dagent", "spooler"), cure=NOTHING, at10=WELL, at20=WELL,
       planned=(0, 0),
       broken="it will not end when it is told to (SIGTERM has no effect)",
       visible="nothing until it is stopped: it serves",
       fact="contract: stop sends TERM, a second one after the daemon's own drain (gateway: 15 s; where nobody has "
       "to be waited for: 2 s), KILL 5 s later",
       blind="it serves; a stop shows it")
def term_ignored(scene):
    scene.fault_of("no-term")
    wait_for(lambda: not scene.world.catches_term(scene.name))
    yield


@fault("second-instance", "process", ("spooler", "monitor"), cure=NO_RESTART, at10=WELL, at20=DEGRADED,
       planned=(0, 0),
       broken="it is started a second time by hand; two spoolers share one queue",
       visible="two processes with the same program, role and configuration; both work, and a mail may be sent twice",
       fact="11.x runs spooler and monitor twice without a word (facts 2); contract: 190 at depth 20, naming both, as "
       "each of them is healthy; it is looked for every 5 minutes only, here by the first look; stop leaves none of "
       "this instance, start makes no second one")
def second_instance(scene):
    second = scene.world.start_daemon(scene.name)
    wait_for(lambda: catches_term(second.pid), 10, "the second one runs")
    time.sleep(1.2)             # one that has just begun may be somebody's `kopano-spooler -V`
    forget(scene.world)         # as if five minutes had passed since the last look for it
    scene.harms.append(lambda: "the second one runs on after the stop"
                       if getattr(scene, "stopped", None) == 0 and second.rc is None else "")
    yield
    if second.rc is None:
        os.kill(second.pid, signal.SIGKILL)
        second.wait()


@fault("binary-replaced", "process", ("gateway", "server", "dagent"), cure=NOTHING, at10=WELL, at20=WELL,
       planned=(0, 0),
       broken="its program is replaced by an upgrade while it runs",
       visible="/proc/PID/exe ends in \" (deleted)\"; it serves",
       fact="contract: identity holds for the process that was started; stop works without the binary")
def binary_replaced(scene):
    path = scene.world.binary(scene.name)
    shutil.copy2(path, path + ".new")
    os.rename(path + ".new", path)
    assert os.readlink("/proc/%d/exe" % scene.pid).endswith(" (deleted)")
    yield


# ---- its answers -----------------------------------------------------------------------------------------------

LIVELOCK = dict(SILENT, spooler=ILL_MUCH_LATER)


@fault("livelock", "answers", DAEMONS, waits=ASKED, cure=RESTART, at10=LIVELOCK, at20=LIVELOCK,
       broken="its main thread (monitor: its scheduler) runs in circles, the others wait for it; spooler's "
       "notification thread goes on",
       visible="state R; that thread never gives up the CPU of its own accord; connections are accepted, by the "
       "kernel, and never answered",
       fact="contract: answers nothing is 1; spooler's main thread moves every 60 s, monitor's scheduler every 5 s "
       "(facts 4.5, 4.6): not once in over 125 s, or none of all threads in over 65 s, is 1")
def livelock(scene):
    scene.sick = scene.world.main_pid(scene.name)
    scene.fault_of("spin")
    yield


@fault("deadlock", "answers", DAEMONS, cure=RESTART, waits=ASKED, at10=SILENT, at20=SILENT,
       broken="all its threads wait for each other",
       visible="state S, living threads of which none moves; no answer; the first SIGTERM does nothing",
       fact="contract: answers nothing is 1; all counters of context switches frozen for over 65 s is a hang "
       "(facts 4.5, 4.6)")
def deadlock(scene):
    scene.sick = scene.world.main_pid(scene.name)
    scene.fault_of("wedge")
    yield


@fault("main-deadlocked", "answers", "spooler", cure=RESTART, at10=ILL_MUCH_LATER, at20=ILL_MUCH_LATER,
       broken="its main thread waits for ever, its notification thread goes on",
       visible="state S; one thread moves every second, the main thread does not; both sessions are there",
       fact="contract: spooler's main thread looks at its queue every 60 s: not once in over 125 s is 1")
def main_deadlocked(scene):
    scene.sick = scene.world.main_pid(scene.name)
    scene.fault_of("wedge-main")
    yield


@fault("listener-closed", "answers", ASKED, cure=RESTART, at10=ILL, at20=ILL,
       broken="it has closed its listening sockets, and lives",
       visible="the process is there; connections are refused",
       fact="contract: all endpoints refuse is 1")
def listener_closed(scene):
    port = PORTS[{"server": "soap", "dagent": "lmtp", "gateway": "imap", "ical": "caldav"}[scene.name]]
    scene.fault_of("refuse")
    wait_for(lambda: not connects(port))
    yield


@fault("one-listener-closed", "answers", ("gateway", "server"), cure=NO_RESTART, at10=DEGRADED, at20=DEGRADED,
       broken="one of several listening sockets is closed (gateway: IMAPS; server: TLS)",
       visible="that one refuses, the others answer",
       fact="contract: some endpoints answer, others don't: 190, naming them; whom the others serve is not "
       "thrown out")
def one_listener_closed(scene):
    port = {"gateway": 993, "server": 237}[scene.name]
    scene.fault_of("refuse", endpoint=port)
    wait_for(lambda: not connects(port))
    yield


@fault("silent", "answers", ASKED, cure=RESTART, waits=ASKED, at10=SILENT, at20=SILENT,
       broken="it accepts connections and says nothing",
       visible="an accepted connection without a byte",
       fact="contract: answers nothing is 1; a silent server only when its database was fine in two monitors, "
       "as a hung database makes it silent too (facts 3.1)")
def silent(scene):
    scene.fault_of("hang")
    yield


@fault("one-silent", "answers", ("server", "gateway", "ical"), cure=NO_RESTART, needs=("dagent",),
       waits=("server", "gateway", "ical"), partly=True, at10=DEGRADED, at20=DEGRADED,
       broken="one of several endpoints says nothing (gateway: IMAPS; server, ical: TLS)",
       visible="that one is silent, the others answer",
       fact="contract: some endpoints answer, others don't: 190")
def one_silent(scene):
    scene.fault_of("hang", endpoint={"server": 237, "gateway": 993, "ical": 8443}[scene.name])

    def others():
        if not isinstance(scene.way, Kopano):
            return ""
        result = scene.world.agent("dagent", "monitor")
        return "" if result.rc == 0 else "dagent, which is well, is called %s: %s" % (result.rc, result.reason)

    scene.harms.append(others)
    yield


@fault("garbage", "answers", ASKED, cure=RESTART, at10=ILL, at20=ILL,
       broken="it answers with noise",
       visible="bytes that are not its protocol, without an end of line",
       fact="contract: answers nonsense is 1, told at once")
def garbage(scene):
    scene.fault_of("garbage")
    yield


@fault("half", "answers", ASKED, cure=RESTART, waits=ASKED, at10=SILENT, at20=SILENT,
       broken="it begins its answer and doesn't end it",
       visible="half a greeting, or half a header, then nothing",
       fact="contract: an answer that is not complete is none; how many bytes came is told")
def half(scene):
    scene.fault_of("half")
    yield


@fault("hung-up", "answers", ASKED, cure=RESTART, at10=ILL, at20=ILL,
       broken="it closes each connection without a word",
       visible="end of file where an answer was due",
       fact="contract: answers nothing is 1")
def hung_up(scene):
    scene.fault_of("close")
    yield


@fault("slow-drip", "answers", ASKED, cure=RESTART, waits=ASKED, at10=SILENT, at20=SILENT,
       broken="it sends one byte a second",
       visible="an answer that would take minutes",
       fact="contract: time is running out: the verdict says what was waited for, and how many bytes had come")
def slow_drip(scene):
    scene.fault_of("slow", 1)
    yield


@fault("wrong-service", "answers", ("gateway", "server", "dagent"), cure=ELSEWHERE, at10=GONE, at20=GONE,
       broken="it has died, and another program listens on its port",
       visible="no process; an SMTP greeting on port 143 (server: 236, dagent: 2003)",
       fact="contract: no process of ours is 7, whoever answers; start says by whom the port is taken")
def wrong_service(scene):
    scene.world.kill_daemon(scene.name)
    with stranger_listening(PORTS[{"gateway": "imap", "server": "soap", "dagent": "lmtp"}[scene.name]]):
        yield


@fault("wrong-service-beside", "answers", "gateway", cure=NO_RESTART, at10=DEGRADED, at20=DEGRADED,
       broken="one of its ports (POP3) is another program's, it serves on the others",
       visible="an SMTP greeting on port 110, IMAP is fine",
       fact="contract: some endpoints answer, others don't: 190; a restart would find the port taken")
def wrong_service_beside(scene):
    scene.fault_of("refuse", endpoint=110)
    wait_for(lambda: not connects(110))
    with stranger_listening(PORTS["pop3"]):
        yield


# ---- what it has run out of -------------------------------------------------------------------------------------

@fault("slots-leaked", "resources", "dagent", cure=RESTART, waits=("dagent",), at10=ILL, at20=ILL,
       costs_slots=True, touches=("server",), planned=(0, 0),
       broken="its server was away for a moment while mail came in: 20 times 421",
       visible="server and database are well; LMTP accepts connections and never greets again",
       fact="each 421 costs one of 20 slots for ever; only a restart helps, and TERM takes 30 s then (facts 3.2)")
def slots_leaked(scene):
    world = scene.world
    world.kill_daemon("server")
    for _ in range(20):
        assert world.hold("lmtp").greeting.startswith(b"421")
    world.release()
    world.up("server")
    yield


@fault("refuses-all", "resources", "dagent", cure=RESTART, at10=ILL, at20=ILL, costs_slots=True,
       broken="it has lost its session for good: every client gets 421",
       visible="421 while its server is well",
       fact="contract: dagent, its server's deep check is good, yet a 421: 1")
def refuses_all(scene):
    scene.fault_of("421")
    yield


@fault("workers-exhausted", "resources", "server", cure=RESTART, waits=("server",), at10=ILL_TWICE,
       at20=ILL_TWICE,
       broken="clients hold all its 40 workers with requests that they don't end",
       visible="connections are accepted, no HEAD is answered; the database is fine",
       fact="an incomplete request holds a worker for up to 60 s; with all of them held nothing is answered "
       "(facts 3.1)")
def workers_exhausted(scene):
    with half_requests(45):
        yield


@fault("files-exhausted", "resources", ("server", "gateway", "dagent"), cure=RESTART,
       waits=("server", "gateway", "dagent"),
       at10=each(server=ILL_TWICE, others=ILL), at20=each(server=ILL_TWICE, others=ILL),
       broken="it can open no more files: every accept() fails",
       visible="connections wait in the kernel's queue, unanswered",
       fact="contract: answers nothing is 1")
def files_exhausted(scene):
    with no_more_files(scene.pid):
        yield


@fault("sessions-lost", "resources", "spooler", cure=RESTART, at10=WELL, at20=ILL_LATER,
       broken="it has lost its sessions with the server, which is well, and does not get new ones",
       visible="no connection to server.sock, instead of two",
       fact="it is back within 3 s of the server's return; none for over 65 s while the server answers: it "
       "doesn't work (facts 4.5)")
def sessions_lost(scene):
    scene.sick = scene.world.main_pid("spooler")
    scene.fault_of("offline")
    scene.world.submit("alice", "nobody@example.org", "wakes it")
    wait_for(lambda: not scene.world.server_connections("spooler"), 70, "spooler keeps its sessions")
    yield


@fault("log-disk-full", "resources", ("server", "gateway"), cure=NOTHING, at10=WELL, at20=WELL, planned=(0, 0),
       prepares=lambda scene: scene.enter(small_disk(scene.world.log)),
       broken="the file system of its log is full",
       visible="nothing: it serves, and says no more",
       fact="a log that can't be written stops no daemon at its start (facts 1.3); a disk that fills up later "
       "was not tried with real ones")
def log_disk_full(scene):
    fill(scene.world.log)
    yield
    os.unlink(scene.world.log + "/full")


# ---- its files --------------------------------------------------------------------------------------------------

PID_FILES = ("gateway", "server", "dagent")
PID_FILE = {"group": "files", "cure": NOTHING, "at10": WELL, "at20": WELL, "generation": 8}


def pid_file(scene):
    """Its pid file; what our agents remember of it is gone as well."""
    forget(scene.world)
    path = "%s/%s.pid" % (scene.world.run, scene.name)

    def twice():
        mains = [pid for pid in scene.world.pids(scene.name) if state_of(pid) not in ("", "Z")]
        return "%d of it run" % len(mains) if len(mains) > 1 and scene.name == "spooler" else ""

    scene.harms.append(twice)
    return path


@fault("pid-file-lost", daemons=PID_FILES, **PID_FILE,
       broken="its pid file is deleted",
       visible="the process lives, and serves",
       fact="contract: a lost pid file: as its probe says")
def pid_file_lost(scene):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(pid_file(scene))
    yield


@fault("pid-file-lost-11", daemons="spooler", **dict(PID_FILE, generation=11),
       broken="the pid file (11.x writes none: that of whoever looks after it) is deleted",
       visible="the process lives, and works",
       fact="11.x runs spooler and monitor twice without a word (facts 2)")
def pid_file_lost_11(scene):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(pid_file(scene))
    yield


@fault("pid-file-stale", daemons=PID_FILES, **PID_FILE,
       broken="its pid file names a process that is dead",
       visible="the process lives, and serves, under another number",
       fact="contract: pid file lost, process alive: as its probe says; one that names a dead pid tells no more")
def pid_file_stale(scene):
    dead = subprocess.Popen(["true"])
    dead.wait()
    with open(pid_file(scene), "w", encoding="ascii") as file:
        file.write("%d\n" % dead.pid)
    yield


def _innocent(scene):
    """Somebody who has the pid that the file names."""
    innocent = scene.enter(Bystander("/run/innocent", ends=True))
    threading.Thread(target=innocent._child.wait, daemon=True).start()
    with open(pid_file(scene), "w", encoding="ascii") as file:
        file.write("%d\n" % innocent.pid)
    scene.harms.append(lambda: "" if innocent.alive and not innocent.signals else "an innocent process was ended")


@fault("pid-file-foreign", daemons=PID_FILES, planned=(0, 0), **PID_FILE,
       broken="its pid file names a process of somebody else",
       visible="the process lives, and serves",
       fact="contract: never the number alone; stop signals only what it has identified")
def pid_file_foreign(scene):
    _innocent(scene)
    yield


@fault("pid-reused", daemons=PID_FILES, planned=(0, 0), **dict(PID_FILE, cure=RESTART, at10=GONE, at20=GONE),
       broken="it has died, and its pid is somebody else's by now (also after a reboot)",
       visible="the pid file names a living process, which is no gateway",
       fact="contract: pid file names a stranger: 7; stop signals only what it has identified")
def pid_reused(scene):
    scene.world.kill_daemon(scene.name)
    _innocent(scene)
    yield


@fault("pid-file-binary", daemons=PID_FILES, **PID_FILE,
       broken="its pid file holds noise, after a crash of the machine",
       visible="the process lives, and serves",
       fact="contract: a pid file that is none changes nothing")
def pid_file_binary(scene):
    with open(pid_file(scene), "wb") as file:
        file.write(bytes(range(256)) * 16)
    yield


@fault("pid-file-enormous", daemons=PID_FILES, **PID_FILE,
       broken="its pid file is 16 MB of digits",
       visible="the process lives, and serves",
       fact="contract: a pid file that is none changes nothing")
def pid_file_enormous(scene):
    with open(pid_file(scene), "wb") as file:
        file.write(b"1" * (16 << 20))
    yield


@fault("left-over-socket", "files", "server", cure=RESTART, at10=GONE, at20=GONE, generation=8,
       broken="it was killed; server.sock and prio.sock are left over",
       visible="the paths are there, and refuse connections",
       fact="sockets are never removed; the next start replaces them (facts 2)")
def left_over_socket(scene):
    scene.world.kill_daemon("server")
    assert os.path.exists(SOCKET) and os.path.exists("%s/server.pid" % scene.world.run)
    yield


def _thief(scene):
    """A second kopano-server, whose TCP port doesn't collide: it unlinks server.sock and binds it anew."""
    world = scene.world
    values = dict(world.settings["server"], server_listen="*:1236", log_file=world.log + "/second.log")
    values.pop("server_listen_tls")
    with open(world.etc + "/second.cfg", "w", encoding="utf-8") as file:
        file.write("".join("%s = %s\n" % item for item in values.items()))
    thief = world.start_daemon("server", config=world.etc + "/second.cfg")
    wait_for(lambda: connects(1236) and world.ready("server"))
    wait_for(lambda: "Startup succeeded" in "".join(open(world.log + "/second.log", encoding="utf-8")))
    return thief


@fault("socket-stolen", "files", "server", cure=RESTART, at10=DEGRADED, at20=ILL_TWICE,
       broken="a second kopano-server took server.sock, and is gone again",
       visible="TCP answers; server.sock and prio.sock refuse",
       fact="the second one unlinks and binds the path; when it stops, the path refuses (facts 2); contract: some "
       "endpoints answer: 190; at depth 20 the deep check, which goes by the socket, fails while the database is "
       "fine: 1")
def socket_stolen(scene):
    thief = _thief(scene)
    os.kill(thief.pid, signal.SIGKILL)
    thief.wait()
    yield


@fault("second-server", "files", "server", cure=NO_RESTART, at10=WELL, at20=DEGRADED,
       broken="a second kopano-server took server.sock, and runs",
       visible="all endpoints answer; those of the socket are the second one's, and refuse once it ends",
       fact="the first one keeps running on an orphaned inode (facts 2); contract: server.sock accepted by another "
       "kopano-server is 190, naming it; once that is ended the socket refuses: see socket-stolen")
def second_server(scene):
    thief = _thief(scene)
    yield
    if thief.rc is None:
        os.kill(thief.pid, signal.SIGKILL)
        thief.wait()
    # what an administrator does then
    scene.world.kill_daemon("server")
    scene.world.up("server")


@fault("run-lost", "files", ("server", "dagent"), touches=("server",),
       cure={"server": RESTART, "dagent": NO_RESTART},
       at10=each(server=DEGRADED, dagent=DEGRADED), at20=each(server=ILL_TWICE, dagent=DEGRADED),
       broken="/run/kopano is gone, with server.sock",
       visible="TCP answers; who comes by socket is refused",
       fact="contract: start creates what a reboot took away; dagent's server can't be asked: 190, the server "
       "has a monitor of its own")
def run_lost(scene):
    shutil.rmtree(scene.world.run)
    yield
    scene.world._private()
    if scene.name != "server":
        scene.world.kill_daemon("server")
        scene.world.up("server")


@fault("config-broken", "files", ("gateway", "server", "dagent"), cure=NOTHING, at10=WELL, at20=WELL, planned=(0, 5),
       broken="its configuration is broken by an edit: an unknown key",
       visible="nothing until it is started again",
       fact="an unknown key is fatal at start (facts 1.3); contract: a configuration broken since never changes "
       "a recurring verdict; start says 5, with the daemon's message, so that the other node gets it",
       blind="what runs is not what is written")
def config_broken(scene):
    scene.world.write_config(scene.name, bogus_key="1")
    yield
    scene.world.write_config(scene.name, bogus_key=None)


def _certificate(scene, **dates):
    """Another certificate than usual, with other dates, for a daemon that has one."""
    made = certificates.make("/run/certificate-%d" % time.monotonic_ns(), **dates)
    with open("/etc/kopano/another.pem", "w", encoding="ascii") as out:
        for path in (made.key, made.pem):
            with open(path, encoding="ascii") as part:
                out.write(part.read())
    if scene.name == "server":
        scene.world.write_config("server", server_ssl_key_file="/etc/kopano/another.pem")
    elif scene.name in ASKED:
        scene.world.write_config(scene.name, ssl_certificate_file="/etc/kopano/another.pem",
                                 ssl_private_key_file="/etc/kopano/another.pem")


def _expiring(scene):
    """A certificate that ends in a few seconds."""
    _certificate(scene, end=utc(5))
    scene.expires = time.time() + 6


@fault("certificate-expired", "files", ("server", "gateway", "ical"), cure=NO_RESTART, at10=DEGRADED,
       at20=DEGRADED, prepares=_expiring,
       broken="its certificate expires",
       visible="TLS clients are warned off; all else is well",
       fact="contract: certificate expired is 190: a restart can't help")
def certificate_expired(scene):
    time.sleep(max(0.0, scene.expires - time.time()))
    yield


CLOCK = {"group": "files", "daemons": ("gateway", "spooler"), "cure": NOTHING, "at10": WELL, "at20": WELL,
         "not_for": ("unit", "port"), "visible": "nothing: it serves",
         "fact": "contract: samples are timed by the clock that nobody sets"}


@fault("clock-jump", **CLOCK,
       broken="the clock is a day ahead for whoever looks, as after a correction (the machine's own is everybody's)")
def clock_jump(scene):
    scene.environment.update(jumped(86400))
    yield
    scene.environment.clear()


@fault("clock-back", prepares=lambda scene: _certificate(scene, start=utc(-3 * 86400)), **CLOCK,
       broken="the clock is a day behind for whoever looks, as after a correction")
def clock_back(scene):
    scene.environment.update(jumped(-86400))
    yield
    scene.environment.clear()


# ---- database ---------------------------------------------------------------------------------------------------

AWAY = {
    "at10": each(server=WELL, dagent=DEGRADED, portless=WELL, others=WELL),
    "at20": each(server=DEGRADED, dagent=DEGRADED, gateway=WELL, ical=DEGRADED, portless=WELL)}
BLAMELESS = "contract: what it depends on is down: 190; a hung database must not restart the server on one node " \
            "after the other"


@fault("database-killed", "database", DAEMONS, cure=NO_RESTART, **AWAY,
       broken="MariaDB is killed",
       visible="the server answers HEAD; every call that needs data fails with 0x80000007 (facts 3.1, 4.1)",
       fact=BLAMELESS + "; gateway, over TCP, can't look farther than to the server without a test login; "
       "spooler notices nothing (facts 3.2)",
       blind="gateway, spooler and monitor are well themselves; the server's monitor tells of the database")
def database_killed(scene):
    scene.world.database.kill()
    yield
    scene.world.database.start()


@fault("database-hung", "database", DAEMONS, cure=NO_RESTART, **AWAY, waits=("server", "dagent", "ical"),
       broken="MariaDB hangs (SIGSTOP)",
       visible="the server answers HEAD; each call that needs data blocks a worker (facts 3.1)",
       fact=BLAMELESS,
       blind="gateway, spooler and monitor are well themselves; the server's monitor tells of the database")
def database_hung(scene):
    scene.world.database.freeze()
    yield
    scene.world.database.thaw()


def _test_mailbox(_scene):
    """What the parameters of LOGS_IN name."""
    fd = os.open("/etc/kopano/test-password", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, PASSWORD.encode() + b"\n")
    os.close(fd)


LOGS_IN = {"group": "database", "daemons": "gateway", "cure": NO_RESTART, "at10": WELL, "at20": DEGRADED,
           "prepares": _test_mailbox,
           "parameters": {"test_user": USER, "test_password_file": "/etc/kopano/test-password"}}


@fault("database-killed-login", **LOGS_IN,
       broken="MariaDB is killed; depth 20 of `ocf:kopano` has a test mailbox (test_user)",
       visible="the login is refused",
       fact=BLAMELESS)
def database_killed_login(scene):
    scene.world.database.kill()
    yield
    scene.world.database.start()


@fault("database-hung-login", **LOGS_IN, waits=("gateway",),
       broken="MariaDB hangs (SIGSTOP); depth 20 of `ocf:kopano` has a test mailbox (test_user)",
       visible="the login is not answered",
       fact=BLAMELESS)
def database_hung_login(scene):
    scene.world.database.freeze()
    yield
    scene.world.database.thaw()


@fault("database-read-only", "database", ("server", "dagent"), cure=NO_RESTART, at10=WELL, at20=WELL,
       broken="MariaDB is read-only, as a replica is",
       visible="reading works; mail is refused with 450",
       fact="contract: the agents write nothing to the database; not tried with real daemons",
       blind="reading shows nothing, and no monitor may write")
def database_read_only(scene):
    with read_only(scene.world.database):
        yield


@fault("database-password", "database", ("server", "dagent"), cure=NO_RESTART, **AWAY,
       broken="MariaDB refuses Kopano's password",
       visible="as with a dead database, but that it greets",
       fact="contract: the database refuses us: 190; every start would fail the same way")
def database_password(scene):
    with another_password(scene.world.database):
        yield


@fault("database-slow", "database", ("server", "dagent"), cure=NO_RESTART, at10=WELL, at20=WELL,
       broken="MariaDB runs a tenth of the time",
       visible="answers take up to seconds",
       fact="a restart can't help, it would make it slower; not tried with real daemons",
       blind="it is slow, not ill")
def database_slow(scene):
    with slow(scene.world.database):
        yield


@fault("database-connections", "database", "server", cure=RESTART, at10=WELL, at20=ILL_TWICE,
       broken="the server fails at its database, which is fine: its connections are broken for good",
       visible="0x80000007 for every call; the database greets and lets us in",
       fact="contract: the database is fine through two monitors and the server still fails: 1")
def database_connections(scene):
    scene.fault_of("dberror")
    yield


# ---- server -----------------------------------------------------------------------------------------------------

SERVER_AWAY = {
    "at10": each(dagent=DEGRADED, portless=WELL, others=WELL),
    "at20": each(dagent=DEGRADED, gateway=DEGRADED, ical=DEGRADED, portless=WELL)}


LOST = dict(SERVER_AWAY, at20=dict(SERVER_AWAY["at20"], spooler=DEGRADED))


@fault("server-down", "server", CLIENTS, cure=NO_RESTART, touches=("server",), **LOST,
       broken="the kopano-server that it needs is dead",
       visible="its own protocol up to the login, none after; dagent says 421 and loses a slot (facts 3.2)",
       fact="contract: a dependency's fault must not restart its clients; none of them ever has to be restarted "
       "for it but dagent, once its slots are gone (facts 3.2); spooler without a session, and its server not fine: "
       "190",
       blind="monitor holds no session; the server's own monitor tells")
def server_down(scene):
    scene.world.kill_daemon("server")
    yield
    scene.world.up("server")


@fault("server-hung", "server", CLIENTS, cure=NO_RESTART, touches=("server",),
       waits=("dagent", "gateway", "ical"), **SERVER_AWAY,
       broken="the kopano-server that it needs hangs (SIGSTOP)",
       visible="logins hang; dagent doesn't greet (facts 3.2)",
       fact="contract: a dependency's fault must not restart its clients",
       blind="spooler keeps its sessions, monitor holds none; the server's own monitor tells")
def server_hung(scene):
    scene.world.freeze("server")
    yield
    scene.world.thaw("server")


@fault("server-restarting", "server", CLIENTS, cure=NO_RESTART, passes=True, touches=("server",), **LOST,
       broken="the kopano-server that it needs is restarted, which takes 6 s",
       visible="as with a dead server, for 6 s",
       fact="none of them has to be restarted when it comes back (facts 3.2)",
       blind="monitor holds no session, and it is over before it wants one")
def server_restarting(scene):
    scene.world.stop_daemon("server")
    back = threading.Event()

    def start():
        scene.world.up("server")
        back.set()

    scene.later(6, start)
    yield
    back.wait(30)


UPGRADE_LASTS = 600


@fault("server-upgrading", "server", DAEMONS, cure=NO_RESTART, touches=("server",),
       at10=each(server=DEGRADED, dagent=DEGRADED, portless=WELL, others=WELL),
       at20=dict(each(server=DEGRADED, portless=WELL, others=DEGRADED), spooler=DEGRADED),
       waits=("dagent", "gateway", "ical", "spooler"),
       planned={"server": (1, None)}, stop_within=20,
       broken="kopano-server was started by a new version and upgrades its database schema",
       visible="it accepts connections and answers nothing; it holds /tmp/kopano-upgrade-lock open",
       fact="a KILL then may ruin the data; the lock file, open in that very process, is the sign (facts 3.1); "
       "contract: 190, and stop says 1 rather than to kill it",
       blind="monitor holds no session; the server's own monitor tells")
def server_upgrading(scene):
    world = scene.world
    world.kill_daemon("server")
    world.fault("server", "upgrade", UPGRADE_LASTS)
    if scene.name == "server":
        code = scene.way.start()
        assert code == 0, "start of a server that upgrades: %s" % code
        wait_for(lambda: os.path.exists("/tmp/kopano-upgrade-lock"))
        scene.pid = world.main_pid("server")
        scene.harms.append(lambda: "" if world.main_pid("server") == scene.pid or getattr(scene, "mended", False)
                           else "killed in the middle of its schema upgrade")
    else:
        world.start_daemon("server")
        wait_for(lambda: os.path.exists("/tmp/kopano-upgrade-lock"))
    yield
    scene.mended = True
    world.clear_faults("server")
