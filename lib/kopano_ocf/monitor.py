# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of one monitor: find the process, ask it, weigh the answers.

Each daemon is watched in one of four ways; a way is a function of the call, its
instance and the living process, and returns a Verdict.
"""
import time

from kopano_ocf import backend, endpoint, talk, verdict

TWICE_EVERY = 300.0     # seconds between looks for a second spooler or monitor, which cost a look at every process
AWAY = (talk.REFUSED, talk.SILENT, talk.UNREACHABLE, talk.CLOSED)
BRIEFLY = 2.0           # seconds for a question to the database that is asked in passing
RETURNED = 10.0         # seconds for dagent's greeting when its server was away at the monitor before
FORGIVEN_AFTER = 3      # good deep checks in a row that make a failed one forgotten


def look(call, instance):
    """Verdict on the instance at the depth that the call asks for."""
    found = instance.find()
    first = verdict.of_process(found)
    if found.main is not None:
        call.step("process %d (%s), state %s" % (found.main.pid, found.main.comm, found.main.state))
    if first is None and call.depth >= 10:
        first = _WAYS[call.agent.watch](call, instance, found.main)
        # what was asked may have died meanwhile: then that is the news
        if first.rc not in (verdict.SUCCESS, verdict.DEGRADED):
            first = _still_there(found.main) or first
    if found.main is not None:
        _configuration_changed(call, instance)
        instance.save()
    return first or verdict.GOOD


def _still_there(main):
    now = main.again()
    if now is None:
        return verdict.Verdict(verdict.NOT_RUNNING, "process %d ended during the check" % main.pid)
    return None


def _configuration_changed(call, instance):
    """Say once that the file is not any more what the process was started with."""
    now = instance.signature()
    if instance.get("file") and now not in (instance.get("file"), instance.get("noted")):
        instance.put("noted", now)
        call.note("%s changed since the daemon was started; monitoring goes on with what it was started with"
                  % instance.config)


def ask(call, where, probe, deadline, local_only=True, enough=None):
    """Probe endpoints: [(Endpoint, Seen)]; probe is a function, or a dict of them by protocol. enough: see talk.run."""
    pairs = [(entry, probe[entry.protocol] if isinstance(probe, dict) else probe) for entry in where]
    seen = talk.run(pairs, deadline, local_only=local_only, ca_file=call.value("ca_file") or None,
                    tls_verify=bool(call.value("tls_verify")), enough=enough)
    result = list(zip(where, seen))
    for entry, answer in result:
        call.step("%s: %s" % (entry, answer.words), answer.took)
    return result


def ask_local(call, instance, main, probe, deadline):
    """Probe all endpoints of the daemon.

    At depth 20 half the time is kept for what is asked next, unless none answers: then nothing is asked any more.
    """
    now = time.monotonic()
    enough = now + (deadline - now) / 2 if call.depth >= 20 else None
    return ask(call, instance.endpoints(main), probe, deadline, enough=enough)


# ---- server --------------------------------------------------------------------------------------------------------

def server(call, instance, main):
    """kopano-server: HEAD on every endpoint; at depth 20 logon, getStore, logoff over its socket."""
    early = call.deadline - call.reserve
    if not instance.get("served"):
        # a schema upgrade, or the lack of a database, is recognised without waiting out the whole timeout: Pacemaker
        # waits for the first monitor after a start, and does nothing meanwhile, not even for the database
        pairs = ask_local(call, instance, main, soap_head, min(early, time.monotonic() + 1.0))
        if verdict.silent(pairs) and instance.upgrading(main):
            return verdict.Verdict(verdict.DEGRADED, "process %d is upgrading its database schema" % main.pid)
        if verdict.silent(pairs):
            waits = waits_for_database(call, instance)
            if waits:
                instance.put("looks10", None)
                return verdict.Verdict(verdict.DEGRADED, waits)
            pairs = ask_local(call, instance, main, soap_head, early)
    else:
        pairs = ask_local(call, instance, main, soap_head, early)
    if any(seen.how == talk.FINE for _, seen in pairs):
        instance.served()
    result = verdict.of_endpoints(pairs)
    if verdict.silent(pairs):
        return _blame(call, instance, "looks10", result.words)
    instance.put("looks10", None)
    socket = _socket(instance, main)
    if socket:
        age = backend.pending(backend.marker(instance.folder, str(socket)))
        if age is not None and call.depth < 20 and database(call, instance, BRIEFLY).how == talk.FINE:
            backend.clear(instance.folder, str(socket))
    if call.depth >= 20 and result.rc in (verdict.SUCCESS, verdict.DEGRADED):
        deep = _deep(call, instance, main, socket, early)
        if verdict.DEGRADED == deep.rc == result.rc:
            return verdict.Verdict(verdict.DEGRADED, "%s; %s" % (result.words, deep.words))
        if deep.rc != verdict.SUCCESS:
            return deep
    return result


def waits_for_database(call, instance):
    """Why a server that is silent and has never served may be so: words on a database that is not there; else None.

    One that refuses us counts as there: another node may be let in.
    """
    seen = database(call, instance, BRIEFLY)
    return "it waits for its database: %s" % seen.words if seen.how in AWAY else None


def soap_head(wire):
    """HEAD of the SOAP probe; a name of its own keeps the probes' table below in one place."""
    from kopano_ocf.probe import soap
    return soap.head(wire)


def _socket(instance, main):
    for entry in instance.endpoints(main):
        if entry.path:
            return entry
    return None


def _deep(call, instance, main, socket, deadline):
    if socket is None:
        call.step("no unix socket: no deep check is possible")
        return verdict.GOOD
    asked = []

    def recovered():
        asked.append(database(call, instance))
        return asked[-1].how == talk.FINE

    seen = backend.deep(instance.folder, str(socket), deadline, recovered)
    call.step("deep check of %s: %s" % (socket, seen.words), seen.took)
    if seen.how == talk.FINE:
        # a worker that the database once turned away stays broken until the server is restarted, beside good ones
        good = int(instance.number("good20")) + 1
        instance.put("good20", good if good < FORGIVEN_AFTER and instance.get("looks20") else None)
        if good >= FORGIVEN_AFTER:
            instance.put("looks20", None)
        return verdict.of_socket(socket, main, _usurper(main, seen.peer)) or verdict.GOOD
    instance.put("good20", None)
    if seen.how in (backend.UNASKED, talk.DENIED):
        words = seen.words + ("; database: %s" % asked[-1].words if asked else "")
        return verdict.Verdict(verdict.DEGRADED, words)
    return _blame(call, instance, "looks20", "deep check of %s: %s" % (socket, seen.words))


def _usurper(main, pid):
    """Who listens at the server's socket in its place: a living Process of the same executable, or None.

    A server that has put itself into the background after listen() is known there by a pid that is gone.
    """
    if pid in (0, main.pid):
        return None
    from kopano_ocf import process
    other = process.look(pid)
    if other is None or other.dead or other.identify().exe != main.identify().exe or not other.exe:
        return None
    return None if other.ppid == main.pid or main.ppid == other.pid else other


def _blame(call, instance, counter, words):
    """Server or database?  Ask the database as server.cfg does."""
    result, looks = verdict.of_server(words, database(call, instance), int(instance.number(counter)))
    instance.put(counter, looks or None)
    return result


def database(call, instance, patience=None):
    """Seen of asking the server's database with what the configuration file says.

    patience: seconds to wait at most, where that is less than the call has left.
    """
    from kopano_ocf import kopano_cfg
    from kopano_ocf.probe import mysql
    settings = instance.settings()
    if settings is None:
        # without it nobody can tell whose fault it is; and then a restart could not work either
        return talk.Seen(talk.UNREACHABLE, "can't be asked, %s is not readable" % instance.config)
    try:
        seen = mysql.ask(settings.database(), min(call.deadline, time.monotonic() + (patience or call.timeout)))
    except kopano_cfg.ConfigError as err:
        return talk.Seen(talk.UNREACHABLE, "can't be asked: %s" % err)
    call.step("database: %s" % seen.words, seen.took)
    return seen


# ---- dagent --------------------------------------------------------------------------------------------------------

def dagent(call, instance, main):
    """kopano-dagent: its greeting, but only after a good deep check of its server.

    Every connection that it answers with 421 costs it one of 20 slots for ever.
    """
    behind = instance.server()
    early = call.deadline - call.reserve
    deep = backend.deep(instance.folder, behind, min(early, time.monotonic() + backend.PATIENCE))
    call.step("server: %s" % deep.words, deep.took)
    if deep.how != talk.FINE:
        if not listens_at(instance, main):
            return verdict.Verdict(verdict.GENERIC, "it does not listen any more")
        instance.put("missed", "server")
        return verdict.of_dependency(deep)
    from kopano_ocf.probe import lmtp
    if instance.get("missed"):
        # mail has waited long enough: 421s have used up its slots, or the greeting comes in milliseconds
        early = min(early, time.monotonic() + RETURNED)
    pairs = ask_local(call, instance, main, lmtp.greeting, early)
    again = None
    if verdict.of_endpoints(pairs).rc != verdict.SUCCESS:
        again = backend.deep(instance.folder, behind, call.deadline)
    if again is None or again.how == talk.FINE:
        instance.put("missed", None)
    return verdict.of_dagent(pairs, again)


def listens_at(instance, main):
    """Whether the daemon's listening sockets are there; looked at without connecting."""
    from kopano_ocf import process
    tcp, unix = process.listening(main)
    ports = set(port for _, port in tcp)
    return any(entry.port in ports or entry.path in unix for entry in instance.endpoints(main))


# ---- gateway, ical -------------------------------------------------------------------------------------------------

def mailbox(call, instance, main):
    """kopano-gateway and kopano-ical: what clients ask first; at depth 20 their server, and a test login."""
    from kopano_ocf.probe import caldav, imap, pop3
    shallow = {"imap": imap.noop, "pop3": pop3.capa, "caldav": caldav.options}
    pairs = ask_local(call, instance, main, shallow, call.deadline)
    result = verdict.of_endpoints(pairs)
    if call.depth < 20 or result.rc not in (verdict.SUCCESS, verdict.DEGRADED):
        return result
    behind = instance.server()
    seen = backend.reach(instance.folder, behind, call.deadline)
    call.step("server %s: %s" % (behind, seen.words), seen.took)
    if seen.how != talk.FINE:
        return verdict.of_dependency(seen)
    fine = [entry for entry, answer in pairs if answer.how == talk.FINE]
    user = call.value("test_user")
    if user and fine:
        answer = _login(call, instance, behind, fine, user)
        if answer.rc != verdict.SUCCESS:
            return answer
    return result


def _login(call, instance, behind, fine, user):
    """Log in to the test mailbox, and out, at one endpoint of each protocol."""
    from kopano_ocf.probe import caldav, imap, pop3
    try:
        password = call.secret("test_password_file")
    except ValueError as err:
        return verdict.Verdict(verdict.DEGRADED, str(err))
    logins = {"imap": imap.login, "pop3": pop3.login, "caldav": caldav.login}
    chosen = dict((entry.protocol, entry) for entry in reversed(fine))
    if not endpoint.parse(behind, "soap").path and backend.any_pending(instance.folder, call.deadline):
        return verdict.Verdict(verdict.DEGRADED, "test login not tried: a check of the server is still unanswered")

    def all_logins():
        pairs = ask(call, list(chosen.values()),
                    dict((name, lambda wire, probe=logins[name]: probe(wire, user, password)) for name in chosen),
                    call.deadline)
        bad = [seen for _, seen in pairs if seen.how != talk.FINE]
        return (bad or [pairs[0][1]])[0]

    seen = backend.guarded(instance.folder, behind, all_logins, call.deadline)
    if seen.how == backend.UNASKED:
        return verdict.Verdict(verdict.DEGRADED, seen.words)
    # over TCP the server was asked for a mere sign of life, which a hung database does not take away
    sure = endpoint.parse(behind, "soap").path
    return verdict.of_login(seen, talk.Seen(talk.FINE if sure else backend.UNASKED, ""))


# ---- spooler, monitor ----------------------------------------------------------------------------------------------

def portless(call, instance, main):
    """kopano-spooler and kopano-monitor: threads that move; at depth 20 the spooler's sessions with its server."""
    from kopano_ocf.probe import portless as threads
    found = threads.counters(main.pid)
    looks, seconds = instance.still(",".join("%d:%d" % entry for entry in sorted(found.items())))
    call.step("%d threads, unchanged for %d looks and %.0f s" % (main.threads(), looks, seconds))
    frozen = verdict.of_counters(looks, seconds)
    if call.agent.name == "spooler":
        # its notification thread ticks on beside a main thread that is stuck, and no mail is sent
        looks, seconds = instance.still(str(found.get(main.pid)), "main-")
        frozen = frozen or verdict.of_main_thread(looks, seconds)
    if frozen is not None:
        # a daemon that waits for a hung server stands still too, and a restart would not help it
        seen = backend.reach(instance.folder, instance.server(), call.deadline)
        return frozen if seen.how == talk.FINE else verdict.of_dependency(seen)
    if call.depth < 20:
        return verdict.GOOD
    return verdict.of_others(main, _others(instance, main)) or (
        _sessions(call, instance, main) if call.agent.name == "spooler" else verdict.GOOD)


def _others(instance, main):
    """Second daemons of this instance: nothing keeps 11.x from running twice, and then a mail may be sent twice."""
    from kopano_ocf import process
    known = [process.look(int(pid)) for pid in instance.get("others").split() if pid.isdigit()]
    known = [entry for entry in known if entry is not None and instance.identity.is_ours(entry.identify())]
    now = time.monotonic()
    if not known and 0 < now - instance.number("scanned") < TWICE_EVERY and instance.get("scanned"):
        return []
    found = instance.others(main)
    instance.put("scanned", "%.3f" % now)
    instance.put("others", " ".join(str(entry.pid) for entry in found) or None)
    return found


def _sessions(call, instance, main):
    from kopano_ocf import state
    from kopano_ocf.probe import portless as threads
    behind = instance.server()
    where = endpoint.parse(behind, "soap")
    count = threads.sessions(main.pid, where.path or None, where.port or None)
    call.step("%d sessions with %s" % (count, behind))
    condemned = instance.path + ".sessions"     # outlives a restart: one may help, more won't
    now = time.monotonic()
    if count:
        instance.put("without", None)
        if instance.get("connected") != "1":
            instance.put("connected", "1")
            state.remove(condemned)
        return verdict.GOOD
    since = instance.number("without")
    if not 0 < since <= now:
        since = now
        instance.put("without", "%.3f" % now)
    seen = backend.reach(instance.folder, behind, call.deadline)
    call.step("server %s: %s" % (behind, seen.words), seen.took)
    result = verdict.of_sessions(now - since, seen, bool(state.read(condemned)))
    if result.rc == verdict.GENERIC:
        instance.put("connected", None)
        state.write(condemned, {"pid": main.pid, "start": main.start})
    return result


_WAYS = {"server": server, "dagent": dagent, "mailbox": mailbox, "portless": portless}
