# SPDX-License-Identifier: GPL-2.0-or-later
"""The server's data in MariaDB: users, messages, the outgoing queue. One connection per thread."""

import os
import sys
import threading

from .log import ERROR

_UNWANTED = ("ssl", "cryptography")  # PyMySQL does without them, and starts faster

_TABLES = (
    "CREATE TABLE IF NOT EXISTS settings (name VARCHAR(64) PRIMARY KEY, value VARCHAR(255) NOT NULL)",
    "CREATE TABLE IF NOT EXISTS users (name VARCHAR(128) PRIMARY KEY, email VARCHAR(255) NOT "
    "NULL, salt BINARY(8) NOT NULL,"
    " password BINARY(32) NOT NULL, fullname VARCHAR(255) NOT NULL, store TINYINT NOT NULL, "
    "disabled VARCHAR(64) NOT NULL)",
    "CREATE TABLE IF NOT EXISTS messages (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, user "
    "VARCHAR(128) NOT NULL,"
    " folder VARCHAR(128) NOT NULL, flags VARCHAR(128) NOT NULL DEFAULT '', received INT UNSIGNED NOT NULL,"
    " size INT UNSIGNED NOT NULL, content LONGBLOB NOT NULL, KEY place (user, folder))",
    "CREATE TABLE IF NOT EXISTS outgoing (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, user "
    "VARCHAR(128) NOT NULL,"
    " recipient VARCHAR(255) NOT NULL, content LONGBLOB NOT NULL)")


class DatabaseError(Exception):
    """The database is away or refused; str() is for the log."""


def _driver():
    """PyMySQL: half of all that the server imports, and of no use in its life before its re-execution."""
    unwanted = [name for name in _UNWANTED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(unwanted))
    import pymysql
    import pymysql.constants.ER

    for name in unwanted:
        del sys.modules[name]
    return pymysql


class Database:
    """Settings as in server.cfg. Statements block for as long as the database does."""

    def __init__(self, config, log, counters, faults):
        self._config, self._log, self._counters, self._faults = config, log, counters, faults
        self._local = threading.local()
        self._driver = _driver()
        self._errors = (self._driver.err.MySQLError, OSError)

    def _connect(self, database):
        config = self._config
        host, path = config["mysql_host"] or "localhost", config["mysql_socket"] or None
        if host == "localhost" and not path:
            path = "/var/run/mysqld/mysqld.sock"
        return self._driver.connect(host=host, port=config.number("mysql_port"), unix_socket=path,
                                    user=config["mysql_user"], password=config["mysql_password"],
                                    database=database, charset="utf8mb4", autocommit=True,
                                    connect_timeout=31536000)

    def open(self):
        """Connect this thread; creates the database when it is missing. Raises DatabaseError."""
        name = self._config["mysql_database"]
        try:
            try:
                self._local.connection = self._connect(name)
            except self._driver.err.OperationalError as error:
                if error.args[0] != self._driver.constants.ER.BAD_DB_ERROR:
                    raise
                fresh = self._connect(None)
                fresh.cursor().execute("CREATE DATABASE IF NOT EXISTS `%s`" % name.replace("`", "``"))
                fresh.close()
                self._local.connection = self._connect(name)
        except self._errors + (RuntimeError,) as error:
            self._local.connection = None
            raise DatabaseError("mysql_real_connect: %s" % (error.args[-1],))

    def schema(self):
        """Create what is missing. Returns the recorded settings. Raises DatabaseError."""
        for statement in _TABLES:
            self.query(statement)
        self.query(
            "INSERT IGNORE INTO settings VALUES ('server_guid', %s), ('store_guid', %s), "
            "('attachment_storage', %s)",
            (os.urandom(16).hex(), os.urandom(16).hex(), self._config["attachment_storage"]))
        return dict(self.query("SELECT name, value FROM settings"))

    def query(self, statement, values=()):
        """Run one statement and return its rows; committed on return. Raises DatabaseError.

        A lost connection is made anew, once, before the statement is sent: nothing is ever done twice.
        """
        self._counters.add("db_calls")
        try:
            if self._faults.get("dbhang") is not None:
                self._faults.stall("dbhang")
            if self._faults.get("dberror") is not None:
                raise DatabaseError("SQL Failed: (fault)")
            connection = getattr(self._local, "connection", None)
            try:
                if connection is not None:
                    connection.ping(reconnect=False)
            except self._errors:
                self._log(
                    ERROR,
                    "SQL [%08d] Failed: Lost connection to server during query. Reconnecting." % os.getpid())
                connection = None
            if connection is None:
                self.open()
                connection = self._local.connection
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement, values)
                    return cursor.lastrowid if statement.startswith("INSERT") else cursor.fetchall()
            except self._errors as error:
                self._local.connection = None
                raise DatabaseError("SQL Failed: %s" % (error.args[-1],))
        finally:
            self._counters.add("db_calls", -1)


def hashed(salt, password):
    """How a password is kept."""
    import hashlib

    return hashlib.sha256(salt + password.encode()).digest()
