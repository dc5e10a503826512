# SPDX-License-Identifier: GPL-2.0-or-later
"""What every other test relies on: a sandbox is a machine of its own, and nothing of it is left behind."""
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

import sandbox
from world import wait_for


def inside(script, *words, **more):
    """A Python script in a sandbox within this one; returns the Popen object."""
    return subprocess.Popen([sys.executable, sandbox.__file__, sys.executable, "-c", script, *words],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def said(script, *words, **more):
    """What the script printed; it must end well."""
    process = inside(script, *words, **more)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    return out.strip()


def test_default_ports_are_free_for_both_families():
    script = """import socket
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    for port in (110, 143, 236, 237, 993, 995, 2003, 3306, 8080):
        with socket.socket(family) as sock:
            sock.bind((address, port))
print("all")"""
    assert said(script) == "all"


def test_the_loopback_is_the_whole_network():
    with open("/proc/net/dev") as table:
        assert [line.split(":")[0].strip() for line in table.readlines()[2:]] == ["lo"]


def test_two_sandboxes_do_not_meet():
    with socket.socket() as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        mine.bind(("127.0.0.1", 236))
        for path in ("/tmp/x", "/run/x", "/etc/kopano/x", "/var/tmp/x", "/dev/x", "/dev/shm/x", "/usr/lib/ocf/x"):
            script = ("import os, socket, sys; socket.socket().bind(('127.0.0.1', 236)); open(sys.argv[1], 'w');"
                      "print(sorted(int(n) for n in os.listdir('/proc') if n.isdigit()), os.getsid(0))")
            assert said(script, path) == "[1, 2] 2"
            assert not os.path.exists(path)


def test_there_is_a_user_kopano_and_its_directories():
    kopano = pwd.getpwnam("kopano")
    assert 0 < kopano.pw_uid < 1000 and kopano.pw_shell == "/usr/sbin/nologin"
    for path, owner, mode in (("/etc/kopano", 0, 0o755), ("/var/lib/kopano", kopano.pw_uid, 0o755),
                              ("/run/resource-agents", 0, 0o1755)):
        assert (os.stat(path).st_uid, os.stat(path).st_mode & 0o7777) == (owner, mode)


def test_orphans_are_reaped():
    ended = subprocess.run(["sh", "-c", "sleep 0.01 >/dev/null & echo $!"], capture_output=True, text=True, check=True)
    wait_for(lambda: not os.path.exists("/proc/" + ended.stdout.strip()), 5, "a zombie is left")


@pytest.mark.parametrize("script, code", [
    ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137), ("", 0)])
def test_the_exit_code_is_the_commands(script, code):
    assert inside(script).wait(30) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(number):
    process = inside("import signal, sys\n"
                     "signal.signal(int(sys.argv[1]), lambda *_: sys.exit(3))\n"
                     "print('ready', flush=True)\n"
                     "while True: signal.pause()", str(int(number)))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(30) == 3


def test_nothing_outlives_the_sandbox():
    """Not even what hides in a session of its own and ignores signals; however the sandbox ends."""
    for how in ("ends", "is killed"):
        process = inside("import subprocess, sys, time\n"
                         "subprocess.Popen(['setsid', 'sh', '-c', 'trap \"\" TERM HUP; exec sleep 7654.321'])\n"
                         "print('ready', flush=True)\n"
                         "time.sleep(60 if sys.argv[1] == 'is killed' else 0.2)", how)
        assert process.stdout.readline() == "ready\n"
        wait_for(sleepers, 5, "the process inside is not there")
        if how == "is killed":
            process.kill()
        process.wait(30)
        wait_for(lambda: not sleepers(), 5, "a process outlived its sandbox, which " + how)


def sleepers():
    """Processes that sleep 7654.321 seconds, seen from here."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                if file.read() == b"sleep\0007654.321\0":
                    found.append(pid)
        except OSError:
            pass
    return found


@pytest.mark.parametrize("top", ["/tmp", "/root", "/srv"])
def test_a_checkout_is_visible_wherever_it_is_and_for_everybody(top):
    with tempfile.TemporaryDirectory(dir=top) as folder:        # which only root may enter
        os.mkdir(folder + "/tests")
        copy = shutil.copy(sandbox.__file__, folder + "/tests/sandbox.py")
        os.symlink("tests", folder + "/link")
        script = ("import os; print(os.getcwd()); open('tests/written', 'w');"
                  "os.setuid(65534); print(sorted(os.listdir('%s')), os.path.exists('link/written'))" % folder)
        done = subprocess.run([sys.executable, copy, sys.executable, "-c", script], cwd=folder, timeout=30,
                              capture_output=True, text=True, check=True)
        assert done.stdout == "%s\n['link', 'tests'] True\n" % folder
        assert os.path.exists(folder + "/tests/written")


def test_it_is_quick():
    """Each worker makes one, and some tests do."""
    begin = time.monotonic()
    said("")
    assert time.monotonic() - begin < 5
