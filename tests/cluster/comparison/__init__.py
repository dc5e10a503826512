# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual's cluster and the shipped one under the same faults: docs/against-the-manual.md."""
