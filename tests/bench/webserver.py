# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's Apache with PHP and mod_status on port 80 of the sandbox, and a login page like WebApp's."""
import contextlib
import glob
import os
import signal
import subprocess
import urllib.request

from world import wait_for

CONFIGURATION = """
ServerRoot /etc/apache2
ServerName localhost
PidFile {run}/apache.pid
DefaultRuntimeDir {run}
Mutex file:{run} default
ErrorLog {run}/error.log
Listen 127.0.0.1:80
User www-data
Group www-data
{modules}
DirectoryIndex index.php
DocumentRoot {run}/htdocs
<Directory {run}/htdocs>
    Require all granted
</Directory>
<FilesMatch "\\.php$">
    SetHandler application/x-httpd-php
</FilesMatch>
<Location /server-status>
    SetHandler server-status
    Require local
</Location>
"""
PAGE = """<?php header('Content-Type: text/html; charset=utf-8'); $title = 'Kopano WebApp'; ?>
<!DOCTYPE html><html><head><title><?= $title ?></title></head><body class="login">
<form action="index.php?logon" method="post"><input type="text" name="username" id="username">
<input type="password" name="password" id="password"><input type="submit" id="submitbutton"></form>
</body></html>
"""


@contextlib.contextmanager
def apache(run="/run/bench-apache"):
    """Apache runs while this context does: its main process, which leads a session."""
    os.makedirs(run + "/htdocs/webapp")
    with open(run + "/htdocs/webapp/index.php", "w") as page:
        page.write(PAGE)
    wanted = ["mpm_prefork", "authz_core", "authz_host", "dir", "mime", "status"]
    wanted.append(os.path.basename(glob.glob("/etc/apache2/mods-available/php*.load")[0])[:-5])
    modules = "\n".join("Include mods-available/%s.load" % name for name in wanted)
    with open(run + "/apache.conf", "w") as file:
        file.write(CONFIGURATION.format(run=run, modules=modules + "\nTypesConfig /etc/mime.types"))
    process = subprocess.Popen(["apache2", "-D", "FOREGROUND", "-f", run + "/apache.conf"],
                               stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: process.poll() is not None or _serves(), 20, "Apache does not serve")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)


def _serves():
    try:
        with urllib.request.urlopen("http://localhost/webapp/", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
