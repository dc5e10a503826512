# SPDX-License-Identifier: GPL-2.0-or-later
"""Stand-ins for the six daemons of Kopano Groupware Core."""
