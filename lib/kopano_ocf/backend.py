# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking at the kopano-server behind a daemon without doing it harm.

A deep check (logon, getStore, logoff) of a server whose database hangs blocks
one of its workers until the database is back.  So over all agents of a node
only one such check may be unanswered: it leaves a marker, and until that is
ten minutes old, or the database answers, nobody asks again.
"""
import os
import time

from kopano_ocf import endpoint, state, talk
from kopano_ocf.probe import soap

MARKER_LASTS = 600.0        # seconds
# Seconds that a client's agent waits for the server: a monitor that waits longer can hold up the very transition in
# which Pacemaker restarts that server.
PATIENCE = 10.0
LEAST = 0.05                # seconds; who has less left does not ask, and leaves no marker
UNASKED = "unasked"
_PREFIX = "kopano-ocf-deep-"


def marker(folder, server):
    """Path of the marker for a server given by its URL (text)."""
    return "%s/%s" % (folder, state.safe_name(_PREFIX + server.replace("/var/run/", "/run/")))


def pending(path):
    """Seconds since an unanswered check began; None when there is none that counts."""
    since = _since(path)
    return None if since is None else time.monotonic() - since


def _since(path, name="pending"):
    try:
        since = float(state.read(path)[name])
    except (KeyError, ValueError):
        return None
    # soon after a boot a moment before it would be recent enough
    return since if 0 <= since <= time.monotonic() < since + MARKER_LASTS else None


def clear(folder, server):
    """The server was restarted, or its database answers: nothing is blocked any more."""
    state.remove(marker(folder, server))


def guarded(folder, server, question, deadline, recovered=None, shared=False):
    """Put a question that may block a worker of the server.

    question   called without arguments, returns a Seen
    shared     all who ask this ask the same: a good answer that another one got while we waited is ours
    recovered  called when an earlier question is unanswered; True means that it blocks nothing any more
    Returns the Seen of the question, or one with how == UNASKED.
    """
    path = marker(folder, server)
    came = time.monotonic()
    # asked before the lock is taken: a hung database must not hold up the others
    harmless = _since(path) if recovered is not None else None
    if harmless is not None and not recovered():
        harmless = None
    with state.Lock(path + ".lock", deadline) as lock:
        if lock.busy:
            return talk.Seen(UNASKED, "%s: not asked, another check is still waiting for an answer" % server)
        good = _since(path, "good") if shared else None
        if good is not None and good >= came:
            # a busy server has enough to do, and who came first may have taken all of our time
            return talk.Seen(talk.FINE, "%s: has just answered another check" % server)
        if deadline - time.monotonic() < LEAST:
            return talk.Seen(UNASKED, "%s: not asked, there was no time left" % server)
        since = _since(path)
        if since is not None and since != harmless:
            return talk.Seen(UNASKED, "%s: not asked, a check got no answer %d s ago; asked again after %d minutes, "
                             "or when its database answers"
                             % (server, int(time.monotonic() - since), MARKER_LASTS // 60))
        state.write(path, {"pending": "%.6f" % time.monotonic()})
        seen = question()
        if seen.how == talk.FINE and shared:
            state.write(path, {"good": "%.6f" % time.monotonic()})
        elif seen.how != talk.SILENT:
            state.remove(path)
        return seen


def any_pending(folder, deadline):
    """Whether any server of this node has an unanswered check; one that is just being made is waited for."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        path = "%s/%s" % (folder, name)
        if name.startswith(_PREFIX) and not name.endswith((".lock", ".tmp")) and pending(path) is not None:
            with state.Lock(path + ".lock", deadline) as lock:
                if lock.busy or pending(path) is not None:
                    return True
    return False


def deep(folder, server, deadline, recovered=None):
    """The deep check over the server's unix socket: a Seen, how == UNASKED when an earlier one is unanswered.

    server  URL (text). Over TCP no password-less logon is possible: then how is UNASKED too.
    """
    where = endpoint.parse(server, "soap")
    if not where.path:
        return talk.Seen(UNASKED, "%s: can't be asked without a password over TCP; set server_socket to "
                         "file:///run/kopano/server.sock" % server)
    return guarded(folder, server, lambda: talk.run([(where, soap.deep)], deadline, local_only=False)[0],
                   deadline, recovered, shared=True)


def reach(folder, server, deadline, ca_file=None, tls_verify=False):
    """Whether the server can be reached the way a client daemon does: deeply over its socket, else by HEAD."""
    where = endpoint.parse(server, "soap")
    deadline = min(deadline, time.monotonic() + PATIENCE)
    if where.path:
        return deep(folder, server, deadline)
    return talk.run([(where, soap.head)], deadline, local_only=False, ca_file=ca_file, tls_verify=tls_verify)[0]
