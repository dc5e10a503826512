# SPDX-License-Identifier: GPL-2.0-or-later
"""WebApp's login page and Apache's status on port 80, from a few lines: where neither is the matter."""
import contextlib
import http.server
import threading

LOGIN = b"""<html><body class="login"><form action="index.php" method="post">
<input type="text" name="username" id="username">
<input type="password" name="password" id="password"></form></body></html>"""
STATUS = b"Total Accesses: 1\nBusyWorkers: 1\nIdleWorkers: 9\nScoreboard: W_________\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """GET of the two pages."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """One of the pages, or 404."""
        kind, body = {"/webapp/": ("text/html", LOGIN),
                      "/server-status?auto": ("text/plain", STATUS)}.get(self.path, ("text/plain", b""))
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words):
        """Nothing."""


@contextlib.contextmanager
def served(port=80):
    """The pages are there while this context is."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
