# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-gateway: listeners and certificates; the protocols are in imap.py and pop3.py."""

from .imap import Imap
from .log import ERROR
from .net import tls_context
from .pop3 import Pop3
from .service import Service


class Gateway(Service):
    name = "gateway"
    listens = (("pop3_listen", False), ("pop3s_listen", True), ("imap_listen", False), ("imaps_listen", True))
    open_files = 8192
    drain = fork_drain = 10

    def load_tls(self):
        self.context = None
        try:
            self.context = tls_context(self.config["ssl_certificate_file"],
                                       self.config["ssl_private_key_file"])
        except OSError as error:
            for listener in [one for one in self.listeners if one.spec.tls]:
                self.log(ERROR, "Error loading SSL context, POP3S and IMAPS will be disabled: %s" % error)
                listener.close()
                self.listeners.remove(listener)

    def talk(self, line):
        protocol = Imap if line.listener.spec.key.startswith("imap") else Pop3
        session = protocol(self, line)
        try:
            session.run()
        finally:
            session.leave()
