# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-admin, as far as tests need it: users with a store, a look at the server. Exit code 0 or 1."""

import getopt
import sys

from . import soap
from .config import Config, server_url


class Admin:

    def main(self, argv):
        try:
            words, _rest = getopt.gnu_getopt(argv[1:], "c:d:lp:e:f:a:h:", ["details=", "no-store"])
        except getopt.GetoptError as error:
            print(error, file=sys.stderr)
            return 1
        words = dict(words)
        config = Config("dagent")
        if "-h" in words:
            config.set["server_socket"] = words["-h"]
        client = soap.Client(server_url(config), "kopano-admin")
        try:
            client.logon()
            if "-c" in words:
                client.call("standinAddUser", ("szUsername", words["-c"]),
                            ("szPassword", words.get("-p", "")), ("szEmail", words.get("-e", words["-c"])),
                            ("szFullname", words.get("-f", words["-c"])),
                            ("ulStore", int("--no-store" not in words)))
                print("User created.")
            elif "-d" in words:
                client.call("standinDeleteUser", ("szUsername", words["-d"]))
                print("User deleted.")
            elif "--details" in words:
                client.call("getStore")
                print("Username:\t\t%s" % words["--details"])
            else:
                print(soap.element(client.call("standinUsers"), "szUsers"))
        except (soap.NetworkError, soap.CallFailed) as error:
            print("Unable to do that: %s" % error, file=sys.stderr)
            return 1
        finally:
            client.logoff()
        return 0


class StoreAdmin:
    """kopano-storeadm -C -n USER: users here get their store when they are created; this only looks."""

    def main(self, argv):
        try:
            words = dict(getopt.gnu_getopt(argv[1:], "CMn:h:")[0])
        except getopt.GetoptError as error:
            print(error, file=sys.stderr)
            return 1
        client = soap.Client(server_url(Config("dagent")), "kopano-storeadm")
        try:
            client.logon()
            client.call("standinResolve", ("szAddress", words.get("-n", "SYSTEM")))
        except (soap.NetworkError, soap.CallFailed) as error:
            print("Unable to do that: %s" % error, file=sys.stderr)
            return 1
        finally:
            client.logoff()
        return 0
