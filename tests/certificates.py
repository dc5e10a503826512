# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates for the tests' servers, made by openssl: of any age, by any authority."""

import os
import subprocess

_CA_CONFIGURATION = """
[ ca ]
default_ca = this
[ this ]
new_certs_dir = .
database = index.txt
serial = serial
default_md = sha256
policy = any
unique_subject = no
x509_extensions = extensions
[ any ]
commonName = supplied
[ extensions ]
basicConstraints = critical,CA:%(ca)s
keyUsage = critical,digitalSignature,keyEncipherment%(sign)s
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = %(names)s
"""
PAST = "20200101000000Z"
LONG_AGO = "20210101000000Z"
FUTURE = "20700101000000Z"
FAR_FUTURE = "20710101000000Z"


class Certificate:
    """Files of a certificate: pem and key."""

    def __init__(self, folder):
        self.pem, self.key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")


def make(folder, name="localhost", names="DNS:localhost,IP:127.0.0.1,IP:::1", start=PAST, end=FUTURE,
         authority=None, ca=False):
    """A new certificate in a new folder, signed by another Certificate or by itself.

    start, end  notBefore and notAfter as YYYYMMDDHHMMSSZ
    """
    folder = str(folder)
    os.makedirs(folder)
    made = Certificate(folder)
    for file, text in (("index.txt", ""), ("serial", "01\n"),
                       ("ca.cnf", _CA_CONFIGURATION % {
                           "ca": "TRUE" if ca else "FALSE", "names": names,
                           "sign": ",keyCertSign" if ca else ""})):
        with open(os.path.join(folder, file), "w") as out:
            out.write(text)

    def openssl(*words):
        subprocess.run(("openssl",) + words, cwd=folder, check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request.pem",
            "-subj", "/CN=" + name)
    signer = ("-selfsign", "-keyfile", "key.pem")
    if authority:
        signer = ("-cert", os.path.abspath(authority.pem), "-keyfile", os.path.abspath(authority.key))
    openssl("ca", "-config", "ca.cnf", "-batch", "-notext", "-in", "request.pem", "-out", "cert.pem",
            "-startdate", start, "-enddate", end, *signer)
    return made
