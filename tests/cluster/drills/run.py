#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One drill on a cluster of its own, to watch: `run.py NAME... [--deployment drbd]`, as root; without names: a list.

The configuration is loaded as it is shipped, so the times are those of a real cluster with a database that is small
and disks that are fast; --quick divides the monitors' intervals by five, as the tests do.
"""
import argparse
import os
import sys
import tempfile
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import lab as lab_module  # noqa: E402
from drills import docs  # noqa: E402
from drills.catalogue import DRILLS  # noqa: E402
from drills.scene import Scene  # noqa: E402
from kopano_site import DEPLOYMENTS, Site  # noqa: E402
from story import clean_up_on_signals, paint  # noqa: E402


def listing():
    """All drills, a line each."""
    for drill in DRILLS.values():
        print(f"  {drill.name:<26} {drill.does}")
    print("\nmake drill NAME=kill-node")


def show(drills, deployment, interval):
    """Perform them one after the other on one site; exit code."""
    with Site(deployment, interval=interval) as site:
        print(f"A cluster of bob and alice comes up, with crm/{deployment}; this takes about 20 s.", flush=True)
        site.ready()
        failed = 0
        for drill in drills:
            scene = Scene(site, drill)
            try:
                scene.perform()
            except Exception as error:      # told like everything else; the logs have the rest
                failed += 1
                print(paint(f"\n{type(error).__name__}: {error}", "bad"))
                print("logs of the nodes:", site.lab.keep_logs(tempfile.mkdtemp(prefix="kopano-drill-")))
            for title, words in (("must hold", drill.during), ("afterwards", drill.after),
                                 ("the manual's configuration", drill.manual)):
                print(textwrap.fill(f"{title}: {words or '-'}", 110, initial_indent="  ", subsequent_indent="      "))
    return 1 if failed else 0


def main():
    """Exit code 0 when all went as it must."""
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="of drills")
    parser.add_argument("--deployment", choices=DEPLOYMENTS, help="default: the first that has the drill")
    parser.add_argument("--quick", action="store_true", help="a fifth of the monitors' intervals")
    parser.add_argument("--write", action="store_true", help="renew docs/drills.md")
    options = parser.parse_args()
    if options.write:
        docs.write()
        return 0
    if not options.name:
        listing()
        return 0
    unknown = [name for name in options.name if name not in DRILLS]
    if unknown:
        listing()
        sys.exit(f"there is no drill {unknown[0]!r}")
    drills = [DRILLS[name] for name in options.name]
    deployment = options.deployment or drills[0].deployments[0]
    if any(deployment not in drill.deployments for drill in drills):
        sys.exit(f"not all of these are for {deployment}: see `deployments` in drills/catalogue.py")
    why = lab_module.missing()
    if why:
        sys.exit(why)
    clean_up_on_signals()
    try:
        return show(drills, deployment, 0.2 if options.quick else 1.0)
    except KeyboardInterrupt:
        print("\ninterrupted: the cluster is taken down")
        return 130


if __name__ == "__main__":
    sys.exit(main())
