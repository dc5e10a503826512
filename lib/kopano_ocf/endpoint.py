# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a service listens or is reached: one address with its protocol."""

PROTOCOLS = ("soap", "lmtp", "imap", "pop3", "caldav")

# What a URL's scheme means: protocol ("" = the agent's own), TLS.
_SCHEMES = {
    "http": ("", False), "https": ("", True), "unix": ("", False),
    "lmtp": ("lmtp", False),
    "imap": ("imap", False), "imaps": ("imap", True),
    "pop3": ("pop3", False), "pop3s": ("pop3", True),
}
_DEFAULT_PORTS = {
    ("soap", False): 236, ("soap", True): 237, ("lmtp", False): 2003,
    ("imap", False): 143, ("imap", True): 993, ("pop3", False): 110, ("pop3", True): 995,
    ("caldav", False): 8080, ("caldav", True): 8443,
}
ANY = ("", "*", "0.0.0.0", "::")


class Endpoint:
    """One place to connect to.

    protocol  one of PROTOCOLS
    tls       True when TLS is spoken from the first byte
    host      an address, a name, or one of ANY; "" for a unix socket
    port      1..65535; 0 for a unix socket
    path      the unix socket's path, else ""
    device    network device that the listener is bound to (Kopano's %iface), else ""
    """

    __slots__ = ("protocol", "tls", "host", "port", "path", "device")

    def __init__(self, protocol, tls=False, host="", port=0, path="", device=""):
        # type: (str, bool, str, int, str, str) -> None
        self.protocol, self.tls = protocol, tls
        self.host, self.port, self.path, self.device = host, port, path, device

    def __eq__(self, other):
        return isinstance(other, Endpoint) and str(self) == str(other)

    def __hash__(self):
        return hash(str(self))

    def __repr__(self):
        return "Endpoint(%s)" % self

    def __str__(self):
        """The endpoint as a URL; parse() reads it back."""
        if self.path:
            return "%s+unix:%s" % (self.protocol, self.path)
        host = self.host or "*"
        if ":" in host:
            host = "[%s]" % host
        return "%s://%s%s:%d" % (self.scheme, host, "%" + self.device if self.device else "", self.port)

    @property
    def scheme(self):
        """URL scheme a person knows: http, https, lmtp, imap, imaps, pop3, pop3s."""
        if self.protocol in ("soap", "caldav"):
            return "https" if self.tls else "http"
        return self.protocol + ("s" if self.tls else "")

    @property
    def addresses(self):
        """Hosts to try in turn; a wildcard is reached through loopback."""
        if self.path:
            return ()
        if self.host == "0.0.0.0":
            return ("127.0.0.1",)
        if self.host == "::":
            return ("::1", "127.0.0.1")
        if self.host in ANY:
            return ("127.0.0.1", "::1")
        return (self.host,)


def parse(text, protocol):
    # type: (str, str) -> Endpoint
    """Read one URL of the `listen` parameter (or of our own state files).

    protocol is what http, https and unix mean to the asking agent.
    Raises ValueError with one clear line.
    """
    if "+unix:" in text:
        protocol, _, path = text.partition("+unix:")
        if protocol not in PROTOCOLS:
            raise ValueError("'%s': unknown protocol '%s'" % (text, protocol))
        if path.startswith("/"):
            return Endpoint(protocol, path=path)
        text = "unix:" + path
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in _SCHEMES:
        raise ValueError("'%s': not one of %s" % (text, " ".join(s + ":" for s in sorted(_SCHEMES))))
    own, tls = _SCHEMES[scheme]
    protocol = own or protocol
    if "\0" in rest or any(c.isspace() for c in rest):
        raise ValueError("'%s': white space or a NUL byte in it" % text.replace("\0", "\\0"))
    if scheme == "unix":
        path = rest[2:] if rest.startswith("//") else rest
        if not path.startswith("/"):
            raise ValueError("'%s': a unix socket needs an absolute path, as unix:/run/kopano/server.sock"
                             % text)
        return Endpoint(protocol, path=path)
    if not rest.startswith("//"):
        raise ValueError("'%s': '//' missing after '%s:'" % (text, scheme))
    host, port, device = host_port(rest[2:].split("/", 1)[0], text)
    return Endpoint(protocol, tls, host, port or _DEFAULT_PORTS[protocol, tls], device=device)


def host_port(place, text):
    # type: (str, str) -> tuple
    """Split ADDR[%DEVICE][:PORT] or [V6][%DEVICE][:PORT] into (host, port or 0, device)."""
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or ":" not in host:
            raise ValueError("'%s': bad IPv6 address" % text)
        if "%" in host:
            host, _, device = host.partition("%")
            rest = "%" + device + rest
        rest, _, port = rest.partition(":")
        device = rest[1:]
        if rest and (not rest.startswith("%") or not device):
            raise ValueError("'%s': '%s' after ']' is not :PORT" % (text, rest))
    else:
        if place.count(":") > 1:
            raise ValueError("'%s': an IPv6 address needs brackets, as [::1]:236" % text)
        host, colon, port = place.partition(":")
        host, percent, device = host.partition("%")
        if colon and not port:
            raise ValueError("'%s': no port after ':'" % text)
        if percent and not device:
            raise ValueError("'%s': no device after '%%'" % text)
    if not host:
        raise ValueError("'%s': no host" % text)
    number = 0
    if port:
        # str.isdigit() would let digits of other scripts pass
        if not port.encode("utf-8", "replace").isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
            raise ValueError("'%s': port '%s' is not 1..65535" % (text, port))
        number = int(port)
    return ("*" if host == "*" else host), number, device


def parse_list(text, protocol):
    # type: (str, str) -> list
    """Read a blank-separated list of URLs; raises ValueError, also when there is none."""
    found = [parse(word, protocol) for word in text.split()]
    if not found:
        raise ValueError("no endpoint in '%s'" % text)
    return found
