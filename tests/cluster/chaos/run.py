#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Random faults on a cluster while mails are delivered and read: `run.py --seed 7 --minutes 5`, as root.

The same seed gives the same faults, targets and pauses. At the end all is mended; exit code 0 when then everything
runs, each acknowledged mail is there exactly once and unchanged, each that was taken to be sent has left, nothing ever
ran or was mounted twice, no innocent process (a decoy: decoys.py) was signalled and no stop failed; 1 otherwise.
build/chaos-SEED.txt has the plan, all that happened, and at its end a summary.
"""
import argparse
import os
import random
import sys
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import lab as lab_module  # noqa: E402
from chaos.conduct import Run, report  # noqa: E402
from chaos.ground import Ground  # noqa: E402
from chaos.kinds import kinds  # noqa: E402
from chaos.plan import plan  # noqa: E402
from kopano_site import DEPLOYMENTS, ROOT, keep_logs  # noqa: E402
from story import clean_up_on_signals, paint  # noqa: E402


def run(site, planned, name, known, title="A run"):
    """Chaos on a site that is ready: violations, in words. `known`: the kinds of faults. `title`: of the summary.

    The log is build/NAME.txt; when there are violations the nodes' logs are kept.
    """
    os.makedirs(f"{ROOT}/build", exist_ok=True)
    with open(f"{ROOT}/build/{name}.txt", "w") as log:
        print(f"{len(planned)} faults; the log: {os.path.relpath(log.name)}", flush=True)
        act = Run(site, planned, name, log, known)
        try:
            violations = act.perform()
        except Exception as error:      # the lab's own trouble is to be shown with the logs, too
            traceback.print_exc(file=log)
            violations = [f"{type(error).__name__}: {error}"]
        report(f"{title} of chaos on crm/{site.deployment}", act.figures, violations, log)
    if violations:
        directory = keep_logs(site.lab, name)
        site.keep_database_log(directory)
        print("logs of the nodes:", directory)
    return violations


def main():
    """Exit code 0 when all went as it must, 1 when not, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="a number; without it a new one")
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults; default: 5")
    parser.add_argument("--deployment", choices=DEPLOYMENTS, default="shared-storage")
    parser.add_argument("--faults", nargs="+", metavar="KIND", help="these alone; see --plan")
    parser.add_argument("--plan", action="store_true", help="tell what would happen, and do nothing")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1, 10000)
    known = kinds(options.deployment)
    unknown = set(options.faults or ()) - {kind.name for kind in known}
    if unknown:
        sys.exit(f"there is no fault {unknown.pop()!r}, but {', '.join(kind.name for kind in known)}")
    if options.faults:
        known = [kind for kind in known if kind.name in options.faults]
    planned = plan(seed, options.minutes * 60, known)
    if options.plan:
        print("\n".join(map(str, planned)))
        return 0
    why = lab_module.missing()
    if why:
        sys.exit(why)
    clean_up_on_signals()
    try:
        print(f"Seed {seed}. A cluster of bob and alice comes up, with crm/{options.deployment}.", flush=True)
        with Ground(options.deployment) as site:
            site.ready()
            violations = run(site, planned, f"chaos-{seed}", known, f"{options.minutes:g} minutes, seed {seed},")
    except KeyboardInterrupt:
        print("\ninterrupted: the cluster is taken down")
        return 130
    words, colour = (f"{len(violations)} violations", "bad") if violations else ("no violation", "good")
    print(paint(f"Seed {seed}: {words}.", colour))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
