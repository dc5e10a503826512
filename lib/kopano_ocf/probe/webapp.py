# SPDX-License-Identifier: GPL-2.0-or-later
"""Kopano WebApp: its page, a login through it, and Apache's own status.

A web page may come drop by drop, never end, or send a regular expression astray; name resolution may hang.
So the work is done in a child process, and the child is killed when its time is over.
"""

import os
import time

from kopano_ocf.talk import (
    CERTIFICATE, CLOSED, DENIED, FINE, NONSENSE, REFUSED, SILENT, UNAVAILABLE, UNREACHABLE, Seen)

MYPY = False
if MYPY:
    from typing import Any, Callable, Optional, Union  # noqa: F401

# WebApp's texts are translated and its title is the administrator's: the names of the fields are neither
LOGIN_FORM = r"""(?is)<input\b[^>]*\bname=["']?username\b.*<input\b[^>]*\bname=["']?password\b"""
BROKEN = "<h1>Invalid configuration</h1>"
_PAGE = 2 << 20         # bytes of a page that are read
_MEMORY = 1 << 30       # bytes of address space for the child
_REDIRECTS = 5


def page(url, match, deadline, ca_file=None, tls_verify=True):
    # type: (str, Optional[str], float, Optional[str], bool) -> Seen
    """Is WebApp's page a healthy one?

    match       regular expression, searched (with ^ and $ at each line) in the status line, the headers as
                "Name: value" and the body; None, "" or LOGIN_FORM: status 200 and a login form.  With an
                expression of one's own every status below 500 can be healthy, and a redirection that
                matches is not followed.
    deadline    time.monotonic() by which it returns
    Other redirections are followed, to the same host whatever name they give it: a front end's name may lead
    to another node.  A page saying 'Invalid configuration' is never healthy.  Proxies of the environment are
    ignored.
    Raises ImportError when requests is not installed.
    """
    return _bounded(lambda browser: _page(browser, url, match), url, deadline, ca_file, tls_verify)


def status(url, deadline, ca_file=None, tls_verify=True):
    # type: (str, float, Optional[str], bool) -> Seen
    """Has Apache a worker to spare?  url: mod_status, ending with ?auto.

    data: busy, idle.  UNAVAILABLE when all workers are busy and no more can be started.
    Raises ImportError when requests is not installed.
    """
    return _bounded(lambda browser: _status(browser, url), url, deadline, ca_file, tls_verify)


def login(url, user, password, deadline, ca_file=None, tls_verify=True):
    # type: (str, Union[str, bytes], Union[str, bytes], float, Optional[str], bool) -> Seen
    """Log in through WebApp's form and out again.  user and password: str or bytes.

    DENIED, UNAVAILABLE (WebApp does not reach its server).  The password gets into no message.
    Raises ImportError when requests is not installed.
    """
    return _bounded(lambda browser: _login(browser, url, user, password), url, deadline, ca_file, tls_verify)


# -- the child and its time

def _bounded(work, url, deadline, ca_file, tls_verify):
    # type: (Callable[[Any], Seen], str, float, Optional[str], bool) -> Seen
    import marshal
    import select
    _load_requests()
    started = time.monotonic()
    mine, its = os.pipe()
    child = 0
    try:
        child = os.fork()
        if not child:
            os.close(mine)
            _in_child(work, url, deadline, ca_file, tls_verify, its)
        os.close(its)
        its = -1
        heard = b""
        waiting_for = "the web server"
        ended = False
        while not ended:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([mine], [], [], left)[0]:
                return Seen(SILENT, "no answer within %.1f s: waited for %s" % (
                    time.monotonic() - started, waiting_for), time.monotonic() - started)
            piece = os.read(mine, 65536)
            heard += piece
            ended = not piece
            while len(heard) > 3 and len(heard) >= 4 + int.from_bytes(heard[:4], "big"):
                size = 4 + int.from_bytes(heard[:4], "big")
                how, words, data = marshal.loads(heard[4:size])
                heard = heard[size:]
                if how:
                    return Seen(how, words, time.monotonic() - started, data)
                waiting_for = words
        return Seen(NONSENSE, "the check died while waiting for %s" % waiting_for, time.monotonic() - started)
    finally:
        os.close(mine)
        if its >= 0:
            os.close(its)
        if child:
            try:
                os.kill(child, 9)
                os.waitpid(child, 0)
            except OSError:
                # reaped by someone who ignores SIGCHLD
                pass


def _load_requests():
    # Loaded before the children are made, so only once
    import sys
    import warnings
    from kopano_ocf.process import site_packages
    site_packages()
    if "requests" in sys.modules:
        return
    with warnings.catch_warnings():
        # about versions of what guesses character sets, which is not needed here; but the first choice for
        # that, chardet, is a sixth of what requests costs
        warnings.simplefilter("ignore")
        sys.modules.setdefault("chardet", None)     # type: ignore
        try:
            import requests     # noqa: F401
        except ImportError:
            if sys.modules["chardet"]:
                raise
            # no second choice is installed
            del sys.modules["chardet"]
            import requests     # noqa: F401
        if not sys.modules["chardet"]:
            del sys.modules["chardet"]


def _in_child(work, url, deadline, ca_file, tls_verify, pipe):
    # Never returns
    try:
        import marshal
        import resource
        import signal
        import warnings
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # should the parent be killed, this one ends too
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0) + 0.5)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")

        def tell(how, words, data=None):
            message = marshal.dumps((how, words, data))
            os.write(pipe, len(message).to_bytes(4, "big") + message)

        browser = None
        try:
            browser = _Browser(url, deadline, ca_file, tls_verify, tell)
            seen = work(browser)
            if seen.how == FINE and browser.wrong:
                seen = Seen(CERTIFICATE, browser.wrong, data=seen.data)
        except _Problem as e:
            seen = e.seen
        except MemoryError:
            seen = Seen(NONSENSE, "the answer is endless")
        except Exception as e:      # pylint: disable=broad-except
            # whatever a library may make of a stranger's bytes
            seen = _judge(e, bool(browser and browser.secret))
            if seen.how == SILENT and browser:
                # its own clock ran out a moment before the parent's
                seen = Seen(SILENT, "no answer in time: waited for %s" % browser.waiting_for)
        tell(seen.how, seen.words, seen.data)
    finally:
        os._exit(0)


class _Problem(Exception):
    def __init__(self, how, words):
        # type: (str, str) -> None
        Exception.__init__(self, words)
        self.seen = Seen(how, words)


# -- in the child

class _Browser:
    """A session with the web server of one URL's host.

    waiting_for  what was asked for last
    wrong        what is wrong with the dates of a certificate that was not verified, ""
    secret       set once a password was sent: nothing that the server says is repeated any more
    """

    def __init__(self, url, deadline, ca_file, tls_verify, tell):
        from urllib.parse import urlsplit
        import requests
        import urllib3.connectionpool   # type: ignore
        self.deadline, self.tell = deadline, tell
        self.waiting_for = "the web server"
        self.wrong = ""
        self.secret = False
        try:
            home = urlsplit(url).hostname
            if not home:
                raise ValueError
        except ValueError:
            raise _Problem(UNREACHABLE, "'%s' is not a URL of a web page" % _plain(url))
        self.session = requests.Session()
        # no proxy, no netrc, no CA bundle from the environment
        self.session.trust_env = False      # noqa: V101
        self.session.verify = (ca_file or True) if tls_verify else False
        self.session.headers.update({
            "User-Agent": "kopano-ocf", "Accept": "text/html, */*", "Accept-Encoding": "identity"})

        from urllib3.util import connection     # type: ignore
        connect = connection.create_connection

        def connect_home(address, *words, **named):
            return connect((home, address[1]), *words, **named)

        connection.create_connection = connect_home
        browser = self

        class Unverified(urllib3.connectionpool.HTTPSConnectionPool.ConnectionCls):
            def connect(self):
                # else all of the system's CAs are read, to no avail
                self.ssl_context = urllib3.util.ssl_.create_urllib3_context(cert_reqs=0)  # noqa: V101
                super(Unverified, self).connect()
                from kopano_ocf import tls
                browser.wrong = tls.judge(self.sock.getpeercert(True) or b"", time.time())

        if not tls_verify:
            urllib3.connectionpool.HTTPSConnectionPool.ConnectionCls = Unverified

    def ask(self, method, url, what, form=None):
        """One request: (response, body as text)."""
        self.waiting_for = what
        self.tell("", what)
        # requests counts this for each read(); the parent counts for all
        left = max(self.deadline - time.monotonic(), 0.01)
        response = self.session.request(
            method, url, data=form, allow_redirects=False, stream=True, timeout=(left, left))
        body = b""
        if response.is_redirect:
            body = response.content
        else:
            for piece in response.raw.stream(65536, decode_content=False):
                body += piece
                if len(body) > _PAGE:
                    raise _Problem(NONSENSE, "the page is longer than %d MiB" % (_PAGE >> 20))
        response.close()
        return response, body.decode("utf-8", "replace")

    def follow(self, response, text, what, done=None):
        """Follow redirections from a response, as long as done(response, text) is not true."""
        from urllib.parse import urljoin
        for _ in range(_REDIRECTS):
            if not response.is_redirect or done and done(response, text):
                return response, text
            response, text = self.ask("GET", urljoin(response.url, response.headers["location"]), what)
        if response.is_redirect and not (done and done(response, text)):
            raise _Problem(NONSENSE, "more than %d redirections" % _REDIRECTS)
        return response, text

    def get(self, url, what, done=None):
        """GET a page: (response, body as text)."""
        response, text = self.ask("GET", url, what)
        return self.follow(response, text, what, done)


def _page(browser, url, match):
    # type: (_Browser, str, Optional[str]) -> Seen
    import re
    own = match not in (None, "", LOGIN_FORM)
    try:
        wanted = re.compile(match if match and own else LOGIN_FORM, re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as e:
        return Seen(NONSENSE, "match: not a regular expression: %s" % e)

    def matches(response, text):
        browser.tell("", "the regular expression in match to be tried on the page")
        version = {10: "1.0", 11: "1.1"}.get(response.raw.version, "?")
        whole = "HTTP/%s %d %s\n%s\n\n%s" % (
            version, response.status_code, response.reason,
            "\n".join("%s: %s" % pair for pair in response.raw.headers.items()), text)
        return bool(wanted.search(whole))

    response, text = browser.get(url, "the page %s" % _plain(url), matches if own else None)
    line = _line(response)
    if BROKEN in text:
        return Seen(NONSENSE, "%s, but WebApp says 'Invalid configuration': %s" % (line, _finding(text)))
    if response.status_code >= 500:
        return Seen(UNAVAILABLE if response.status_code == 503 else NONSENSE, line)
    if own:
        if matches(response, text):
            return Seen(FINE, "%s, as match demands" % line)
        return Seen(NONSENSE, "%s%s, but match does not match" % (line, _title(text)))
    if response.status_code == 400 and response.url.startswith("http:"):
        # index.php with SECURE_COOKIES true (INSECURE_COOKIES false before 5.0), where nothing redirects
        return Seen(NONSENSE, "%s: WebApp may refuse plain http (SECURE_COOKIES); "
                    "set url to its https address" % line)
    if response.status_code != 200:
        return Seen(NONSENSE, "%s%s" % (line, _title(text)))
    if wanted.search(text):
        return Seen(FINE, "%s, with the login form" % line)
    return Seen(NONSENSE, "%s%s, but no login form" % (line, _title(text)))


def _status(browser, url):
    # type: (_Browser, str) -> Seen
    response, text = browser.get(url, "Apache's status %s" % _plain(url))
    if response.status_code != 200:
        return Seen(NONSENSE, _line(response))
    found = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if colon:
            found[name] = value.strip()
    numbers = [found.get(name, "") for name in ("BusyWorkers", "IdleWorkers")]
    # digits of other scripts are none
    if not all(number and not number.strip("0123456789") and len(number) < 10 for number in numbers):
        return Seen(NONSENSE, "%s%s, but no mod_status report (does the URL end with ?auto)?" % (
            _line(response), _title(text)))
    busy, idle = (int(number) for number in numbers)
    words = "%d workers busy, %d idle" % (busy, idle)
    # a dot is a slot in which Apache may start another worker
    if not idle and "." not in found.get("Scoreboard", ""):
        return Seen(UNAVAILABLE, words, data={"busy": busy, "idle": idle})
    return Seen(FINE, words, data={"busy": busy, "idle": idle})


# get_mapi_error_name() in the header X-Zarafa-Hresult, which WebApp sends with the form after a failed login
_ERRORS = (
    ("MAPI_E_NETWORK_ERROR", UNAVAILABLE, "WebApp does not reach its server"),
    ("MAPI_E_LOGON_FAILED", DENIED, "login refused"),
    ("MAPI_E_UNCONFIGURED", DENIED, "login refused"),
    ("MAPI_E_WEBAPP_FEATURE_DISABLED", DENIED, "this user may not use WebApp"),
)


def _login(browser, url, user, password):
    # type: (_Browser, str, Union[str, bytes], Union[str, bytes]) -> Seen
    import re
    from urllib.parse import urljoin
    form = re.compile(LOGIN_FORM)
    response, text = browser.get(url, "the login page %s" % _plain(url))
    if BROKEN in text or response.status_code != 200 or not form.search(text):
        return Seen(NONSENSE, "%s%s, no login form to log in with" % (_line(response), _title(text)))
    start = response.url
    browser.secret = True
    response, text = browser.ask(
        "POST", urljoin(start, "?logon"), "the answer to the login", {"username": user, "password": password})
    response, text = browser.follow(response, text, "the page after the login")
    why = response.headers.get("X-Zarafa-Hresult", "")
    for name, how, words in _ERRORS:
        if name in why:
            return Seen(how, "%s (%s)" % (words, name))
    if response.status_code >= 500:
        return Seen(UNAVAILABLE, "HTTP status %d after the login" % response.status_code)
    if response.status_code != 200:
        return Seen(NONSENSE, "HTTP status %d after the login" % response.status_code)
    if form.search(text):
        if why or "Cannot connect to" in text:
            return Seen(UNAVAILABLE, "login not possible, WebApp reports an error of its server")
        return Seen(DENIED, "login refused")
    try:
        browser.ask("GET", urljoin(start, "?logout"), "the logout")
    except Exception:       # pylint: disable=broad-except
        # the login has told what there is to know
        pass
    return Seen(FINE, "WebApp login and logout")


def _judge(error, secret):
    # type: (Exception, bool) -> Seen
    # requests wraps urllib3's errors, those http.client's and the socket's: the innermost says most
    import errno
    import http.client
    import socket
    import ssl
    import requests
    chain = []      # type: list
    rest = [error]  # type: list
    while rest and len(chain) < 20:
        one = rest.pop(0)
        if one in chain or not isinstance(one, BaseException):
            continue
        chain.append(one)
        rest += [getattr(one, "reason", None), one.__cause__, one.__context__]
        rest += [word for word in one.args if isinstance(word, BaseException)]
    text = "" if secret else _plain(str(chain[-1]))
    for one in chain:
        if isinstance(one, ssl.SSLError):
            reason = _plain(getattr(one, "verify_message", "") or getattr(one, "reason", None) or "TLS error")
            if "CERTIFICATE" in str(one).upper():
                return Seen(CERTIFICATE, "certificate not trusted: %s" % reason)
            return Seen(NONSENSE, "TLS: %s" % reason.replace("_", " ").lower())
        # urllib3 brings one of its own
        if type(one).__name__ == "CertificateError":
            return Seen(CERTIFICATE, "certificate not trusted: it is for another host name")
    for one in chain:
        if isinstance(one, socket.gaierror):
            return Seen(UNREACHABLE, "host name not found: %s" % one.strerror)
        if isinstance(one, http.client.RemoteDisconnected):
            return Seen(CLOSED, "connection closed before the answer")
        if isinstance(one, http.client.IncompleteRead):
            return Seen(CLOSED, "connection closed before the page was complete")
        if isinstance(one, http.client.HTTPException):
            words = "" if secret else _plain(str(one))
            return Seen(NONSENSE, ("not HTTP: %s %s" % (type(one).__name__, words)).rstrip())
    for one in chain:
        number = getattr(one, "errno", None)
        if number == errno.ECONNREFUSED:
            return Seen(REFUSED, "connection refused")
        if number in (errno.ECONNRESET, errno.EPIPE):
            return Seen(CLOSED, "connection reset")
        if number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL):
            return Seen(UNREACHABLE, os.strerror(number))
    if any(isinstance(one, (requests.exceptions.Timeout, socket.timeout)) for one in chain):
        return Seen(SILENT, "no answer in time")
    if any("CA certificate bundle" in str(one) for one in chain):
        return Seen(CERTIFICATE, "ca_file can't be read")
    return Seen(NONSENSE, "%s %s" % (type(error).__name__, text))


def _line(response):
    return ("HTTP status %d %s" % (response.status_code, _plain(response.reason or ""))).rstrip()


def _title(text):
    # type: (str) -> str
    start = text.lower().find("<title>")
    if start < 0:
        return ""
    return " '%s'" % _plain(text[start + 7:start + 200].partition("<")[0].strip())


def _finding(text):
    # type: (str) -> str
    # what stands below that heading, without its tags
    import re
    return _plain(" ".join(re.sub(r"<[^<>]*>", " ", text.partition(BROKEN)[2][:2000]).split()), 200)


def _plain(text, limit=100):
    # type: (str, int) -> str
    return "".join(c if " " <= c < "\x7f" else "." for c in text[:limit])
