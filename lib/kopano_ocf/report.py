# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent says: exit reason, log line, words at a terminal.

ocf.py is loaded only when there is something to log: it costs more than a whole
good monitor.  Its handlers know no INFO and take Pacemaker's HA_debug=0 for a
wish to debug, so the environment is put right before it is imported, and its
absence or a log file that can't be written never stops an action.
"""
import os
import sys

_PREFIX = "ocf-exit-reason:"
_USUAL_FOLDER = "/usr/lib/ocf/lib/heartbeat"
_ocf = None


def one_line(text, limit=800):
    """Text from anywhere as one printable line, cut at `limit` characters."""
    text = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(text))
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit - 4] + " ..."


def _write(stream, line):
    try:
        stream.write(line + "\n")
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass                                # nobody listens; the exit code still tells


def ocf():
    """ClusterLabs' ocf.py, or None on a node that lacks it (or where it can't be loaded)."""
    global _ocf
    if _ocf is None:
        _ocf = _load() or False
    return _ocf or None


def lacking(module):
    """Which package this node lacks for `module` (psutil, requests) or ocf.py, in words; "" when it has all."""
    from kopano_ocf import process
    process.site_packages()
    try:
        __import__(module)
    except ImportError:
        return "the Python module %s is missing; install the package python3-%s" % (module, module)
    if not any(os.path.isfile(folder + "/ocf.py") for folder in (_folder(), _USUAL_FOLDER)):
        return "ClusterLabs' library ocf.py is missing; install the package resource-agents"
    return ""


def _folder():
    return os.environ.get("OCF_FUNCTIONS_DIR") or (
        os.environ["OCF_ROOT"] + "/lib/heartbeat" if os.environ.get("OCF_ROOT") else _USUAL_FOLDER)


def _load():
    env = os.environ
    if env.get("HA_debug", "").strip() in ("", "0"):
        env.pop("HA_debug", None)           # "0" is not 0 to ocf.py: it would log DEBUG
    for name in ("HA_LOGFILE", "HA_DEBUGLOG"):
        path = env.get(name, "")
        # opening a FIFO would wait for a reader
        if path and not os.access(path if os.path.isfile(path) else os.path.dirname(path) or ".", os.W_OK) \
                or os.path.exists(path) and not os.path.isfile(path):
            del env[name]
    folder = _folder()
    sys.path.append(folder)
    try:
        import ocf as found
        import logging
        if not found.log.handlers:
            # else Python's last resort prints every warning a second time
            found.log.addHandler(logging.NullHandler())
        found.log.propagate = False
        logging.raiseExceptions = False     # a full disk would put a traceback on stderr for each line
        for handler in found.log.handlers:
            if handler.level == logging.WARNING:
                handler.setLevel(logging.INFO)
        return found
    except Exception:                       # pylint: disable=broad-except
        return None
    finally:
        sys.path.remove(folder)


def exit_reason(words, log=True):
    """Tell Pacemaker why (crm_mon shows it), and the cluster log unless it knows already."""
    words = one_line(words)
    found = ocf() if log else None
    if found:
        try:
            found.ocf_exit_reason(words)
        except Exception:                   # pylint: disable=broad-except
            pass                            # nobody listens
    else:
        _write(sys.stderr, os.environ.get("OCF_EXIT_REASON_PREFIX", _PREFIX) + words)


def log(level, words):
    """One line for the cluster log; level is "info", "warning" or "error"."""
    found = ocf()
    if found:
        try:
            getattr(found.logger, level)(one_line(words))
        except Exception:                   # pylint: disable=broad-except
            pass


def say(words):
    """One line for the person at the terminal."""
    _write(sys.stderr, one_line(words))


def output(text):
    """What was asked for: meta-data, usage."""
    try:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(1, data):]
    except OSError:
        return False
    return True
