# SPDX-License-Identifier: GPL-2.0-or-later
"""Kopano's configuration: defaults of the generation, syntax of the files, bindspecs, --dump-config."""

import os

from . import generation

_EXACT = {"mysql_password", "server_ssl_key_pass", "sslkey_pass"}  # never taken from the environment
_ALIASES = {"server": {"unix_socket": "server_pipe_name"}}
_LONGEST_VALUE = 1023


def _obsolete(name):
    """Settings that are only warned about."""
    if generation.NUMBER == 8:
        return {"server_port"} if name == "server" else set()
    if generation.NUMBER == 9:
        return {"server_bind_intf"} if name == "dagent" else set()
    return {"server_bind_intf", "pid_file"} if name == "dagent" else {"pid_file"}


def _defaults(name):
    """Setting -> default, in the order of --dump-config."""
    folder = 8 if generation.NUMBER == 8 else 11
    path = os.path.join(os.path.dirname(__file__), "settings", str(folder), name + ".txt")
    found, key = {}, None
    with open(path) as file:
        for line in file.read().split("\n"):
            head, equals, value = line.partition(" =")
            if equals and head.replace("_", "").isalnum() and head.islower():
                key, found[head] = head, value[1:]
            elif key and (line or key.endswith("_message")):
                found[key] += "\n" + line
    if generation.NUMBER == 9:
        found["pid_file"] = "/var/run/kopano/%s.pid" % name
        found = dict(sorted(found.items()))
    return found


class Config:
    """Effective settings of one daemon.

    errors    lines that make the daemon refuse to start
    warnings  lines for the log
    """

    def __init__(self, name):
        self.name = name
        self.path = None
        self.defaults = _defaults(name)
        self.set, self.errors, self.warnings = {}, [], []

    def __getitem__(self, key):
        return self.set.get(key, self.defaults.get(key, ""))

    def flag(self, key):
        return self[key].lower() in ("yes", "true", "1", "on")

    def number(self, key):
        try:
            return int(self[key])
        except ValueError:
            return 0

    def load(self, path, optional=False, ignore_unknown=False):
        """Read the file; a missing one is an error unless optional. Problems end up in errors, warnings."""
        self.path = path
        self.set, self.errors, self.warnings = {}, [], []
        try:
            with open(path, "rb") as file:
                text = file.read().decode("utf-8", "surrogateescape")
        except OSError as error:
            if not optional:
                self.errors.append("Config error: Unable to open config file '%s': %s" %
                                   (path, error.strerror))
            return
        aliases, obsolete = _ALIASES.get(self.name, {}), _obsolete(self.name)
        for line in text.split("\n"):
            if line.startswith("#"):
                continue
            if line.startswith("!"):
                self.warnings.append("Config warning: Unsupported directive \"%s\" found!"
                                     % line[1:].split(" ")[0].strip())
                continue
            key, equals, value = line.partition("=")
            key, value = key.strip(), value.strip()
            if not equals:
                continue
            key = aliases.get(key, key)
            if key in obsolete:
                self.warnings.append("Config warning: Option \"%s\" is not used anymore." % key)
            elif key not in self.defaults:
                if not ignore_unknown:
                    self.errors.append("Config error: Unknown option \"%s\" found!" % key)
            else:
                if value.startswith("$") and key not in _EXACT:
                    value = os.environ.get(value[1:], "")
                self.set[key] = value[:_LONGEST_VALUE]

    def dump(self):
        """What --dump-config prints."""
        return "".join("%s%s = %s\n" % ("" if key in self.set else "# ", key, self[key])
                       for key in self.defaults)


class Bindspec:
    """One place to listen on: host ("" = any), port, device ("" = any), or path of a unix socket."""

    def __init__(self, text, tls=False, key=""):
        self.text, self.tls, self.key = text, tls, key
        self.host = self.device = self.path = ""
        self.port = 0
        if text.startswith("unix:"):
            self.path = text[5:]
            return
        host, _, port = text.rpartition(":")
        if host.startswith("["):
            host, _, rest = host[1:].partition("]")
            device = rest[1:] if rest.startswith("%") else ""
            if "%" in host and not device:
                host, _, device = host.partition("%")
        else:
            host, _, device = host.partition("%")
        if not port.isdigit() or int(port) > 65535:
            raise ValueError("\"%s\" is not a valid bindspec" % text)
        self.host, self.port, self.device = "" if host == "*" else host, int(port), device


def bindspecs(config, key, tls=False):
    """The bindspecs of one setting. Raises ValueError."""
    return [Bindspec(word, tls, key) for word in config[key].split()]


def server_url(config):
    """Where the daemon's server is: ("unix", path) or ("http"|"https", host, port)."""
    text = config["server_socket"]
    if text in ("", "default:"):
        text = os.environ.get("KOPANO_SOCKET") or "file:///var/run/kopano/server.sock"
    if text.startswith("file://"):
        return ("unix", text[7:])
    if text.startswith("unix:"):
        return ("unix", text[5:])
    scheme, _, rest = text.partition("://")
    host, _, port = rest.split("/")[0].rpartition(":")
    return (scheme, host.strip("[]"), int(port))
