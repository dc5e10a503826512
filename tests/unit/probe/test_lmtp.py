# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-dagent's greeting."""

import pytest

from kopano_ocf import talk
from kopano_ocf.probe import lmtp
from kopano_ocf.talk import feed


@pytest.mark.parametrize("chunks, how, words", [
    ([b"220 2.1.5 LMTP server is ready\r\n", b"221 2.0.0 Bye\r\n"], talk.FINE, "2.1.5 LMTP server is ready"),
    ([b"220-hello\r\n220-more\r\n220 ready\r\n", b"221-good\r\n221 bye\r\n"], talk.FINE, "220-hello"),
    ([b"220 ready\n", b"221 bye\n"], talk.FINE, "ready"),
    ([b"220\r\n", b"221\r\n"], talk.FINE, "220"),
    ([b"220 ready\r\n"], talk.FINE, "ready"),                                   # closes without a word
    ([b"220 ready\r\n", b"500 what?\r\n"], talk.FINE, "ready"),
    ([b"421 internal error: GetSession failed\r\n"], talk.UNAVAILABLE, "GetSession failed"),
    ([b"451 later\r\n", None], talk.UNAVAILABLE, "later"),
    ([b"554 go away\r\n"], talk.NONSENSE, "554 go away"),
    ([b"250 ok\r\n"], talk.NONSENSE, "250 ok"),
    ([b"220 ready\r\n", None], talk.SILENT, "waited for the answer to QUIT"),
    ([b"220 ready\r\n", b"rubbish\r\n"], talk.NONSENSE, "the answer to QUIT expected, 'rubbish' came"),
    ([None], talk.SILENT, "waited for the LMTP greeting, 0 bytes had come"),
    ([b"220-never", None], talk.SILENT, "9 bytes had come"),
    ([b"noise without end", None], talk.NONSENSE, "'noise without end' came"),
    ([b"2", None], talk.SILENT, "1 bytes had come"),
    ([], talk.CLOSED, "closed while waiting for the LMTP greeting"),
    ([b"* OK IMAP gateway ready\r\n"], talk.NONSENSE, "* OK IMAP gateway ready"),
    ([b"220-a\r\n221 b\r\n"], talk.NONSENSE, "221 b"),
    ([b"2200 ready\r\n"], talk.NONSENSE, "2200 ready"),
    ([b"\xb2\xb2\xb0 ready\r\n"], talk.NONSENSE, "... ready"),
])
def test_greeting(chunks, how, words):
    seen, _ = feed(lmtp.greeting, chunks)
    assert seen.how == how and words in seen.words


@pytest.mark.parametrize("greeting", [b"220 ready\r\n", b"421 no\r\n", b"554 no\r\n"])
def test_quit_is_said_once_it_has_greeted(greeting):
    assert feed(lmtp.greeting, [greeting])[1] == b"QUIT\r\n"


def test_nothing_is_said_before_the_greeting():
    assert feed(lmtp.greeting, [b"220-wait\r\n", None])[1] == b""
