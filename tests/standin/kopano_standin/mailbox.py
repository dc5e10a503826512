# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's mailbox as gateway and ical see it through the server."""


from . import soap

FOLDERS = ("INBOX", "Drafts", "Outbox", "Sent Items", "Deleted Items", "Junk E-mail")


class Message:

    def __init__(self, text):
        number, size, received, *flags = text.split(" ")
        self.uid, self.size, self.received, self.flags = (int(number), int(size), int(received),
                                                          {flag
                                                           for flag in flags if flag})


class Mailbox:
    """Raises soap.NetworkError and soap.CallFailed, from every method."""

    def __init__(self, client, user, password, feature=None):
        """Log in. feature: "imap" or "pop3"; CallFailed(NO_SUPPORT) when the user may not use it."""
        self._client = client
        client.logon(user, password)
        client.call("getStore")
        found = client.call("standinResolve", ("szAddress", user))
        disabled = (soap.element(found, "szDisabledHere") or "").split() + (soap.element(found, "szDisabled")
                                                                            or "").split()
        if feature in disabled:
            raise soap.CallFailed(soap.NO_SUPPORT)
        self.user = user

    def messages(self, folder="INBOX"):
        text = soap.element(self._client.call("standinList", ("szFolder", folder)), "szMessages")
        return [Message(line) for line in text.split("\n") if line]

    def content(self, message):
        return soap.unpacked(
            soap.element(self._client.call("standinFetch", ("ulMessage", message.uid)), "sData"))

    def flag(self, message):
        """Keep the message's flags."""
        self._client.call("standinFlag", ("ulMessage", message.uid),
                          ("szFlags", " ".join(sorted(message.flags))))

    def delete(self, message):
        self._client.call("standinDelete", ("ulMessage", message.uid))

    def append(self, folder, data):
        self._client.call("standinDeliver", ("szUsername", self.user), ("szFolder", folder),
                          ("sData", soap.packed(data)))
