# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses are this host's own: asked of the kernel, without a resolver."""

import _socket
import os
import sys

# linux/netlink.h, linux/rtnetlink.h
_RTM_NEWROUTE, _RTM_GETROUTE, _NLM_F_REQUEST, _RTA_DST, _RTN_LOCAL = 24, 26, 1, 1, 2
_SIOCGIFADDR = 0x8915


def family(host):
    # type: (str) -> int
    """AF_INET or AF_INET6 of a literal address, 0 when host is a name."""
    for kind in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(kind, host)
        except (OSError, ValueError):
            continue
        return kind
    return 0


def is_local(host):
    # type: (str) -> bool
    """Would a packet to this literal address be delivered on this very host?

    The kernel's routing table is the one witness that can be believed: binding proves nothing under
    ip_nonlocal_bind=1, and the source address of a connected UDP socket is the interface's first address,
    not a cluster IP that was added to the same subnet.  False for what is not a literal address.
    """
    kind = family(host)
    if not kind:
        return False
    raw = _socket.inet_pton(kind, host)

    def number(value, size):
        # type: (int, int) -> bytes
        return value.to_bytes(size, sys.byteorder)

    route = bytes([kind, 8 * len(raw)]) + bytes(10) + number(4 + len(raw), 2) + number(_RTA_DST, 2) + raw
    ask = (number(16 + len(route), 4) + number(_RTM_GETROUTE, 2) + number(_NLM_F_REQUEST, 2)
           + number(1, 4) + bytes(4) + route)
    try:
        kernel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_NONBLOCK, 0)
        try:
            # the kernel answers within send(): nothing is waited for
            kernel.send(ask)
            answer = kernel.recv(8192)
        finally:
            kernel.close()
    except OSError:
        return _bindable(kind, host)
    return answer[4:6] == number(_RTM_NEWROUTE, 2) and len(answer) > 23 and answer[23] == _RTN_LOCAL


def _bindable(kind, host):
    # type: (int, str) -> bool
    # second best, for a sandbox without netlink
    try:
        probe = _socket.socket(kind, _socket.SOCK_DGRAM)
    except OSError:
        return False
    try:
        probe.bind((host, 0))
    except OSError:
        return False
    finally:
        probe.close()
    return True


def of_device(device):
    # type: (str) -> list
    """Addresses of a network device, those that need no scope; [] when there is no such device."""
    found = []
    try:
        asker = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        try:
            import fcntl
            answer = fcntl.ioctl(asker.fileno(), _SIOCGIFADDR, os.fsencode(device)[:15].ljust(40, b"\0"))
            found.append(_socket.inet_ntoa(answer[20:24]))
        finally:
            asker.close()
    except OSError:
        pass
    try:
        with open("/proc/net/if_inet6") as table:
            for line in table:
                words = line.split()
                # 20: link-local, unusable without a scope
                if len(words) == 6 and words[5] == device and words[3] != "20":
                    found.append(_socket.inet_ntop(_socket.AF_INET6, bytes.fromhex(words[0])))
    except OSError:
        pass
    return found
