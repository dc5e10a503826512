#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The agents at work in a real cluster, to watch: `demo.py [--stay]`, as root.

Boots two nodes (namespaces of this machine: nothing on it is touched, nothing listens on it), loads the
configuration of crm/shared-storage, delivers a mail, freezes kopano-server, cuts the power of the active
node, and reads the mails back. Shows at each step what Pacemaker saw and did. Exit code 0 when all went well.

--stay leaves the cluster running at the end, until Ctrl-C.
"""
import argparse
import os
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import lab as lab_module  # noqa: E402
import kopano_site  # noqa: E402
from kopano_site import ADDRESS, CLONED, DAEMONS, GROUPED, MAILBOX, PORTS, Site  # noqa: E402
from namespaces import LabError  # noqa: E402
from story import Story, clean_up_on_signals, paint  # noqa: E402


class Demo(Story):
    """The story."""

    def __init__(self, site):
        super().__init__(site.lab)
        self.site = site

    def places(self):
        """Who runs what."""
        status = self.lab.status()
        for name in self.lab.nodes:
            runs = [resource for resource in GROUPED + CLONED if name in status.running.get(resource, [])]
            self.say(", ".join(runs) or "nothing", "plain", who=name)

    # ---- the steps -------------------------------------------------------------------------------------

    def boot(self):
        """Two nodes become a cluster."""
        self.step("Two nodes boot: bob 192.168.122.25 and alice 192.168.122.26, two shared disks, STONITH")
        self.lab.wait_online()
        self.say("Corosync and Pacemaker are up, both nodes online", "good")
        self.timeline.news()            # how they found each other is another story

    def load(self):
        """The configuration makes it a Kopano cluster."""
        self.step("The configuration is loaded: " +
                  os.path.relpath(kopano_site.CONFIGURATION, kopano_site.ROOT))
        names = self.site.load()
        self.say(f"crmsh has loaded {', '.join(names)} without a warning", "good")
        self.follow(self.site.everything_runs, 90, "everything runs")
        self.follow(self.serves, 30, "Kopano serves")
        self.lab.settle()
        self.tell_news()
        self.say(f"server, LMTP, IMAP and CalDAV answer on {ADDRESS}, for clients outside the nodes", "good")
        self.places()

    def deliver(self, subject):
        """A mail comes in."""
        self.site.deliver(subject)
        self.say(f"LMTP {ADDRESS}:{PORTS['dagent']} acknowledged a mail to {MAILBOX}: {subject!r}", "good")

    def first_mail(self):
        """A mailbox, and something in it."""
        self.step("A mail is delivered from outside the nodes")
        self.site.create_user()
        self.deliver("the mail from before")

    def freeze(self):
        """The server hangs."""
        before = self.site.snapshot()
        server = before["server"]
        self.step(f"kopano-server on {server.node} freezes (kill -STOP): it is there, but answers nobody")
        os.kill(server.pid, signal.SIGSTOP)

        def replaced():
            return server not in self.site.instances()["server"] and self.serves()
        self.follow(replaced, 90, "a new kopano-server serves")
        self.say("server, LMTP, IMAP and CalDAV answer again, "
                 f"{time.time() - self.step_begin:.1f} s after the freeze", "good")
        self.lab.settle()
        self.tell_news()
        after = self.site.snapshot()
        restarted = [name for name in DAEMONS if after[name] != before[name]]
        if restarted != ["server"]:
            raise LabError(f"restarted were {', '.join(restarted)}: it should have been the server alone")
        self.say("the other five daemons were left running", "good")

    def power_cut(self):
        """A node dies."""
        victim = self.site.active()
        survivor = self.lab.others(victim)[0]
        self.step(f"{victim.name}, where Kopano runs, loses its power")
        victim.power_off()

        def moved():
            return self.lab.where("kopano-monitor", survivor) == [survivor.name] and self.serves()
        self.follow(moved, 120, f"Kopano serves from {survivor.name}")
        self.say(f"server, LMTP, IMAP and CalDAV answer again, from {survivor.name}, "
                 f"{time.time() - self.step_begin:.1f} s after the power cut", "good")

        def joined():
            status = self.lab.status(survivor)
            return status and status.online.get(victim.name)
        self.follow(joined, 60, f"{victim.name} joins again")
        self.say(f"{victim.name}, rebooted by its BMC, has joined again", "good")
        self.follow(lambda: self.site.everything_runs(survivor.name), 60, "Apache runs on both nodes again")
        self.lab.settle(node=survivor)
        self.tell_news()
        self.places()

    def last_mail(self):
        """Nothing was lost."""
        self.step("One more mail is delivered, and all are read back over IMAP")
        self.deliver("the mail from after")
        subjects = self.site.subjects()
        for subject in subjects:
            self.say(f"IMAP {ADDRESS}:{PORTS['gateway']} has {subject!r}", "good")
        if subjects != ["the mail from before", "the mail from after"]:
            raise LabError(f"the inbox should hold the two mails that were delivered, it holds {subjects}")

    def serves(self):
        """Whether all four services answer a client outside the nodes."""
        return all(self.site.answers(daemon, timeout=1) for daemon in PORTS)

    def tell(self):
        """The whole story."""
        self.boot()
        self.load()
        self.first_mail()
        self.freeze()
        self.power_cut()
        self.last_mail()
        self.end_step()


def main():
    """Exit code 0 when every step went well, 1 when one failed, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stay", action="store_true", help="leave the cluster running until Ctrl-C")
    options = parser.parse_args()
    why = lab_module.missing()
    if why:
        sys.exit(why)
    clean_up_on_signals()
    try:
        with Site() as site:
            return tell(Demo(site), options.stay)
    except LabError as error:
        sys.exit(f"the lab can't be built: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted: the cluster is taken down")
        return 130


def tell(demo, stays):
    """Tell the story; exit code."""
    good = False
    try:
        demo.tell()
        good = True
    except Exception as error:      # whatever went wrong is to be shown with the logs, not as a traceback
        demo.tell_news()
        print(paint(f"\n{type(error).__name__}: {error}", "bad"))
        print("logs of the nodes:", demo.lab.keep_logs(tempfile.mkdtemp(prefix="kopano-demo-")))
    demo.summary(good)
    if stays:
        print("\nThe cluster stays up until Ctrl-C. A shell on a node:")
        for node in demo.lab:
            if node.alive():
                print(f"  {node.name:<6} nsenter --target {node.pid} --all --root --wd bash")
        sys.stdout.flush()
        signal.pause()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
