# SPDX-License-Identifier: GPL-2.0-or-later
"""Real servers of the protocols, each in a folder of its own, on ports that a sandbox has free."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest


class Service:
    """A server process: started with a command, ready when its ports answer, stopped by its pid."""

    def __init__(self, folder, command, ports):
        self.folder = folder
        taken = [port for port in ports if connects(port)]
        if taken:
            pytest.fail("%s can't start: somebody else listens on %s" % (command[0], taken))
        with open(os.path.join(folder, "output"), "wb") as output:
            # a session of its own: at its end Apache signals its whole process group
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            cwd=folder, start_new_session=True)
        self.pid = self.process.pid
        limit = time.monotonic() + 20
        for port in ports:
            while not connects(port):
                if self.process.poll() is not None or time.monotonic() > limit:
                    self.stop()
                    pytest.fail("%s does not start: %s" % (command[0], self.log()))
                time.sleep(0.01)

    def log(self):
        """Everything that it has written."""
        texts = []
        for name in ("output", "log"):
            try:
                with open(os.path.join(self.folder, name), errors="replace") as file:
                    texts.append(file.read())
            except OSError:
                pass
        return "".join(texts)

    def freeze(self):
        os.kill(self.pid, signal.SIGSTOP)
        limit = time.monotonic() + 20
        while self.about("stat").rpartition(")")[2].split()[0] != "T":
            if time.monotonic() > limit:
                pytest.fail("process %d does not stop:\n%s" % (self.pid, self.state()))
            time.sleep(0.001)

    def about(self, name):
        """A file of /proc about the process, or why it can't be read."""
        try:
            with open("/proc/%d/%s" % (self.pid, name)) as file:
                return file.read()
        except OSError as err:
            return str(err)

    def state(self):
        """What the kernel says the process is doing, and what it has written: for a failure's report."""
        return "\n".join([self.about(name) for name in ("status", "wchan", "stack", "syscall", "schedstat")]
                         + [self.log()])

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)


def connects(port):
    """port: a number on 127.0.0.1, or the path of a unix socket."""
    with socket.socket(socket.AF_UNIX if isinstance(port, str) else socket.AF_INET) as client:
        return not client.connect_ex(port if isinstance(port, str) else ("127.0.0.1", port))


class Services:
    """Starts servers, and stops them all at the end."""

    def __init__(self):
        self.running, self.folders = [], []

    def folder(self, owner=None):
        """A folder that servers can reach whatever user they run as."""
        made = tempfile.mkdtemp(prefix="peer-", dir="/tmp")
        os.chmod(made, 0o755)
        if owner:
            shutil.chown(made, owner)
        self.folders.append(made)
        return made

    def start(self, folder, command, ports, needs=()):
        for program in (command[0],) + tuple(needs):
            if not shutil.which(program):
                pytest.skip("no %s here" % program)
        self.running.append(Service(folder, list(command), ports))
        return self.running[-1]

    def end(self):
        for service in reversed(self.running):
            service.stop()
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def write(folder, name, text, mode=0o644):
    """A file in a folder; its path."""
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path
