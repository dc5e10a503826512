# SPDX-License-Identifier: GPL-2.0-or-later
"""Entry point of every program: which one it is, the executable's name says."""
import os
import sys

_CLASSES = {"server": "Server", "dagent": "Dagent", "spooler": "Spooler", "gateway": "Gateway", "ical": "Ical",
            "monitor": "Monitor", "admin": "Admin"}


def run():
    """Run the program and leave without waiting for its threads."""
    executable = os.readlink("/proc/self/exe")
    name = os.path.basename(executable).split(" ")[0].split("-", 1)[1]
    module = getattr(__import__("kopano_standin." + name), name)
    code = 70
    try:
        code = getattr(module, _CLASSES[name])().main(sys.argv)
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
