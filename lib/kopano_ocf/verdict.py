# SPDX-License-Identifier: GPL-2.0-or-later
"""What looks amount to: the table of monitor's verdicts as code.  No I/O here.

A fault that a restart can cure is 1; one that it can't cure is 190 (degraded:
success for Pacemaker, but shown); a clean absence is 7.
"""
from kopano_ocf import talk

SUCCESS, GENERIC, UNIMPLEMENTED, PERMISSION, INSTALLED, CONFIGURED, NOT_RUNNING, DEGRADED = (
    0, 1, 3, 4, 5, 6, 7, 190)
NAMES = {0: "running", 1: "failed", 2: "wrong on this host", 3: "unknown action", 4: "not allowed", 5: "not installed",
         6: "wrong configuration", 7: "not running", 190: "running, degraded"}

# Counters of a portless daemon must stand still this long, over this many looks (seconds; a spooler's main thread
# moves every 60 s).
FROZEN_AFTER, FROZEN_LOOKS = 65.0, 3
# A spooler's main thread looks at the queue every 60 s; it has missed two of these looks.
MAIN_FROZEN_AFTER = 125.0
# A spooler reconnects within 3 s, and notices a lost server at its 60 s tick.
SESSIONS_AFTER = 65.0


class Verdict:
    """An exit code and the one line that explains it (empty when all is well)."""

    __slots__ = ("rc", "words")

    def __init__(self, rc, words=""):
        self.rc, self.words = rc, words

    def __repr__(self):
        return "Verdict(%d, %r)" % (self.rc, self.words)


GOOD = Verdict(SUCCESS)


def of_process(found):
    """Verdict on what instance.find() found, or None when there is a living process to ask further."""
    if found.main is None and found.orphans:
        return Verdict(GENERIC, "the daemon is dead, but %d of its children live (pid %s)" % (
            len(found.orphans), " ".join(str(entry.pid) for entry in found.orphans)))
    if found.main is None:
        return Verdict(NOT_RUNNING, "no such process")
    if found.main.dead:
        return Verdict(GENERIC, "process %d is a zombie" % found.main.pid)
    if found.main.frozen:
        return Verdict(GENERIC, "process %d is stopped (state %s)" % (found.main.pid, found.main.state))
    return None


def _told(pairs):
    return "; ".join("%s: %s" % (endpoint, seen.words) for endpoint, seen in pairs)


def of_endpoints(pairs):
    """Verdict on [(Endpoint, Seen)], all endpoints of one daemon.

    Some answer, others don't: 190, for a bad TLS key must not take plain IMAP down.  None answers: 1.
    Addresses that are not on this host are IPaddr2's matter, a bad certificate an administrator's.
    """
    if not pairs:
        return Verdict(GENERIC, "it listens nowhere")
    answering = [pair for pair in pairs if pair[1].how == talk.FINE]
    if len(answering) == len(pairs):
        return GOOD
    others = [pair for pair in pairs if pair[1].how != talk.FINE]
    defects = [pair for pair in others if pair[1].how in (talk.CERTIFICATE, talk.UNAVAILABLE, talk.DENIED)]
    absent = [pair for pair in others if pair[1].how == talk.NOT_HERE]
    if answering or defects or len(absent) == len(pairs):
        return Verdict(DEGRADED, _told(others))
    return Verdict(GENERIC, _told(others))


def silent(pairs):
    """Whether no endpoint answers and at least one says nothing at all though it accepts."""
    hows = [seen.how for _, seen in pairs]
    return talk.FINE not in hows and talk.SILENT in hows


def of_server(words, database, looks):
    """A server that is silent or fails at its database: (Verdict, new number of looks with a fine database).

    database  Seen of asking the database as server.cfg does
    looks     how many monitors in a row found the database fine and the server not
    A hung database must not restart the server on one node after the other.
    """
    if database.how != talk.FINE:
        return Verdict(DEGRADED, "%s; its database is not usable either: %s" % (words, database.words)), 0
    if looks + 1 < 2:
        return Verdict(DEGRADED, "%s, though its database is fine; the next monitor decides" % words), looks + 1
    return Verdict(GENERIC, "%s, though its database was fine in two monitors" % words), looks + 1


def of_dependency(server):
    """A client daemon whose server is not fine: 190, the server has a monitor of its own."""
    return Verdict(DEGRADED, "the server behind it: %s" % server.words)


def of_dagent(pairs, server_again):
    """LMTP looked at after a good deep check of the server.

    server_again  Seen of a second deep check, made because LMTP was not fine; None when it was fine
    A 421 or silence with a good server means leaked slots or a lost session: a restart cures it.
    """
    usual = of_endpoints(pairs)
    hows = set(seen.how for _, seen in pairs)
    if usual.rc == SUCCESS or not hows & set((talk.SILENT, talk.UNAVAILABLE, talk.CLOSED)):
        return usual
    if server_again is not None and server_again.how != talk.FINE:
        return of_dependency(server_again)
    if talk.FINE in hows:
        return usual
    return Verdict(GENERIC, "%s, though the server is fine" % _told(
        [pair for pair in pairs if pair[1].how != talk.FINE]))


def of_counters(looks, seconds):
    """Verdict on a portless daemon whose counters were the same in so many looks; None when that means nothing yet."""
    if looks >= FROZEN_LOOKS and seconds > FROZEN_AFTER:
        return Verdict(GENERIC, "none of its threads moved in the last %d looks, over %d s" % (looks, int(seconds)))
    return None


def of_main_thread(looks, seconds):
    """Verdict on a spooler whose main thread alone stands still, or runs in circles; None when that means nothing
    yet."""
    if looks >= FROZEN_LOOKS and seconds > MAIN_FROZEN_AFTER:
        return Verdict(GENERIC, "its main thread has waited for nothing in the last %d looks, over %d s; it should "
                       "look at the queue every 60 s" % (looks, int(seconds)))
    return None


def of_others(main, others):
    """Verdict on a daemon beside which others of the very same instance run; None when there are none."""
    if not others:
        return None
    return Verdict(DEGRADED, "the same daemon runs more than once, as process %d and %s: end those that the cluster "
                   "has not started, or restart this resource, whose stop ends all" % (
                       main.pid, ", ".join(str(entry.pid) for entry in others)))


def of_socket(path, main, owner):
    """Verdict on a server whose unix socket is another server's (a Process); None when it is its own."""
    if owner is None:
        return None
    return Verdict(DEGRADED, "%s is that of process %d (%s), a second server beside process %d: end that one, then "
                   "restart this resource" % (path, owner.pid, owner.comm, main.pid))


def of_sessions(missing_for, server, already_restarted):
    """A spooler without sessions on the server for `missing_for` seconds."""
    if server.how != talk.FINE:
        return of_dependency(server)
    if missing_for <= SESSIONS_AFTER:
        return GOOD
    words = "no session with its server for over %d s, though the server is fine" % int(SESSIONS_AFTER)
    if already_restarted:
        return Verdict(DEGRADED, words + "; a restart did not help")
    return Verdict(GENERIC, words)


def of_login(seen, server):
    """A test login: refused is an account's or a dependency's matter, silence with a good server the daemon's.

    server  Seen of its deep check; anything but FINE when its database could not be seen
    """
    if seen.how == talk.FINE:
        return GOOD
    if seen.how in (talk.NONSENSE, talk.CLOSED, talk.REFUSED) or seen.how == talk.SILENT and server.how == talk.FINE:
        return Verdict(GENERIC, "test login: %s" % seen.words)
    return Verdict(DEGRADED, "test login: %s" % seen.words)
