# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the library is used from outside only, and by whom: read by `make lint`, never run."""
from kopano_ocf import kopano_cfg, talk

kopano_cfg.DAEMONS      # the tests of each
talk.feed       # the tests' transcripts
