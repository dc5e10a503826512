# SPDX-License-Identifier: GPL-2.0-or-later
"""Kopano OCF: the library behind the resource agents ocf:kopano:*.

Copyright (C) 2026 the Kopano OCF authors
"""
import sys

VERSION = "0.1.0"

if sys.version_info < (3, 6):
    # in words that every Python understands, before it reads a file that it would not
    sys.stderr.write("ocf-exit-reason:Python %d.%d (%s) is too old for the Kopano agents; they need 3.6 or newer\n"
                     % (sys.version_info[0], sys.version_info[1], sys.executable))
    sys.exit(5)
