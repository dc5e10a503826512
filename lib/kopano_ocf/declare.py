# SPDX-License-Identifier: GPL-2.0-or-later
"""The vocabulary that agents are written in: parameters, actions, depths.

An Agent object is everything that is declared about a resource type; meta-data,
man pages, parameter checks, timeouts and monitor depths are all read from it.
Nothing here looks at the host.
"""


class Parameter:
    """One instance parameter.

    kind        "string", "integer" or "boolean" as meta-data knows them
    form        what a string must look like beyond that: "path", "absolute" (a path from /), "url",
                "endpoints", "regex", "attribute", "words", or ""
    unique      no two resources may have the same value (a unique-group of its own)
    reloadable  takes effect by reload-agent, without a restart
    least, most bounds of an integer
    empty       an empty value has a meaning of its own (else it means the default)
    """

    __slots__ = ("name", "short", "long", "kind", "default", "form", "unique", "reloadable", "least", "most", "empty")

    def __init__(self, name, short, long, kind="string", default=None, form="", unique=False,
                 reloadable=False, least=None, most=None, empty=False):
        self.name, self.short, self.long = name, short, long
        self.kind, self.default, self.form = kind, default, form
        self.unique, self.reloadable, self.least, self.most = unique, reloadable, least, most
        self.empty = empty


class Action:
    """One advertised action: timeout and interval in seconds, depth for monitors."""

    __slots__ = ("name", "timeout", "interval", "depth")

    def __init__(self, name, timeout, interval=None, depth=None):
        self.name, self.timeout, self.interval, self.depth = name, timeout, interval, depth


class Agent:
    """A resource type.

    name       as in ocf:kopano:NAME
    short      one line; long: paragraphs separated by blank lines
    depths     {0: text, 10: text, 20: text}: what each monitor depth checks
    parameters, actions   lists of the above
    kind       "daemon" or "page": which room of the library runs it
    """

    kind = ""

    def __init__(self, name, short, long, depths, parameters, actions):
        self.name, self.short, self.long = name, short, long
        self.depths, self.parameters, self.actions = depths, parameters, actions

    def parameter(self, name):
        """The Parameter called name, or None."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        return None

    def timeout(self, action, depth=None):
        """Advised timeout of an action in seconds (20 for what is not advertised)."""
        best = None
        for entry in self.actions:
            if entry.name == action and (best is None or entry.depth == depth):
                best = entry
        return best.timeout if best else 20

    def run(self):
        """Do what the command line and the environment ask for; never returns."""
        from kopano_ocf import action
        action.main(self)


class Daemon(Agent):
    """A resource type that is one of Kopano's daemons.

    listens    protocol behind http:, https: and unix: endpoints; "" when the daemon has no port
    foreground words that keep every generation in the foreground (for dagent also what makes it a daemon)
    role       words of which one must be in the command line of the daemon itself
    watch      the way it is monitored: "server", "dagent", "mailbox" (gateway, ical) or "portless"
    drain      seconds that the daemon may need for a good shutdown before it is pressed
    """

    kind = "daemon"

    def __init__(self, name, short, long, depths, watch, drain, timeouts, listens="", foreground=("-F",), role=(),
                 login=False):
        self.watch, self.drain, self.listens = watch, drain, listens
        self.foreground, self.role = list(foreground), tuple(role)
        parameters = [binary(name), config(name), pidfile(name), OPTIONS]
        if listens:
            parameters.append(listen(listens))
        parameters.append(stop_escalate(name, drain))
        if login:
            parameters += [TEST_USER, TEST_PASSWORD_FILE]
        if listens and listens != "lmtp":
            parameters += [CA_FILE, tls_verify(False)]
        Agent.__init__(self, name, short, long, depths, parameters, daemon_actions(timeouts))


class Page(Agent):
    """A resource type that watches a web page and owns no process."""

    kind = "page"

    def __init__(self, name, short, long, depths, timeouts, parameters):
        Agent.__init__(self, name, short, long, depths, parameters, page_actions(timeouts))


def daemon_actions(timeouts):
    """Advertised actions of a daemon; timeouts = (start, stop, monitor, deep monitor) in seconds."""
    start, stop, shallow, deep = timeouts
    return [
        Action("start", start), Action("stop", stop),
        Action("monitor", shallow, 20, 10), Action("monitor", deep, 60, 20),
        Action("reload", 20), Action("reload-agent", 10),
        Action("validate-all", 20), Action("meta-data", 5),
    ]


def page_actions(timeouts):
    """Advertised actions of a page; it has nothing that could be reloaded but its parameters."""
    return [entry for entry in daemon_actions(timeouts) if entry.name != "reload"]


# The parameters.  The same name means the same thing in every agent.

def binary(name):
    """Which executable the daemon is."""
    return Parameter(
        "binary", "Executable of the daemon",
        "The kopano-%s executable. A bare name is looked up in PATH, /usr/sbin and /usr/local/sbin." % name,
        default="kopano-" + name, form="path")


def config(name):
    """Which configuration file the daemon reads."""
    return Parameter(
        "config", "Configuration file of the daemon",
        "The file that kopano-%s is started with (-c). It also tells this instance from others on the node." % name,
        default="/etc/kopano/%s.cfg" % name, form="absolute", unique=True)


def pidfile(name):
    """Where the daemon itself keeps its pid."""
    return Parameter(
        "pidfile", "Pid file of the daemon",
        "The daemon's own pid file. It is read as a hint, never written, and never believed alone. "
        "When empty, pid_file of the configuration file is used; kopano-%s writes none from 10.0.7 on." % name,
        default="", form="absolute", unique=True)


OPTIONS = Parameter(
    "options", "Further words for the daemon's command line",
    "Added to the command line as they are, split at blanks with quotes respected. No shell is involved.",
    default="", form="words")

_ENDPOINTS = {
    "soap": "http://192.168.122.100:236 https://192.168.122.100:237 unix:/run/kopano/server.sock",
    "lmtp": "lmtp://192.168.122.100:2003",
    "imap": "imap://192.168.122.100:143 imaps://192.168.122.100:993 pop3://192.168.122.100:110 "
            "pop3s://192.168.122.100:995",
    "caldav": "http://192.168.122.100:8080 https://192.168.122.100:8443",
}


def listen(protocol):
    """Where the daemon is asked."""
    return Parameter(
        "listen", "Endpoints to probe",
        "Blank-separated endpoints to probe instead of those that the daemon was started with, for example "
        "%s . When empty, they come from the configuration at start." % _ENDPOINTS[protocol],
        default="", form="endpoints", reloadable=True)


# with nobody to finish, stop waits for nothing
_NOT_WAITED_FOR = {
    "dagent": "; without a client dagent is not waited for so long",
    "gateway": "; without a client gateway is not waited for so long",
    "ical": "; without a child process ical is not waited for so long",
    "spooler": "; without a mail under way spooler is not waited for so long",
}


def stop_escalate(name, drain):
    """When stop presses on."""
    return Parameter(
        "stop_escalate", "Seconds until stop presses on",
        "Seconds from the first SIGTERM, which lets what is under way finish, to the second one, which ends the daemon "
        "at once; SIGKILL follows 5 seconds later. The default is longer than the daemon's own drain%s. "
        "A stop timeout that is too short for this compresses the steps." % _NOT_WAITED_FOR.get(name, ""),
        kind="integer", default=drain, reloadable=True, least=1, most=3600)


TEST_USER = Parameter(
    "test_user", "Mailbox to log in to at depth 20",
    "A user of its own for the check: monitors of depth 20 log in as this user and out again. "
    "When empty, no login is tried.", default="", reloadable=True)

TEST_PASSWORD_FILE = Parameter(
    "test_password_file", "File with the password of test_user",
    "The first line of this file is the password of test_user. Let only root read it.",
    default="", form="absolute", reloadable=True)

CA_FILE = Parameter(
    "ca_file", "Certificate authorities", "PEM file of the authorities to trust when tls_verify is true. "
    "When empty, those of the system.", default="", form="absolute", reloadable=True)


def tls_verify(default):
    """Whether certificates are judged."""
    return Parameter(
        "tls_verify", "Verify certificates",
        "Whether a certificate must come from a trusted authority and name the host that is asked. "
        "An expired certificate is reported in either case.",
        kind="boolean", default=default, reloadable=True)
