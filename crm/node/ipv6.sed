# SPDX-License-Identifier: GPL-2.0-or-later
# From the example's IPv4 addresses to IPv6: sed -i -f ipv6.sed FILE... What it does is what changes in each file.
# The LAN becomes 2001:db8:122::/64, the replication network fd00:10::/64; the last number stays. The cluster's
# addresses themselves: crm/variants/ipv6.crm.

# Postfix wants networks in brackets, DRBD the family, nftables other words
/^mynetworks/s,192\.168\.122\.0/24,[2001:db8:122::]/64,
s/address 10\.0\.0\.\([0-9]*\):/address ipv6 [fd00:10::\1]:/
s/\bip saddr/ip6 saddr/

s,192\.168\.122\.0/24,2001:db8:122::/64,g
# with a port: brackets, in bind specifications and URLs alike
s/192\.168\.122\.\([0-9]\+\):/[2001:db8:122::\1]:/g
s/192\.168\.122\.\([0-9]\+\)/2001:db8:122::\1/g
s/\b10\.0\.0\.\([0-9]\+\)/fd00:10::\1/g
