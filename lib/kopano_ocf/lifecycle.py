# SPDX-License-Identifier: GPL-2.0-or-later
"""Start, stop and reload of a daemon.
"""
import os
import signal
import time

from kopano_ocf import backend, monitor, process, report, state, talk, verdict
from kopano_ocf.verdict import Verdict

UPGRADE_RECOGNISED = 5.0    # seconds a schema upgrade must last before start calls it a success
LAUNCH_LASTS = 12.0         # seconds at most from start's look for a daemon to its own one; --dump-config takes most
KILL_AFTER = 5.0            # seconds from the second SIGTERM to SIGKILL
LEAKED_AFTER = 2.0          # seconds until stop asks whether a daemon waits for anybody at all
SPOOLERS_OWN = 2            # connections of an idle spooler to its server: for requests, for notifications
DATABASE_MISSED = 3.0       # seconds of silence after which start asks whether the server waits for its database
PARTLY_FOR = 1.0            # seconds that some endpoints may lag behind others while a daemon comes up
DYING_LASTS = 3.0           # seconds that a killed process may take to give up its sockets
SLICE = 2.0                 # seconds that a question waits before the daemon itself is looked at again
_POLL = 0.05
_PIPE_LIMIT = 65536


# ---- start ---------------------------------------------------------------------------------------------------------

def start(call, instance):
    """0 once a following monitor says 0 or 190."""
    result = _parameters(call)
    while result is None:
        result = _start(call, instance)
    return result


def _start(call, instance):
    """One attempt; None when it is to be repeated: the daemon that was there went, or somebody else was faster."""
    words = child = None
    with instance.lock(call.deadline) as lock:
        if lock.busy:
            return Verdict(verdict.GENERIC, "another action on this daemon does not end; see who holds %s" % lock.path)
        instance.recall()
        found = instance.find()
        if found.main is not None and found.main.dead:
            found = instance.find_all()     # nobody has collected it yet; its children may live
        if found.main is None and found.orphans:
            return verdict.of_process(found)
        if found.main is not None and not found.main.dead:
            if found.main.frozen:
                return verdict.of_process(found)
        else:
            child, words, refusal = _launch(call, instance)
            if refusal:
                other = None if lock.held or call.left() <= call.reserve else instance.find().main
                return refusal if other is None or other.dead else None
            if not lock.held and _second(instance, child):
                words.close()
                return None
    try:
        result = _until_serving(call, instance, child, words)
        # one that was born at the same moment could not be seen before
        if child is not None and not lock.held and result.rc == verdict.SUCCESS and _second(instance, child):
            return None
        return result
    finally:
        if words:
            words.close()


def _second(instance, child):
    """Where no lock can be had, two starts at once are told apart by their daemons: the younger one is ended again."""
    elder = instance.find_all().main
    if elder is None or elder.pid == child.pid:
        return False
    child.kill()
    child.wait()
    instance.remember(elder)
    return True


def _parameters(call):
    """What is wrong with the parameters in themselves: 6; without psutil or ocf.py: 5; else None."""
    from kopano_ocf import report, validate
    lacking = report.lacking("psutil")
    if lacking:
        return Verdict(verdict.INSTALLED, lacking)
    for finding in validate.validate(call.agent, call, 0):
        if finding.severity == "ERROR":
            return Verdict(finding.code, finding.text)
        call.note(finding.text)
    return None


def _launch(call, instance):
    """Start the daemon: (Popen, LastWords, None) or (None, None, Verdict)."""
    from kopano_ocf import kopano_cfg
    executable = instance.identity.executable()
    if executable is None:
        return None, None, Verdict(verdict.INSTALLED, "%s: no such executable; is Kopano installed on this node?"
                                   % call.value("binary"))
    options = _split(call.value("options"))
    words = call.agent.foreground + ["-c", instance.config] + options
    environment = _environment(call.env)
    try:
        settings = kopano_cfg.Settings(call.agent.name, _accepted(call, instance, executable, options),
                                       instance.config, environment)
        where = settings.endpoints()
    except kopano_cfg.ConfigError as err:
        return None, None, Verdict(verdict.INSTALLED, str(err))
    server = _server(call, settings)
    _make_directories(call, settings, where)
    taken = _taken(where)
    if taken:
        return None, None, Verdict(verdict.GENERIC, taken)
    last = LastWords(settings.get("log_file"))
    import subprocess
    try:
        child = subprocess.Popen([executable] + words, stdin=subprocess.DEVNULL, stdout=last.writer,
                                 stderr=last.writer, cwd="/", env=environment, start_new_session=True, close_fds=True)
    except (OSError, ValueError) as err:
        last.close()
        return None, None, Verdict(verdict.INSTALLED, "%s can't be executed: %s" % (executable, err))
    last.started()
    born = process.look(child.pid)
    if born is not None:
        instance.remember(born, where, server)
    return child, last, None


def _server(call, settings):
    """URL (text) of the server that a client daemon is configured for; None when that can't be told."""
    from kopano_ocf import kopano_cfg
    try:
        return None if call.agent.name == "server" else str(settings.server())
    except kopano_cfg.ConfigError as err:
        call.note(str(err))                 # no daemon refuses to start for it
        return None


def _accepted(call, instance, executable, options):
    """The settings in the daemon's own words; by our own parser when it is too old to be asked.

    Raises kopano_cfg.ConfigError when there is no file or the daemon rejects it.
    """
    from kopano_ocf import kopano_cfg
    role = [word for word in call.agent.foreground if word in call.agent.role]
    if not os.path.isfile(instance.config):
        kopano_cfg.read(instance.config)    # says what it is instead; a daemon would hang on a FIFO
    try:
        return kopano_cfg.dump(executable, instance.config, role + options, min(call.deadline, time.monotonic() + 10))
    except kopano_cfg.Unasked:
        return kopano_cfg.read(instance.config)


def _split(text):
    import shlex
    try:
        return shlex.split(text or "")
    except ValueError:
        return []                           # refused before, by the check of parameters


def _environment(env):
    """What the daemon inherits: no variables of the cluster, and a UTF-8 locale."""
    own = ("OCF_", "__OCF", "HA_", "PCMK_", "CRM_", "PYTHON")
    clean = dict((name, value) for name, value in env.items() if not name.startswith(own))
    clean["PATH"] = clean.get("PATH") or "/usr/sbin:/usr/bin:/sbin:/bin"
    if "UTF" not in (clean.get("LC_ALL") or clean.get("LC_CTYPE") or clean.get("LANG") or "").upper():
        clean["LC_ALL"] = "C.UTF-8"
    return clean


def _make_directories(call, settings, where):
    """What a reboot took away: directories of pid file and sockets, owned by the daemon's user."""
    import pwd
    import grp
    try:
        uid = pwd.getpwnam(settings.run_as_user).pw_uid if settings.run_as_user else 0
        gid = grp.getgrnam(settings.run_as_group).gr_gid if settings.run_as_group else 0
    except KeyError:
        return                              # the daemon says so itself
    files = [entry.path for entry in where if entry.path] + [settings.pid_file or "", "/run/kopano/-"]
    for folder in sorted(set(os.path.dirname(path) for path in files if path)):
        # below a directory that others can write, what we make could be exchanged before it is given away
        if os.path.lexists(folder) or not state.trusted(os.path.dirname(folder)):
            continue
        try:
            _make_directory(folder, uid, gid)
            call.note("made %s, which was missing" % folder)
        except OSError as err:
            call.note("%s is missing and can't be made: %s" % (folder, err.strerror))


def _make_directory(folder, uid, gid):
    """It appears with its owner, or not at all: nobody mends one that an agent killed in the middle has left."""
    temporary = "%s.%d" % (folder, os.getpid())
    os.mkdir(temporary, 0o700)
    try:
        fd = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, uid, gid)
            os.fchmod(fd, 0o775)
        finally:
            os.close(fd)
        os.rename(temporary, folder)
    except OSError:
        os.rmdir(temporary)
        raise


def _taken(where):
    """Who listens already where the daemon is going to, in words; "" when nobody does.

    A second kopano-server would steal the first one's socket file without a word.  A process that was killed
    a moment ago loses its name before its sockets: that one is waited for.
    """
    for entry in where:
        until = time.monotonic() + DYING_LASTS
        while True:
            taken, owners = process.listener_of(entry.host, entry.port, entry.path)
            if not taken or any(owner.exe for owner in owners) or time.monotonic() >= until:
                break
            time.sleep(_POLL)
        if taken:
            who = "process %d (%s)" % (owners[0].pid, owners[0].comm) if owners else "a process outside our view"
            return "%s is taken by %s; stop it or change the configuration" % (entry, who)
    return ""


class LastWords:
    """What a daemon prints while it starts.

    Its stdout and stderr are one pipe that it holds at both ends, without blocking: we read from it as long as
    we like and then let go; what it prints later stays in the kernel's 64 kB or is dropped.  It can neither fill
    a file, nor block, nor be killed by SIGPIPE.
    """

    def __init__(self, log_file=""):
        self.reader, writer = os.pipe()
        self.writer = os.open("/proc/self/fd/%d" % writer, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(writer)
        os.set_blocking(self.reader, False)
        from kopano_ocf import kopano_cfg
        self.log = kopano_cfg.Log(log_file)

    def started(self):
        """The daemon has its own copy of the pipe now."""
        os.close(self.writer)
        self.writer = -1

    def read(self):
        """What it said at last, one line: errors in its log since then, and what it printed."""
        data = b""
        while len(data) < _PIPE_LIMIT:
            try:
                piece = os.read(self.reader, 8192)
            except OSError:
                break
            if not piece:
                break
            data += piece
        printed = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
        logged = self.log.lines()
        # the reason stands in the log alone, most daemons print no more than "check the logfile"
        errors = [line for line in logged if "[crit" in line or "[error" in line]
        lines = errors[-3:] + [line for line in printed if not line.startswith("[======")][-3:]
        return report.one_line(" / ".join(lines or (printed or logged)[-3:]), 500)

    def close(self):
        """Let go."""
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)
        self.reader = self.writer = -1


def _until_serving(call, instance, child, words):
    """Wait until a monitor would say 0 or 190; a dead child is an error at once, None a daemon of others that ended."""
    begun = time.monotonic()
    ask_at = begun
    partly_since = None
    seen = Verdict(verdict.GENERIC, "it does not serve yet")
    while True:
        found = instance.find()
        if found.main is None or found.main.dead or (child is not None and child.poll() is not None):
            if child is None and call.left() > call.reserve:
                return None                 # it was on its way out when we came
            if child is None or child.poll() is None or not _daemonized(instance):
                return _died(call, instance, child, words)
        main = instance.find().main
        if main is not None and not main.dead:
            now = time.monotonic()
            if call.agent.name == "server" and now - begun > UPGRADE_RECOGNISED and instance.upgrading(main):
                instance.save()
                return Verdict(verdict.SUCCESS, "its database schema is being upgraded; it will serve after that")
            seen = _serving(call, instance, main)
            if seen.rc == verdict.SUCCESS:
                instance.save()
                return Verdict(verdict.SUCCESS, "process %d serves" % main.pid if child else "it was running already")
            if seen.rc == verdict.DEGRADED:
                partly_since = partly_since or now
                if now - partly_since >= (PARTLY_FOR if seen.words.startswith("partly") else 0.0):
                    instance.save()
                    return Verdict(verdict.SUCCESS, "degraded: " + seen.words)
            else:
                partly_since = None
                if call.agent.name == "server" and main.age() >= DATABASE_MISSED and time.monotonic() >= ask_at:
                    waits = monitor.waits_for_database(call, instance)
                    if waits:
                        instance.save()
                        return Verdict(verdict.SUCCESS, "degraded: " + waits)
                    ask_at = time.monotonic() + SLICE
        if call.left() <= call.reserve:
            return _late(call, instance, main, seen)
        time.sleep(min(_POLL, call.left()))


def _daemonized(instance):
    """Whether the command handed over to another process (possible only with `options` that make it do so)."""
    return instance.find().main is not None


def _serving(call, instance, main):
    """A short monitor at depth 10, of which silence only means 'not yet'."""
    kept = call.deadline, call.by_hand
    # what is kept back is for the question to the database, when time is up
    call.deadline = min(call.deadline - call.reserve, time.monotonic() + SLICE)
    call.by_hand = False
    try:
        return _short_look(call, instance, main)
    finally:
        call.deadline, call.by_hand = kept


def _short_look(call, instance, main):
    watch = call.agent.watch
    if watch == "portless":
        # its signal handlers come last: after the change of user and the look for a second instance
        settled = main.catches(signal.SIGTERM) and main.age() >= 0.1
        return verdict.GOOD if settled else Verdict(verdict.GENERIC, "it is not set up yet")
    if watch == "dagent":
        return monitor.dagent(call, instance, main) if monitor.listens_at(instance, main) else Verdict(
            verdict.GENERIC, "it does not listen yet")
    from kopano_ocf.probe import caldav, imap, pop3
    probes = {"soap": monitor.soap_head, "imap": imap.noop, "pop3": pop3.capa, "caldav": caldav.options}
    pairs = monitor.ask_local(call, instance, main, probes, call.deadline)
    if any(seen.how == talk.FINE for _, seen in pairs):
        instance.served()
    result = verdict.of_endpoints(pairs)
    if result.rc == verdict.DEGRADED:
        return Verdict(verdict.DEGRADED, "partly: " + result.words)
    return result


def _late(call, instance, main, seen):
    """Time is up: a server that waits for a database which is away is no failure that another node could mend."""
    if call.agent.name == "server" and main is not None and not main.dead:
        database = monitor.database(call, instance)
        if database.how != talk.FINE:
            instance.save()
            return Verdict(verdict.SUCCESS, "degraded: it waits for its database: %s" % database.words)
    return Verdict(verdict.GENERIC, "not serving after %d s: %s" % (int(call.timeout), seen.words))


def _died(call, instance, child, words):
    code = child.poll() if child is not None else None
    said = words.read() if words else ""
    where = [entry for entry in instance.configured()]
    instance.forget()
    taken = _taken(where)
    text = "kopano-%s ended while starting" % call.agent.name
    if code is not None:
        text += " (signal %d)" % -code if code < 0 else " (exit code %d)" % code
    if taken:
        text += ": " + taken
    if said:
        text += "; its last words: " + said
    return Verdict(verdict.GENERIC, text)


# ---- stop ----------------------------------------------------------------------------------------------------------

class _Steps:
    """When stop presses on, in seconds after the first SIGTERM."""

    def __init__(self, call):
        escalate = float(call.value("stop_escalate"))
        available = call.left()
        need = escalate + KILL_AFTER + 1.0
        self.short = available < need
        scale = min(1.0, available / need)
        self.second, self.kill = escalate * scale, (escalate + KILL_AFTER) * scale
        self.end = available


def stop(call, instance):
    """0 once no process of this instance is left."""
    if call.agent.parameter("listen") is not None and call.agent.name == "server":
        for entry in instance.endpoints_known():
            if entry.path:
                backend.clear(instance.folder, str(entry))
    # whoever holds it is about to start the daemon, and tells so when we come too early
    with instance.lock(min(call.deadline, time.monotonic() + LAUNCH_LASTS)):
        instance.recall()
        found = instance.find()
        if found.main is None and not found.orphans:
            instance.forget()
            return Verdict(verdict.SUCCESS, "")
    result = _end(call, instance, found)
    if result.rc == verdict.SUCCESS:
        instance.forget()
    return result


def _end(call, instance, found):
    steps = _Steps(call)
    begun = time.monotonic()
    members = _members(found)
    upgrading = (call.agent.name == "server" and found.main is not None and instance.upgrading(found.main))
    if steps.short and not upgrading:
        call.note("op stop timeout=%ds is too short for kopano-%s to finish its clients; advised are %ds"
                  % (call.timeout, call.agent.name, max(call.agent.timeout("stop"),
                                                        int(call.value("stop_escalate") + KILL_AFTER) + 5)))
    nobody = _Nobody(call, found)
    told = instance.number("stopping") if found.main is not None else 0.0
    if 0.0 < told <= begun:
        # by a stop that was killed: a second SIGTERM now would cut short what the first one began
        begun = max(told, begun - steps.second)
        _wake(members)
    else:
        # a server that upgrades and has no handler any more was told too, though nobody remembers
        if not upgrading or found.main.catches(signal.SIGTERM):
            _terminate(found, members)
        instance.put("stopping", "%.3f" % begun)
        instance.save()
    since = begun           # begun moves, where the next step is to come earlier or later
    second = killed = late = False
    while True:
        left = [entry for entry in members if entry.alive]
        if not left:
            # whatever was born meanwhile, or lost its parent, is ours too
            found = instance.find_all()
            if not found.main and not found.orphans:
                return Verdict(verdict.SUCCESS, "ended after %.1f s" % (time.monotonic() - since))
            members = left = _members(found)
            if found.main is not None:      # a second daemon: it has not been told yet
                begun, second, killed = time.monotonic(), False, False
                _terminate(found, members)
        after = time.monotonic() - begun
        if upgrading and found.main is not None and not instance.upgrading(found.main):
            upgrading, begun = False, time.monotonic()
            continue
        if upgrading and found.main is not None and found.main.alive:
            if call.timeout - (call.timeout_used()) <= 5.0:
                return Verdict(verdict.GENERIC, "process %d is upgrading its database schema and must not be killed; "
                               "raise op stop timeout, or wait and try again" % found.main.pid)
            time.sleep(_POLL)
            continue
        pressed = [entry for entry in left if not process.is_sending(entry)]
        if not second and nobody.left(after):
            # pressed now, killed as long after it as ever
            begun = time.monotonic() - steps.second
            after = steps.second
        if not second and after >= steps.second:
            second = True
            members = _grown(members, found)
            _signal(pressed, signal.SIGTERM)
        elif not killed and after >= steps.kill:
            killed = True
            members = _grown(members, found)
            _signal(pressed, signal.SIGKILL)
            if pressed:
                call.note("killed %s" % " ".join(str(entry.pid) for entry in pressed))
        elif killed and pressed and after >= steps.kill:
            _signal(pressed, signal.SIGKILL)    # born after the first one
        if call.left() <= 0.0:
            return _remains(call, left)
        if call.left() <= 0.3:
            if not late:
                call.note("time is up: killed %s" % " ".join(str(entry.pid) for entry in left))
            late = True
            _signal(left, signal.SIGKILL)
        time.sleep(0.02)


def _terminate(found, members):
    """The first SIGTERM: for the daemon, which tells its children, or for those whose daemon is dead."""
    _signal([found.main] if found.main is not None else found.orphans, signal.SIGTERM)
    _wake(members)


def _wake(members):
    """A frozen daemon takes its SIGTERM only when it runs again, and ends only when its children do."""
    _signal([entry for entry in members if entry.frozen], signal.SIGCONT)


class _Nobody:
    """Whether dagent, gateway, ical or spooler has nobody left to finish, so that its drain is for nothing.

    dagent waits 30 s for each slot that its own 421s have leaked, as for a delivery. A thread that delivers holds its
    client's connection until it has answered, a process that delivers is a child.
    gateway waits for clients that are connected; one that hangs waits for nobody. ical waits for its children alone:
    without any it is gone at once, clients or not, or it hangs (kopano-facts, 3).
    spooler, blocked in a call to a server that hangs, ignores its SIGTERM until the server answers. A mail under way
    has one more connection than its own two: to the server, or to the MTA; or it is a child.
    """

    def __init__(self, call, found):
        self.main, self.found, self.next = found.main, found, LEAKED_AFTER
        self.name = call.agent.name if found.main is not None else ""
        self.ports = set()
        if self.name in ("dagent", "gateway"):
            tcp, unix = process.listening(found.main)
            if not unix:
                self.ports = set(port for _, port in tcp)

    def left(self, after):
        """`after`: seconds since the first SIGTERM; looks twice a second."""
        if not (self.ports or self.name in ("ical", "spooler")) or after < self.next:
            return False
        self.next = after + 0.5
        try:
            if self.name == "ical":
                busy = False
            elif self.name == "spooler":
                busy = self._sending()
            else:
                # to dagent a client that has closed its end may still have given a mail
                busy = bool(process.clients(self.main, self.ports, gone=self.name == "dagent"))
            return not busy and len(_members(self.found)) == 1
        except OSError:
            return False

    def _sending(self):
        descriptors = self.main.descriptors()
        # none at all: they can't be read
        return not descriptors or len([link for link in descriptors if link.startswith("socket:")]) > SPOOLERS_OWN


def _members(found):
    """The processes to be ended: the daemon, all below it and in its session, and what a dead one left."""
    members = []
    for entry in ([found.main] if found.main is not None else []) + found.orphans:
        members.append(entry)
        members += process.family(entry)
    seen, unique = set(), []
    for entry in members:
        if (entry.pid, entry.start) not in seen:
            seen.add((entry.pid, entry.start))
            unique.append(entry)
    return unique


def _grown(members, found):
    """The members, with children born since."""
    known = set((entry.pid, entry.start) for entry in members)
    return members + [entry for entry in _members(found) if (entry.pid, entry.start) not in known]


def _signal(targets, number):
    for entry in targets:
        try:
            process.send(entry, number)
        except PermissionError:
            pass                            # seen by the caller: it stays


def _remains(call, left):
    time.sleep(0.1)
    left = [entry for entry in left if entry.alive]
    if not left:
        return Verdict(verdict.SUCCESS, "")
    return Verdict(verdict.GENERIC, "still there in spite of SIGKILL: %s" % ", ".join(
        "process %d (%s, state %s)" % (entry.pid, entry.comm, (entry.again() or entry).state) for entry in left))


# ---- reload --------------------------------------------------------------------------------------------------------

def reload(call, instance):
    """HUP: the daemon reads its configuration and reopens its log; never before it serves or while it stops."""
    found = instance.find()
    refusal = verdict.of_process(found)
    if refusal is not None:
        return Verdict(verdict.GENERIC, refusal.words)
    if instance.get("stopping"):
        return Verdict(verdict.GENERIC, "not reloaded: it is being stopped")
    if call.agent.watch == "dagent":
        ready = monitor.listens_at(instance, found.main)
    elif call.agent.watch == "portless":
        ready = True
    else:
        ready = _serving(call, instance, found.main).rc in (verdict.SUCCESS, verdict.DEGRADED)
    if not ready or not found.main.catches(signal.SIGHUP):
        return Verdict(verdict.GENERIC, "not reloaded: it does not serve yet, and a HUP now could kill it")
    if not process.send(found.main, signal.SIGHUP):
        return Verdict(verdict.GENERIC, "process %d ended" % found.main.pid)
    instance.put("file", instance.signature())
    instance.save()
    return Verdict(verdict.SUCCESS, "process %d reads its configuration again" % found.main.pid)


def reload_agent(call, instance):
    """New values of reloadable parameters: they are read at each action anyway."""
    refusal = verdict.of_process(instance.find())
    if refusal is not None:
        return Verdict(verdict.GENERIC, refusal.words)
    return verdict.GOOD


ACTIONS = {"start": start, "stop": stop, "reload": reload, "reload-agent": reload_agent}
