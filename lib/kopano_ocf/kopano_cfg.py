# SPDX-License-Identifier: GPL-2.0-or-later
"""Kopano's configuration: syntax, the settings' names by version, bind specifications, --dump-config.

The syntax is that of kopano-core's common/ECConfigImpl.cpp, the bind
specifications that of common/ECChannel.cpp, the same from 8.0 to 11.
"""
import os

from kopano_ocf import endpoint
from kopano_ocf.endpoint import Endpoint

DAEMONS = ("server", "dagent", "spooler", "gateway", "ical", "monitor")

MYPY = False
if MYPY:
    from typing import Any, Dict, List, Optional, Tuple  # noqa: F401


FILE_LIMIT = 1 << 20          # bytes of one configuration file
INCLUDE_DEPTH = 16
_LINE = 4095                  # the daemons read with fgets() into 4096 bytes: the rest counts as a new line
_VALUE = 1023                 # longer values are cut
_DUMP_LIMIT = 1 << 20         # bytes of --dump-config's output
_SAID_LIMIT = 1 << 16         # bytes of its messages
_BLANKS = " \t\r\n"

# Values that are taken as they are, even with a '$' in front (CONFIGSETTING_EXACT): all of them secrets.
_EXACT = ("mysql_password", "server_ssl_key_pass", "sslkey_pass", "ldap_bind_passwd")

# Defaults of the newest version, for a file read without the daemon's own word.
_COMMON = {"run_as_user": "kopano", "run_as_group": "kopano", "server_socket": "default:"}
_DEFAULTS = {
    "server": {
        "server_listen": "*%lo:236", "server_listen_tls": "", "server_pipe_enabled": "yes",
        "server_pipe_name": "/var/run/kopano/server.sock",
        "server_pipe_priority": "/var/run/kopano/prio.sock",
        "server_bind": "", "server_tcp_port": "236", "server_ssl_enabled": "no", "server_ssl_port": "237",
        "local_admin_users": "root", "attachment_storage": "auto",
        "attachment_path": "/var/lib/kopano/attachments", "server_ssl_key_file": "/etc/kopano/ssl/server.pem",
        "mysql_host": "localhost", "mysql_port": "3306", "mysql_user": "root", "mysql_password": "",
        "mysql_database": "kopano", "mysql_socket": "",
    },
    "dagent": {"lmtp_listen": "*%lo:2003", "server_bind": "", "lmtp_port": "2003", "server_bind_intf": ""},
    "gateway": {
        "imap_listen": "*%lo:143", "imaps_listen": "", "pop3_listen": "*%lo:110", "pop3s_listen": "",
        "server_bind": "",
        "imap_enable": "yes", "imap_port": "143", "imaps_enable": "no", "imaps_port": "993",
        "pop3_enable": "yes", "pop3_port": "110", "pop3s_enable": "no", "pop3s_port": "995",
        "server_socket": "http://localhost:236/",
        "ssl_certificate_file": "/etc/kopano/gateway/cert.pem",
        "ssl_private_key_file": "/etc/kopano/gateway/privkey.pem",
    },
    "ical": {
        "ical_listen": "*%lo:8080", "icals_listen": "",
        "server_bind": "",
        "ical_enable": "yes", "ical_port": "8080", "icals_enable": "no", "icals_port": "8443",
        "server_socket": "http://localhost:236/",
        "ssl_certificate_file": "/etc/kopano/ical/cert.pem",
        "ssl_private_key_file": "/etc/kopano/ical/privkey.pem",
    },
    "spooler": {},
    "monitor": {},
}  # type: Dict[str, Dict[str, str]]

# Listeners: (new key, protocol, TLS, old switch, old port key).
_LISTENERS = {
    "server": (("server_listen", "soap", False, "server_tcp_enabled", "server_tcp_port"),
               ("server_listen_tls", "soap", True, "server_ssl_enabled", "server_ssl_port")),
    "dagent": (("lmtp_listen", "lmtp", False, "", "lmtp_port"),),
    "gateway": (("imap_listen", "imap", False, "imap_enable", "imap_port"),
                ("imaps_listen", "imap", True, "imaps_enable", "imaps_port"),
                ("pop3_listen", "pop3", False, "pop3_enable", "pop3_port"),
                ("pop3s_listen", "pop3", True, "pop3s_enable", "pop3s_port")),
    "ical": (("ical_listen", "caldav", False, "ical_enable", "ical_port"),
             ("icals_listen", "caldav", True, "icals_enable", "icals_port")),
}  # type: Dict[str, tuple]

# What replaces a setting that 8.7.0 removed.
RENAMED = {
    "server_tcp_port": "server_listen", "server_tcp_enabled": "server_listen",
    "server_ssl_port": "server_listen_tls", "server_ssl_enabled": "server_listen_tls",
    "lmtp_port": "lmtp_listen", "imap_enable": "imap_listen", "imap_port": "imap_listen",
    "imaps_enable": "imaps_listen", "imaps_port": "imaps_listen",
    "pop3_enable": "pop3_listen", "pop3_port": "pop3_listen",
    "pop3s_enable": "pop3s_listen", "pop3s_port": "pop3s_listen",
    "ical_enable": "ical_listen", "ical_port": "ical_listen",
    "icals_enable": "icals_listen", "icals_port": "icals_listen",
}


def secret(key):
    # type: (str) -> bool
    """Whether values of this setting must never be shown; a mistyped name is as secret as the right one."""
    if any(word in key.lower() for word in ("pass", "pwd", "_pw", "secret")):
        return True
    from difflib import SequenceMatcher
    return len(key) < 40 and any(SequenceMatcher(None, key, name).ratio() > 0.8 for name in _EXACT)


def shown(text, limit=80):
    # type: (str, int) -> str
    """Text from outside, fit for one line of a message: printable, at most limit characters."""
    clean = "".join(c if c.isprintable() else _escaped(c) for c in text[:limit])
    return clean + "..." if len(text) > limit else clean


def _escaped(char):
    # type: (str) -> str
    code = ord(char)
    if 0xdc80 <= code <= 0xdcff:        # a byte that is not UTF-8, see os.fsdecode()
        code -= 0xdc00
    return "\\x%02x" % code if code < 256 else "\\u%04x" % code


class ConfigError(Exception):
    """Something is wrong with a configuration file.

    file, key, value  where; key is "" when the whole file is meant; a secret's value is "***"
    wrong, remedy     what is wrong, and the way out ("" when there is none to name)
    str()             one line: "FILE: KEY: 'VALUE': WRONG; REMEDY"
    """

    def __init__(self, file, key, value, wrong, remedy=""):
        # type: (str, str, str, str, str) -> None
        Exception.__init__(self, file, key, wrong, remedy)
        self.file, self.key = file, key
        self.value = "***" if value and secret(key) else value
        self.wrong, self.remedy = wrong, remedy

    def __str__(self):
        # type: () -> str
        where = shown(self.file, 200)
        if self.key:
            where += ": %s" % shown(self.key)
        if self.value:
            where += ": '%s'" % shown(self.value)
        return "%s: %s" % (where, self.wrong) + ("; %s" % self.remedy if self.remedy else "")


class Missing(ConfigError):
    """There is no such file."""


class Rejected(ConfigError):
    """The daemon itself does not accept its configuration."""


class Unasked(ConfigError):
    """The daemon could not be asked: not executable, silent, or too old for --dump-config."""


class Values(dict):
    """Settings as text, in the order of their last assignment.

    defaults  names that the daemon reported as its own defaults (dump() only)
    dumped    True when these are the daemon's own words: then what is not in it, that version does not know
    notes     lines about what was passed over while reading
    """

    def __init__(self, *args):
        # type: (*Any) -> None
        dict.__init__(self, *args)
        self.defaults = set()       # type: set
        self.dumped = False
        self.notes = []             # type: List[str]

    def __repr__(self):
        # type: () -> str
        return "Values(%s)" % ", ".join(
            "%s=%s" % (key, "***" if secret(key) else repr(value)) for key, value in self.items())

    __str__ = __repr__


# ---------------------------------------------------------------- reading a file

def read(path, environ=None):
    # type: (str, Optional[Any]) -> Values
    """Read a configuration file, as the daemons do, !include followed.

    A line is `key = value`; '#' in column 1 only is a comment; the last assignment wins; a value
    "$NAME" is taken from the environment. Unknown keys pass: only the daemon knows its own.
    Never waits on what it opens. Raises Missing or ConfigError.
    """
    values = Values()
    _read_into(values, path, os.environ if environ is None else environ, set(), 0)
    return values


def _read_into(values, path, environ, seen, depth):
    # type: (Values, str, Any, set, int) -> None
    real = os.path.realpath(path) if "\0" not in path else path
    if real in seen:                # the daemons pass over a file that they have read already
        return
    seen.add(real)
    if depth > INCLUDE_DEPTH:
        raise ConfigError(path, "", "", "more than %d files included within each other" % INCLUDE_DEPTH,
                          "include them from one file")
    data = contents(path)
    if b"\0" in data:
        line = data[:data.index(b"\0")].count(b"\n") + 1
        raise ConfigError(path, "", "", "binary data in line %d" % line, "restore the file")
    for raw in data.split(b"\n"):
        for start in range(0, len(raw), _LINE):
            text = raw[start:start + _LINE].decode("utf-8", "surrogateescape")
            _take(values, text, path, environ, seen, depth)


def _take(values, line, path, environ, seen, depth):
    # type: (Values, str, str, Any, set, int) -> None
    if line.startswith("!"):
        name, _, argument = line[1:].replace("\t", " ").partition(" ")
        argument = argument.strip(_BLANKS)
        if name != "include" or not argument:
            values.notes.append("%s: directive '!%s' is passed over"
                                % (shown(path, 200), shown(name.strip(_BLANKS))))
            return
        other = os.path.join(os.path.dirname(os.path.realpath(path)), argument)
        try:
            _read_into(values, other, environ, seen, depth + 1)
        except Missing as err:
            raise ConfigError(path, "!include", argument, err.wrong, "correct the name or remove the line")
        return
    key, equals, value = line.partition("=")
    key, value = key.strip(_BLANKS), value.strip(_BLANKS)
    if line.startswith("#") or not equals or not key:
        return
    if value.startswith("$") and key not in _EXACT:
        found = environ.get(value[1:])
        if found is None:
            values.notes.append("%s: %s = %s: not in the environment, taken as it is"
                                % (shown(path, 200), shown(key), "***" if secret(key) else shown(value)))
        else:
            value = found
    values.pop(key, None)
    values[key] = _cut(value)


def _cut(value):
    # type: (str) -> str
    if len(value) <= _VALUE // 4:
        return value
    return value.encode("utf-8", "surrogateescape")[:_VALUE].decode("utf-8", "surrogateescape")


def contents(path, limit=FILE_LIMIT):
    # type: (str, int) -> bytes
    """A regular file's bytes. Raises Missing or ConfigError; never blocks on a fifo or a device."""
    if "\0" in path:
        raise ConfigError(path, "", "", "not a file name")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise Missing(path, "", "", err.strerror)
    except (OSError, ValueError) as err:
        raise ConfigError(path, "", "", getattr(err, "strerror", None) or str(err))
    try:
        if os.fstat(fd).st_mode & 0o170000 != 0o100000:
            raise ConfigError(path, "", "", "not a regular file")
        parts, size = [], 0     # type: List[bytes], int
        while True:
            part = os.read(fd, 65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > limit:
                raise ConfigError(path, "", "", "larger than %d bytes" % limit)
    except OSError as err:
        raise ConfigError(path, "", "", err.strerror or str(err))
    finally:
        os.close(fd)


# ---------------------------------------------------------------- asking the daemon

def dump(binary, path, words, deadline):
    # type: (str, str, List[str], float) -> Values
    """The settings in effect, in the daemon's own words: `BINARY WORDS -c PATH --dump-config`.

    words     what must come first: dagent needs ["-l"], else it waits for a mail
    path      "" for the daemon's default file
    deadline  time.monotonic() at which the daemon is killed and Unasked is raised
    The exit code counts for nothing (ical and dagent return 0 for a file that they reject): settings
    are printed when, and only when, the file is accepted. Known since 8.6.
    Raises Rejected with the daemon's own message, or Unasked.
    """
    argv = [binary] + list(words) + (["-c", path] if path else []) + ["--dump-config"]
    name = os.path.basename(binary)
    file = path or binary
    log = Log(_log_file(path))
    code, out, said = _run(argv, file, name, deadline)
    values = _parse_dump(out)
    if values:
        return values
    # dagent complains in its log alone
    message, key = _complaint(said.strip() or "\n".join(log.lines()).encode("utf-8", "surrogateescape"))
    if "dump-config" in message or "dump-config" in key:
        raise Unasked(file, "", "", "%s does not know --dump-config" % name, "")
    if not message:
        message = "no settings and no message from --dump-config, exit code %d" % code
    value = ""
    if key and not secret(key) and path:
        try:
            value = read(path).get(key, "")
        except ConfigError:
            pass
    raise Rejected(file, key, value, "%s says: %s" % (name, shown(message, 300)), _remedy(key))


class Log:
    """What a daemon's log file gains from now on.

    path  as the configuration has it; what is no absolute path ("", "-") is no file
    """

    def __init__(self, path):
        # type: (str) -> None
        self.path = path if path.startswith("/") else ""
        try:
            self._size = os.stat(self.path).st_size if self.path else 0
        except (OSError, ValueError):
            self._size = 0

    def lines(self):
        # type: () -> List[str]
        """Lines that are new, of the last 8 kB; [] when there are none. Never waits, never follows a link."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return []
        try:
            seen = os.fstat(fd)
            if seen.st_mode & 0o170000 != 0o100000 or seen.st_size <= self._size:
                return []
            data = os.pread(fd, 8192, max(self._size, seen.st_size - 8192))
        except OSError:
            return []
        finally:
            os.close(fd)
        return [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]


def _log_file(path):
    # type: (str) -> str
    try:
        return read(path).get("log_file", "") if path else ""
    except ConfigError:
        return ""


def _run(argv, file, name, deadline):
    # type: (List[str], str, str, float) -> Tuple[int, bytes, bytes]
    """Run a command that must not be able to hold us up; (exit code, stdout, stderr), both capped."""
    import select
    import signal
    import subprocess
    import time
    environ = dict(os.environ, LC_ALL="C.UTF-8")
    try:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, env=environ, cwd="/", start_new_session=True)
    except (OSError, ValueError) as err:
        raise Unasked(file, "", "", "%s can't be run: %s" % (shown(argv[0], 200),
                                                             getattr(err, "strerror", None) or err))
    assert child.stdout and child.stderr
    streams = {child.stdout.fileno(): [], child.stderr.fileno(): []}  # type: Dict[int, List[bytes]]
    limits = {child.stdout.fileno(): _DUMP_LIMIT, child.stderr.fileno(): _SAID_LIMIT}
    out, said = streams[child.stdout.fileno()], streams[child.stderr.fileno()]
    poller = select.poll()
    for fd in streams:
        poller.register(fd, select.POLLIN)
    try:
        while streams:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unasked(file, "", "", "no answer of '%s --dump-config' in time" % name)
            # A wrapper's own children may hold the pipes open after it has exited.
            over = child.poll() is not None
            ready = poller.poll(0 if over else min(left, 0.2) * 1000)
            if over and not ready:
                break
            for fd, _ in ready:
                part = os.read(fd, 65536)
                limits[fd] -= len(part)
                if not part:
                    poller.unregister(fd)
                    del streams[fd]
                elif limits[fd] >= 0:
                    streams[fd].append(part)
                elif streams[fd] is out:
                    raise Unasked(file, "", "", "'%s --dump-config' prints without end" % name)
        try:
            return child.wait(max(deadline - time.monotonic(), 0.01)), b"".join(out), b"".join(said)
        except subprocess.TimeoutExpired:
            raise Unasked(file, "", "", "'%s --dump-config' does not end" % name)
    finally:
        if child.poll() is None:
            try:
                os.killpg(child.pid, signal.SIGKILL)    # its own session: nobody else is in that group
            except OSError:
                child.kill()
            child.wait()
        child.stdout.close()
        child.stderr.close()


def _parse_dump(data):
    # type: (bytes) -> Values
    values = Values()
    values.dumped = True
    key = ""
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        default = line.startswith("# ")
        name, equals, value = (line[2:] if default else line).partition(" =")
        if equals and value[:1] in ("", " ") and name and name.replace("_", "").isalnum():
            key = name
            values[key] = value.strip(_BLANKS)
            (values.defaults.add if default else values.defaults.discard)(key)
        elif key and line.strip(_BLANKS):       # forward_whitelist_domain_message has several lines
            values[key] += "\n" + line.strip(_BLANKS)
    return values


def _complaint(said):
    # type: (bytes) -> Tuple[str, str]
    """(the daemon's message, the setting it names) from its standard error."""
    lines = [line.strip(_BLANKS) for line in said.decode("utf-8", "surrogateescape").split("\n")]
    lines = [line for line in lines if line and "Server shutdown complete" not in line]
    errors = [line[line.index("Config error: ") + 14:] for line in lines if "Config error: " in line]
    if not errors:
        return (_bare(lines[-1]) if lines else ""), ""
    key = ""
    if "ption \"" in errors[0] or "ption '" in errors[0]:
        quote = errors[0][errors[0].index("ption ") + 6]
        key = errors[0].split(quote)[1]
    more = " (and %d more)" % (len(errors) - 1) if len(errors) > 1 else ""
    return errors[0] + more, key


def _bare(line):
    # type: (str) -> str
    """A log line without its level, '[crit   ] '."""
    return line.partition("] ")[2] or line if line.startswith("[") else line


def _remedy(key):
    # type: (str) -> str
    if key in RENAMED:
        return "since Kopano 8.7 use %s" % RENAMED[key]
    if key == "server_bind":
        return "since Kopano 8.7 the address is part of the *_listen settings"
    return "correct or remove it" if key else "correct it"


# ---------------------------------------------------------------- bind specifications

def bindspec(text, protocol, tls, port=0, names=False):
    # type: (str, str, bool, int, bool) -> Endpoint
    """Read one of ADDR[%IFACE]:PORT, [V6][%IFACE]:PORT, *[%IFACE]:PORT, unix:PATH.

    port   used when none is given (8.5 and 8.6 only); 0: it must be given
    names  host names are allowed (before 8.7 only)
    A relative path counts from "/", the daemons' working directory. Raises ValueError with one clear line.
    """
    quoted = "'%s'" % shown(text)
    if not text or "\0" in text or any(c in text for c in _BLANKS):
        raise ValueError("%s: empty, or white space or a NUL byte in it" % quoted)
    if text.startswith("unix:"):
        path = text[5:]
        if not path or len(os.fsencode(path)) >= 108:
            raise ValueError("%s: a unix socket's path has 1 to 107 bytes" % quoted)
        return Endpoint(protocol, tls, path=absolute(path))
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError("%s: ']' missing" % quoted)
    else:
        end = min(i if i >= 0 else len(text) for i in (text.find("%"), text.find(":")))
        host, rest = text[:end], text[end:]
    device = ""
    if rest.startswith("%"):
        device = rest[1:].partition(":")[0]
        rest = rest[1 + len(device):]
    port = (number(rest[1:]) if rest.startswith(":") else 0) if rest else port
    if not port:
        raise ValueError("%s: no port 1..65535 after the address" % quoted)
    if len(os.fsencode(device)) > 15 or "/" in device:
        raise ValueError("%s: '%s' is not a network device" % (quoted, shown(device)))
    return Endpoint(protocol, tls, _address(host, names, quoted), port, device=device)


def _address(host, names, quoted):
    # type: (str, bool, str) -> str
    from kopano_ocf import address
    if host in ("", "*"):
        return "*"
    plain, percent, scope = host.partition("%")
    if address.family(plain) and (not percent or scope and ":" in plain):
        return host
    if names and host.replace("-", "").replace(".", "").isalnum():
        return host
    raise ValueError("%s: '%s' is not an address (host names are not accepted)" % (quoted, shown(host)))


def number(text):
    # type: (str) -> int
    """A port's number, 0 when the text is none."""
    # isdigit() alone would let digits of other scripts pass
    if len(text) > 5 or not text.encode("utf-8", "replace").isdigit():
        return 0
    return int(text) if int(text) < 65536 else 0


def absolute(path):
    # type: (str) -> str
    """A path as a daemon started in "/" sees it."""
    return path if path.startswith("/") else "/" + path


# ---------------------------------------------------------------- what the settings mean

class Database:
    """Where kopano-server keeps its data; repr() hides the password."""

    __slots__ = ("host", "port", "socket", "user", "password", "name")

    def __init__(self, host, port, socket, user, password, name):
        # type: (str, int, str, str, str, str) -> None
        self.host, self.port, self.socket = host, port, socket
        self.user, self.password, self.name = user, password, name

    def __repr__(self):
        # type: () -> str
        return "Database(host=%r, port=%r, socket=%r, user=%r, name=%r)" % (
            self.host, self.port, self.socket, self.user, self.name)


class Settings:
    """One daemon's settings, whatever names its version uses.

    daemon   one of DAEMONS
    values   from dump(), read(), or a plain dict
    path     the file, for messages
    environ  where KOPANO_SOCKET is looked up; os.environ when None
    """

    def __init__(self, daemon, values, path="", environ=None):
        # type: (str, Dict[str, str], str, Optional[Any]) -> None
        self.daemon, self.path = daemon, path
        self.values = values
        self.dumped = getattr(values, "dumped", False)      # type: bool
        self._environ = os.environ if environ is None else environ
        if daemon == "server":
            self.values = _without_aliases(values)

    def __repr__(self):
        # type: () -> str
        return "Settings(%r, path=%r, %d values)" % (self.daemon, self.path, len(self.values))

    def get(self, key):
        # type: (str) -> str
        """A setting's value; its default when it is not set; "" when there is none."""
        if key in self.values:
            return self.values[key]
        if self.dumped:
            return ""
        return _DEFAULTS[self.daemon].get(key, _COMMON.get(key, ""))

    def given(self, key):
        # type: (str) -> bool
        """Whether the file itself sets it."""
        return key in self.values and key not in getattr(self.values, "defaults", ())

    @property
    def run_as_user(self):
        # type: () -> str
        """User the daemon becomes; "" when it stays root."""
        return self.get("run_as_user")

    @property
    def run_as_group(self):
        # type: () -> str
        """Group the daemon becomes; "" when it keeps root's."""
        return self.get("run_as_group")

    @property
    def pid_file(self):
        # type: () -> Optional[str]
        """The pid file's path, None where that version has none (obsolete from 10.0.7).

        Without the daemon's own word the version is not known: the old default is named then.
        """
        if "pid_file" in self.values or self.dumped:
            path = self.values.get("pid_file", "")
            return absolute(path) if path else None
        return "/var/run/kopano/%s.pid" % self.daemon

    def endpoints(self):
        # type: () -> List[Endpoint]
        """Where the daemon listens, each place once. Raises ConfigError."""
        found = []      # type: List[Endpoint]
        for _, _, place in self.bindspecs():
            if place not in found:
                found.append(place)
        return found

    def bindspecs(self):
        # type: () -> List[Tuple[str, str, Endpoint]]
        """(key, text, Endpoint) of each listener, new and old settings' names. Raises ConfigError."""
        found = []      # type: List[Tuple[str, str, Endpoint]]
        for key, protocol, tls, switch, port_key in _LISTENERS.get(self.daemon, ()):
            if not self._old_names() or key in self.values:
                default = (237 if tls else 236) if self._old_names() else 0
                for text in self.get(key).split(" "):
                    # Streams over SCTP are known to Kopano 9 and later; nothing here speaks it.
                    if text and not text.startswith("sctp:"):
                        found.append((key, text, self._endpoint(key, text, protocol, tls, default)))
            if self._old_names() and self._switched_on(switch):
                text = self._old_text(port_key)
                old_key = "server_bind" if self.get("server_bind") else port_key
                found.append((old_key, text, self._endpoint(old_key, text, protocol, tls, 0)))
        if self.daemon == "server":
            found.extend(self._pipes())
        return found

    def _endpoint(self, key, text, protocol, tls, port):
        # type: (str, str, str, bool, int) -> Endpoint
        try:
            return bindspec(text, protocol, tls, port, names=self._old_names())
        except ValueError as err:
            wrong = str(err).rpartition("': ")[2]
            form = "[ADDRESS]:PORT, with the brackets," if text.count(":") > 1 and "[" not in text else "ADDRESS:PORT"
            raise ConfigError(self.path, key, text, wrong, "write it as %s or *:PORT" % form)

    def _pipes(self):
        # type: () -> List[Tuple[str, str, Endpoint]]
        keys = ["server_pipe_priority"]
        if self.get("server_pipe_enabled").lower() not in ("", "0", "no", "false"):
            keys.insert(0, "server_pipe_name")
        return [(key, text, Endpoint("soap", path=absolute(text)))
                for key in keys for text in self.get(key).split(" ") if text]

    def _old_names(self):
        # type: () -> bool
        """Whether a setting that 8.7.0 removed is in use."""
        if "server_bind" in self.values:
            return True
        return any(switch in self.values or port in self.values
                   for _, _, _, switch, port in _LISTENERS.get(self.daemon, ()))

    def _switched_on(self, switch):
        # type: (str) -> bool
        if not switch:
            return True         # dagent has no switch
        value = self.get(switch)
        if switch == "server_tcp_enabled" and switch not in self.values:
            # 8.0 to 8.4 listened unless told otherwise; 8.5, which brought server_listen, did not.
            value = "no" if "server_listen" in self.values else "yes"
        return (value.lower() if self.daemon == "ical" else value) == "yes"

    def _old_text(self, port_key):
        # type: (str) -> str
        host, device = self.get("server_bind"), self.get("server_bind_intf")
        if ":" in host:
            host = "[%s]" % host
        return "%s%s:%s" % (host or "*", "%" + device if device else "", self.get(port_key))

    def server(self):
        # type: () -> Endpoint
        """The kopano-server that a client daemon talks to (server_socket). Raises ConfigError.

        KOPANO_SOCKET in the environment stands in for an empty value or "default:".
        """
        key, text = "server_socket", self.get("server_socket")
        if text in ("", "default:"):
            key, text = ("KOPANO_SOCKET", self._environ["KOPANO_SOCKET"]) \
                if self._environ.get("KOPANO_SOCKET") else (key, text)
        try:
            return server_url(text)
        except ValueError as err:
            raise ConfigError(self.path, key, text, str(err),
                              "write it as file:///run/kopano/server.sock or http://ADDRESS:236/")

    def database(self):
        # type: () -> Database
        """kopano-server's database. Raises ConfigError."""
        port = self.get("mysql_port") or "3306"
        if not number(port):
            raise ConfigError(self.path, "mysql_port", port, "not a port", "use 1..65535")
        return Database(self.get("mysql_host"), number(port), self.get("mysql_socket"),
                        self.get("mysql_user"), self.get("mysql_password"), self.get("mysql_database"))


def server_url(text):
    # type: (str) -> Endpoint
    """A server_socket as the clients read it. Raises ValueError.

    Without a port http means 80 and https 443 there, as in any URL.
    """
    if text in ("", "default:"):
        return Endpoint("soap", path="/var/run/kopano/server.sock")
    scheme, colon, rest = text.partition(":")
    if scheme in ("file", "unix") and colon:
        path = rest[2:] if rest.startswith("//") else rest
        if not path or "\0" in path:
            raise ValueError("no path")
        return Endpoint("soap", path=absolute(path))
    if scheme not in ("http", "https") or not rest.startswith("//"):
        raise ValueError("not one of file:// http:// https://")
    place = rest[2:].partition("/")[0]
    if "\0" in place or any(c.isspace() for c in place):
        raise ValueError("white space or a NUL byte in it")
    try:
        host, port, device = endpoint.host_port(place, "")
    except ValueError as err:
        raise ValueError(str(err).partition(": ")[2] or "bad address")
    tls = scheme == "https"
    return Endpoint("soap", tls, host, port or (443 if tls else 80), device=device)


def default_server(path):
    # type: (str) -> Endpoint
    """The kopano-server that WebApp talks to: DEFAULT_SERVER in its config.php. Raises ConfigError."""
    from kopano_ocf import foreign
    text = foreign.php_constants(contents(path).decode("utf-8", "surrogateescape")).get("DEFAULT_SERVER", "")
    remedy = "write it as define(\"DEFAULT_SERVER\", \"default:\"); or \"http://ADDRESS:236/kopano\""
    if not text:
        wrong = "DEFAULT_SERVER is %s" % ("no plain string" if text is None else "not defined")
        raise ConfigError(path, "", "", wrong, remedy)
    try:
        return server_url(text)
    except ValueError as err:
        raise ConfigError(path, "DEFAULT_SERVER", text, str(err), remedy)


def _without_aliases(values):
    # type: (Dict[str, str]) -> Dict[str, str]
    aliases = {"server_port": "server_tcp_port", "unix_socket": "server_pipe_name"}
    if not any(alias in values for alias in aliases):
        return values
    plain = Values()
    plain.dumped = getattr(values, "dumped", False)
    plain.defaults = getattr(values, "defaults", set())
    plain.notes = getattr(values, "notes", [])
    for key, value in values.items():
        plain[aliases.get(key, key)] = value
    return plain
