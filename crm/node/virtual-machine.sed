# SPDX-License-Identifier: GPL-2.0-or-later
# From two nodes to one machine, for the deployment virtual-machine: sed -i -f virtual-machine.sed FILE...
# bob's own address is 192.168.122.100, where clients find Kopano; the database listens on the machine alone.

# corosync.conf: one node, one link
/two_node: 1/d
/^    node {/{
    N
    /name: alice/{
        N;N;N;N
        d
    }
}
/ring1_addr:/d
/^    interface {/{
    :interface
    N
    /}/!b interface
    /linknumber: 1/d
}
s/ring0_addr: 192\.168\.122\.25/ring0_addr: 192.168.122.100/

# MariaDB, its account, server.cfg
s/192\.168\.122\.101/127.0.0.1/g

# hosts
/^192\.168\.122\.26 /d
s/^192\.168\.122\.25 /192.168.122.100/
