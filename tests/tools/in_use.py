# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the library is used from outside only, and by whom: read by `make lint`, never run."""
from kopano_ocf import talk

talk.feed       # the tests' transcripts
