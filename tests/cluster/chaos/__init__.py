# SPDX-License-Identifier: GPL-2.0-or-later
"""Chaos with mail: random faults on the lab's cluster, overlapping, while mails are delivered and read (run.py).

    plan.py      all faults of a run, drawn from a seed before it begins
    kinds.py     what can be broken, how often, for how long
    services.py machines.py     how it is broken and mended      targets.py   what it hits
    conduct.py   a run: breaks and mends by the plan, tells it, judges
    ground.py    the site it happens on
    mail.py      what is sent and delivered meanwhile, and what has to become of it
    decoys.py    innocent processes, and the guard over them and over fencing      decoy.c  one of them
    figures.py   what it did to the services, in figures
"""
