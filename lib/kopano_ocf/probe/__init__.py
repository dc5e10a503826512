# SPDX-License-Identifier: GPL-2.0-or-later
"""Protocol probes, one protocol a module.

A probe is a generator over a Wire (see kopano_ocf.talk): it says what to send
and what it waits for, touches no socket, and returns a Seen.  It knows nothing
of agents, parameters or exit codes.
"""
