# SPDX-License-Identifier: GPL-2.0-or-later
"""The site that chaos happens on: the lab's, with decoys beside the daemons, and with less patience."""
import os
import re

from chaos import decoys
from chaos.mail import SMTP_SERVER
from kopano_site import Site

DATABASE_SWITCH = "no-start"        # a file in the lab's shared directory: while it is there MariaDB can't start


class Ground(Site):
    """A Site with shortened intervals. Its instances() leaves the decoys out."""

    def __init__(self, deployment="shared-storage"):
        super().__init__(deployment, interval=0.2)
        decoys.install(self.lab.image)
        # One place for both nodes, which can be switched whatever state they are in.
        os.mkdir(f"{self.lab.shared}/mysql.d")
        with open(f"{self.lab.image}/etc/mysql/mariadb.conf.d/99-chaos.cnf", "w") as file:
            file.write("!includedir /lab/mysql.d\n")
        # one SMTP server for both nodes, outside of them, where what leaves is counted
        with open(f"{self.lab.image}/etc/kopano/spooler.cfg", "r+") as file:
            shipped = file.read()
            assert "\nsmtp_server = localhost\n" in shipped
            file.seek(0)
            file.write(shipped.replace("smtp_server = localhost", f"smtp_server = {SMTP_SERVER}"))

    def adapted(self, text):
        """A crm file as shipped, but how long failures are remembered is divided as the intervals are."""
        return re.sub(r"failure-timeout=(\d+)min",
                      lambda found: f"failure-timeout={round(int(found[1]) * 60 * self.interval)}s",
                      super().adapted(text))

    def load(self):
        """As Site's. Then MariaDB gets less time: when it hangs it is given up after 10 s, killed 15 s later."""
        names = super().load()
        node = self.lab["bob"]
        shipped = node.out("crm configure show mysqld")
        hasty = re.sub(r"(op stop .*?timeout)=\w+", r"\1=20s", shipped)
        hasty = re.sub(r"(op monitor .*?timeout)=\w+", r"\1=10s", hasty)
        node.run("crm configure load update -", input=hasty)        # it warns: that is less than advised
        return names

    def instances(self):
        """As Site's. What seems to run twice is looked at once more: a process may have ended while its words were
        read, and would count then whatever it was."""
        found = self._without_decoys()
        if any(len(mains) > 1 for mains in found.values()):
            again = self._without_decoys()
            found = {name: [process for process in mains if process in again[name]]
                     for name, mains in found.items()}
        return found

    def _without_decoys(self):
        return {name: [process for process in mains if not decoys.innocent(process.pid)]
                for name, mains in super().instances().items()}

    def database_may_start(self, may):
        """Let MariaDB start, or not, on whatever node."""
        path = f"{self.lab.shared}/mysql.d/{DATABASE_SWITCH}.cnf"
        if may:
            if os.path.exists(path):
                os.remove(path)
        else:
            with open(path, "w") as file:
                file.write("[mysqld]\nno_such_option\n")

    def keep_database_log(self, directory):
        """Copy MariaDB's log, which is on its disk, to `directory`, if that is mounted."""
        for node in self.lab:
            if node.alive() and "/var/lib/mysql" in node.mounts():
                with open(f"{directory}/mysqld.log", "w") as file:
                    file.write(node.out(["cat", "/var/lib/mysql/mysqld.log"], check=False))
