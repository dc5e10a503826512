#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""PID 1 of a virtual machine of the lab (/sbin/lab-init), in place of systemd, which takes longer to boot here.

The kernel's command line says who it is: lab.name=bob lab.number=25, and lab.cluster=1 when the cluster
software is to start. It mounts what a boot mounts, sets up the network, starts an agent for the lab and
collects orphans, for ever.

The agent answers the lab on a virtio port, one line of JSON a message, many at a time:

    lab -> {"id": 1, "command": "uptime", "input": "", "timeout": 60}
        <- {"id": 1, "code": 0, "output": "..."}
        <- {"id": "bmc-1", "order": "status bob"}           what a fence agent asked at /lab/bmc.sock
    lab -> {"id": "bmc-1", "answer": "on"}
"""
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import threading

PORT = "agent"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8", "TERM": "dumb"}
MOUNTS = """\
proc /proc proc
sysfs /sys sysfs
devpts /dev/pts devpts
tmpfs /dev/shm tmpfs
tmpfs /run tmpfs mode=755
tmpfs /tmp tmpfs
cgroup2 /sys/fs/cgroup cgroup2
"""
LINKS = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"}
# What systemd would create for its units and tmpfiles: path -> (mode, owner:group).
DIRECTORIES = {
    "/run/lock": ("1777", "root:root"),
    "/run/lock/apache2": ("755", "www-data:root"),
    "/run/crm": ("750", "hacluster:haclient"),
    "/run/mysqld": ("755", "mysql:mysql"),
    "/run/resource-agents": ("1755", "root:root"),
    "/lab": ("755", "root:root"),
}


def call(*words, **options):
    """Run a program; an error is seen on the console and stops nothing."""
    return subprocess.run(words, env=ENVIRONMENT, check=False, **options)


def build_system():
    """Mount, name the machine, set up its network. Returns the words of the kernel's command line."""
    for line in MOUNTS.splitlines():
        source, target, kind, *options = line.split()
        os.makedirs(target, exist_ok=True)
        call("mount", "-t", kind, *(["-o", options[0]] if options else []), source, target)
    with open("/proc/cmdline") as file:
        words = dict(word.split("=", 1) for word in file.read().split() if "=" in word)
    name, number = words["lab.name"], words["lab.number"]
    socket.sethostname(name)
    with open("/etc/hostname", "w") as file:
        file.write(name + "\n")
    for path, target in LINKS.items():
        os.symlink(target, path)
    for path, (mode, owner) in DIRECTORIES.items():
        os.makedirs(path, exist_ok=True)
        call("chmod", mode, path)
        call("chown", owner, path)
    for entry in os.listdir("/sys/class/virtio-ports"):
        with open(f"/sys/class/virtio-ports/{entry}/name") as file:
            if file.read().strip() == PORT:
                os.symlink(f"/dev/{entry}", f"/run/{PORT}")
    call("ip", "-batch", "-", text=True, input=f"""\
link set lo up
addr add 192.168.122.{number}/24 brd + dev eth0
link set eth0 up
addr add 10.0.0.{number}/24 brd + dev eth1
link set eth1 up
""")
    return words


class Agent:
    """The lab's hand in the machine."""

    def __init__(self):
        self.port = os.open(f"/run/{PORT}", os.O_RDWR)
        self.writing = threading.Lock()
        self.numbers = itertools.count(1)
        self.orders = {}                    # id of an order to the BMC -> queue for its answer

    def send(self, message):
        """One message to the lab."""
        data = json.dumps(message).encode() + b"\n"
        with self.writing:
            while data:
                data = data[os.write(self.port, data):]

    def serve(self):
        """Obey the lab, for ever."""
        threading.Thread(target=self.keep_syslog, daemon=True).start()
        threading.Thread(target=self.pass_orders, daemon=True).start()
        self.send({"id": 0})                # up
        data = b""
        while True:
            data += os.read(self.port, 65536)
            *lines, data = data.split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "answer" in message:
                    self.orders.pop(message["id"]).put(message["answer"])
                else:
                    threading.Thread(target=self.run, args=(message,), daemon=True).start()

    def run(self, message):
        """A command of the lab's."""
        words = message["command"]
        words = ["sh", "-c", words] if isinstance(words, str) else words
        try:
            done = subprocess.run(words, env=ENVIRONMENT, cwd="/root", input=message["input"].encode(), check=False,
                                  timeout=message["timeout"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            code, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as error:
            code, output = 124, error.stdout or b""
        except OSError as error:
            code, output = 127, str(error).encode()
        self.send({"id": message["id"], "code": code, "output": output.decode(errors="replace")})

    def pass_orders(self):
        """Be the BMC's socket: hand each line over to the lab."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("/lab/bmc.sock")
        listener.listen(8)
        while True:
            threading.Thread(target=self.pass_order, args=listener.accept()[:1], daemon=True).start()

    def pass_order(self, connection):
        """One order of a fence agent, and the lab's answer."""
        with connection:
            number, answer = f"bmc-{next(self.numbers)}", queue.Queue()
            self.orders[number] = answer
            try:
                order = connection.makefile().readline().strip()
                self.send({"id": number, "order": order})
                connection.sendall(answer.get().encode() + b"\n")
            except OSError:
                pass                        # the fence agent was killed: nobody listens

    @staticmethod
    def keep_syslog():
        """Write what arrives at /dev/log to /var/log/syslog."""
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        with open("/var/log/syslog", "ab", buffering=0) as log:
            while True:
                log.write(receiver.recv(65536).rstrip(b"\0\n") + b"\n")


def main():
    """Boot."""
    os.umask(0o022)
    words = build_system()
    if os.path.lexists("/lab/bmc.sock"):
        os.unlink("/lab/bmc.sock")          # of the life before
    if os.fork() == 0:
        os.setsid()
        Agent().serve()
    if words.get("lab.cluster") == "1":
        subprocess.Popen(["lab-cluster", "start"], env=ENVIRONMENT, stdin=subprocess.DEVNULL, cwd="/")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.pause()                  # nobody left to wait for: the lab has to switch us off


if __name__ == "__main__":
    main()
