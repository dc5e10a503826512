# SPDX-License-Identifier: GPL-2.0-or-later
"""Entry point of every program: which one it is, the executable's name says."""
import os
import sys


def _program(name):
    """The program of that name; the others' modules are not even loaded."""
    if name == "server":
        from .server import Server as program
    elif name == "dagent":
        from .dagent import Dagent as program
    elif name == "spooler":
        from .spooler import Spooler as program
    elif name == "gateway":
        from .gateway import Gateway as program
    elif name == "ical":
        from .ical import Ical as program
    elif name == "monitor":
        from .monitor import Monitor as program
    elif name == "admin":
        from .admin import Admin as program
    else:
        from .admin import StoreAdmin as program
    return program()


def run():
    """Run the program and leave without waiting for its threads."""
    executable = os.readlink("/proc/self/exe").split(" (deleted)")[0]
    code = 70
    try:
        code = _program(os.path.basename(executable).partition("-")[2]).main(sys.argv)
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
        os._exit(code & 255)
