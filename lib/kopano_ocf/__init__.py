# SPDX-License-Identifier: GPL-2.0-or-later
"""Kopano OCF: the library behind the resource agents ocf:kopano:*.

Copyright (C) 2026 the Kopano OCF authors
"""

VERSION = "0.1.0"
