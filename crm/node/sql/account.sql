-- SPDX-License-Identifier: GPL-2.0-or-later
-- Kopano's account in MariaDB 10.4 and newer or MySQL 8. CHANGE the password, also in server.cfg.
-- Run once, as the database's root:  mariadb < account.sql
--
-- kopano-server comes from a node's own address when the database is on the other node, and from the database's
-- cluster address when both are on the same one. Kopano's cluster address is here for a site that makes it the
-- preferred source. Nobody else gets in; the manual gave root, from the whole LAN, all rights in all databases.
-- kopano-server makes the database itself, at its first start.

FLUSH PRIVILEGES;

CREATE USER IF NOT EXISTS 'kopano'@'192.168.122.25' IDENTIFIED BY 'secret';
CREATE USER IF NOT EXISTS 'kopano'@'192.168.122.26' IDENTIFIED BY 'secret';
CREATE USER IF NOT EXISTS 'kopano'@'192.168.122.100' IDENTIFIED BY 'secret';
CREATE USER IF NOT EXISTS 'kopano'@'192.168.122.101' IDENTIFIED BY 'secret';

GRANT ALL PRIVILEGES ON kopano.* TO 'kopano'@'192.168.122.25';
GRANT ALL PRIVILEGES ON kopano.* TO 'kopano'@'192.168.122.26';
GRANT ALL PRIVILEGES ON kopano.* TO 'kopano'@'192.168.122.100';
GRANT ALL PRIVILEGES ON kopano.* TO 'kopano'@'192.168.122.101';
