# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-spooler and kopano-monitor listen nowhere: what the kernel tells about them."""

import os
import sys

MYPY = False
if MYPY:
    from typing import Dict, List, Optional, Tuple  # noqa: F401

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_UDIAG_SHOW_NAME, _UDIAG_SHOW_PEER = 1, 4
_UNIX_DIAG_NAME, _UNIX_DIAG_PEER = 0, 2
_ESTABLISHED, _STREAM = 1, 1


def sessions(pid, socket_path=None, tcp_port=None):
    # type: (int, Optional[str], Optional[int]) -> int
    """How many established connections a process has to kopano-server's unix socket or TCP port.

    A healthy idle spooler has two, one for requests and one for notifications; one that has lost the server
    has none.  Raises OSError when the process is gone or is not ours to look into.
    """
    inodes = _sockets(pid)
    count = 0
    if socket_path:
        count += _unix(pid, inodes, socket_path)
    if tcp_port:
        port = "%04X" % tcp_port
        for table in ("tcp", "tcp6"):
            for words in _table(pid, table):
                # sl local_address rem_address st ... inode
                if len(words) > 9 and words[3] == "01" and words[9] in inodes \
                        and words[2].rpartition(":")[2] == port:
                    count += 1
    return count


def counters(pid):
    # type: (int) -> Dict[int, int]
    """Thread id -> how often it has given up the CPU of its own accord.

    spooler's notification thread counts up once a second, monitor's scheduler every 5 s; a process whose
    counters all stand still for over 65 s is frozen.  Raises OSError when the process is gone.
    """
    found = {}
    for tid in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/status" % (pid, tid), "rb") as status:
                for line in status:
                    if line.startswith(b"voluntary_ctxt_switches:"):
                        found[int(tid)] = int(line.split()[1])
        except OSError:
            # a thread may end between list and look
            continue
    return found


def _sockets(pid):
    # type: (int) -> Dict[str, int]
    # inode -> lowest descriptor
    found = {}      # type: Dict[str, int]
    where = "/proc/%d/fd" % pid
    for fd in sorted(os.listdir(where), key=int):
        try:
            link = os.readlink("%s/%s" % (where, fd))
        except OSError:
            continue
        if link.startswith("socket:["):
            found.setdefault(link[8:-1], int(fd))
    return found


def _table(pid, name):
    # type: (int, str) -> List[List[str]]
    try:
        with open("/proc/%d/net/%s" % (pid, name), errors="replace") as table:
            return [line.split() for line in table][1:]
    except FileNotFoundError:
        # a kernel without IPv6 has no tcp6
        return []


def _unix(pid, inodes, path):
    # type: (int, Dict[str, int], str) -> int
    wanted = os.path.realpath(path)
    try:
        ask = _Diag()
        try:
            count = 0
            for inode in inodes:
                peer = ask.peer(int(inode))
                name = peer and ask.name(peer)
                if name and os.path.realpath(os.fsdecode(name)) == wanted:
                    count += 1
            return count
        finally:
            ask.close()
    except OSError:
        pass
    # A kernel without unix_diag does not say who the peer is.  A client's end has no name; standard error
    # may be a stream to the journal.
    return sum(1 for words in _table(pid, "unix")
               if len(words) == 7 and words[4] == "0001" and words[5] == "03" and inodes.get(words[6], 0) > 2)


class _Diag:
    """Asks the kernel about unix sockets, as `ss -x` does.  Raises OSError where that can't be asked."""

    def __init__(self):
        import _socket
        self._kernel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        # the kernel answers within send(): nothing is waited for
        self._kernel.setblocking(False)

    def close(self):
        # type: () -> None
        self._kernel.close()

    def peer(self, inode):
        # type: (int) -> int
        """The inode of an established stream socket's peer, 0 when it is no such socket."""
        kind, state, attributes = self._ask(inode, _UDIAG_SHOW_PEER)
        if (kind, state) != (_STREAM, _ESTABLISHED):
            return 0
        return int.from_bytes(attributes.get(_UNIX_DIAG_PEER, b""), sys.byteorder)

    def name(self, inode):
        # type: (int) -> bytes
        """The path that a socket is bound to, b"" for none."""
        return self._ask(inode, _UDIAG_SHOW_NAME)[2].get(_UNIX_DIAG_NAME, b"").rstrip(b"\0")

    def _ask(self, inode, show):
        # type: (int, int) -> Tuple[int, int, Dict[int, bytes]]
        def number(value, size=4):
            # type: (int, int) -> bytes
            return value.to_bytes(size, sys.byteorder)

        # struct unix_diag_req: family, protocol, pad, states, inode, show, cookie (all ones: any)
        request = b"\1\0\0\0" + number(0xffffffff) + number(inode) + number(show) + b"\xff" * 8
        self._kernel.send(number(16 + len(request)) + number(_SOCK_DIAG_BY_FAMILY, 2)
                          + number(_NLM_F_REQUEST, 2) + number(1) + bytes(4) + request)
        answer = self._kernel.recv(8192)
        if answer[4:6] != number(_SOCK_DIAG_BY_FAMILY, 2):
            # NLMSG_ERROR: -ENOENT is said of what is no unix socket, or gone by now
            code = -int.from_bytes(answer[16:20], sys.byteorder, signed=True)
            if code == 2:
                return 0, 0, {}
            raise OSError(code, os.strerror(code))
        # struct unix_diag_msg: family, type, state, pad, inode, cookie
        attributes = {}     # type: Dict[int, bytes]
        place = 16 + 16
        while place + 4 <= len(answer):
            size = int.from_bytes(answer[place:place + 2], sys.byteorder)
            if size < 4:
                break
            kind = int.from_bytes(answer[place + 2:place + 4], sys.byteorder)
            attributes[kind] = answer[place + 4:place + size]
            place += size + 3 & ~3
        return answer[17], answer[18], attributes
