# SPDX-License-Identifier: GPL-2.0-or-later
"""Named drills: what is broken, what must hold before, during and after, and the outage that clients see.

catalogue.py has the drills, scene.py what they are made of, traffic.py the clients; run.py shows one (`make drill`).
"""
