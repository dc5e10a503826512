# SPDX-License-Identifier: GPL-2.0-or-later
"""Which generation this install tree is, fixed when it was built, and what depends on it."""

import os

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
with open(os.path.join(HOME, "generation")) as _file:
    NUMBER = int(_file.read())

VERSION = {8: "8.7.25", 9: "9.0.11", 11: "11.0.2"}[NUMBER]
WIRE_VERSION = "0," + VERSION.replace(".", ",")  # lpszVersion of a logon
DAEMONIZES = NUMBER == 8  # without -F
NEW_SESSION = NUMBER == 8  # setsid(), with -F too
PID_FILES = NUMBER < 10
