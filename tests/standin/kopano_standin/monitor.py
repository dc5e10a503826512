# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-monitor: a scheduler thread that ticks every 5 s and now and then looks at the users' quota."""

import threading
import time

from . import soap
from .config import server_url
from .log import ERROR, INFO
from .process import Daemon

_TICK = 5


class Monitor(Daemon):
    name = "monitor"
    refuses_second = True
    term_once = False
    main_works = False  # it only waits for signals

    def serve(self):
        self.slow_start()
        self.catch_signals()
        threading.Thread(target=self._scheduler, daemon=True).start()
        while not self.stopping:
            self.wait()
        return 0

    def _scheduler(self):
        done = None
        while True:
            time.sleep(_TICK)
            self.faults.wedged()
            self.faults.only_here()
            minute = int(time.time()) // 60
            if minute != done and minute % max(1, self.config.number("quota_check_interval")) == 0:
                done = minute
                self._check()

    def _check(self):
        self.log(INFO, "Quota monitor starting")
        start = time.monotonic()
        client = soap.Client(server_url(self.config), self.program)
        try:
            client.logon()
            users = soap.element(client.call("standinUsers"), "szUsers") or ""
        except soap.NetworkError:
            for line in ("Unable to open an admin session: network error (80040115)",
                         "Quota monitor: check failed", "Unable to open default store",
                         "Quota check not done"):
                self.log(ERROR, line)
        except soap.CallFailed as failure:
            self.log(ERROR, "Quota check failed: %s" % failure)
        else:
            self.log(
                INFO, "Quota monitor done in %d seconds. Processed: %d, Failed: 0" %
                (time.monotonic() - start, len(users.split("\n")) if users else 0))
        finally:
            client.logoff()
