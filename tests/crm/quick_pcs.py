# SPDX-License-Identifier: GPL-2.0-or-later
"""pcs, imported once for many commands: a .pcs script of twenty of them takes seconds, not half a minute.

It is the installed pcs, run with the arguments and in a process of its own each time; only Python's start and the
import are saved. Server() listens, and its folder `bin` has a `pcs` that asks it.
"""
import array
import json
import os
import signal
import socket
import sys

ASK = """\
#!/usr/bin/python3 -IS
import array, json, os, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect({path!r})
asked.sendmsg([json.dumps([os.getcwd(), sys.argv[1:]]).encode()],
              [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1, 2]))])
sys.exit(int(asked.recv(16) or b"70"))
"""


class Server:
    """`with Server(folder) as server: subprocess.run(..., env={"PATH": f"{server.bin}:..."})`."""

    def __init__(self, folder):
        self.path, self.bin = f"{folder}/pcs.socket", f"{folder}/bin"
        os.makedirs(self.bin)
        with open(f"{self.bin}/pcs", "w") as script:
            script.write(ASK.format(path=self.path))
        os.chmod(f"{self.bin}/pcs", 0o755)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.path)
        self._listening.listen(8)

    def __enter__(self):
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _serve(self._listening)
            finally:
                os._exit(1)
        self._listening.close()
        return self

    def __exit__(self, *_):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _serve(listening):
    sys.path = [place for place in sys.path if place] + ["/usr/lib/python3/dist-packages"]
    from pcs import app
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asked, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(_answer(asked, app))
        asked.close()


def _answer(asked, app):
    words, ancillary, _, _ = asked.recvmsg(1 << 16, socket.CMSG_SPACE(8))
    descriptors = array.array("i", ancillary[0][2])
    folder, arguments = json.loads(words)
    os.chdir(folder)
    for place, descriptor in zip((1, 2), descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    sys.stdout, sys.stderr = (open(place, "w", closefd=False) for place in (1, 2))
    code = 0
    try:
        sys.argv[:] = ["pcs", *arguments]
        app.main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException as error:      # as Python itself would end
        print(repr(error), file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    asked.send(str(code).encode())
    return 0
