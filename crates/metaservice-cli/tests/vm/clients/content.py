"""Makes what the servers of the test of real clients serve: a CA, packages and a repository.

Usage: content.py DIRECTORY
"""
import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

NAMES = ["packages.test", "deb.test", "git.test", "www.test", "ws.test"]
SOURCE = {"demo/__init__.py": b"VALUE = 42\n"}


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def run(*command, **options):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)


def certificates(directory):
    """A CA, and one certificate for all names."""
    def at(name):
        return os.path.join(directory, name)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    quiet = {"stderr": subprocess.DEVNULL}
    run("openssl", "req", "-x509", *key, "-keyout", at("ca.key"), "-out", at("ca.pem"),
        "-subj", "/CN=Test CA", "-days", "30", **quiet)
    names = ",".join("DNS:" + name for name in NAMES)
    run("openssl", "req", *key, "-keyout", at("server.key"), "-out", at("server.csr"),
        "-subj", "/CN=Test", **quiet)
    write(at("server.ext"), f"subjectAltName={names}\n".encode())
    run("openssl", "x509", "-req", "-in", at("server.csr"), "-CA", at("ca.pem"),
        "-CAkey", at("ca.key"), "-CAcreateserial", "-days", "30", "-extfile", at("server.ext"),
        "-out", at("server.pem"), **quiet)


def tar(files):
    """A compressed archive of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def wheel(site):
    """A package for pip, and its index (PEP 503)."""
    info = "demo-1.0.dist-info/"
    files = dict(SOURCE)
    files[info + "METADATA"] = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
    files[info + "WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},,\n" for name in [*files, info + "RECORD"])
    files[info + "RECORD"] = record.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    name = "demo-1.0-py3-none-any.whl"
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    write(site + "/files/" + name, buffer.getvalue())
    link = f'<!DOCTYPE html><a href="/files/{name}#sha256={digest}">{name}</a>'
    write(site + "/simple/demo/index.html", link.encode())


def node_package(site):
    """A package for npm, and the document about it."""
    package = {"name": "demo", "version": "1.0.0", "main": "index.js"}
    archive = tar({"package/package.json": json.dumps(package).encode(),
                   "package/index.js": b"module.exports = 42;\n"})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    package["dist"] = {"tarball": "https://packages.test/npm/demo/-/demo-1.0.0.tgz",
                       "integrity": integrity}
    document = {"name": "demo", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": package}}
    write(site + "/npm/demo/index.html", json.dumps(document).encode())
    write(site + "/npm/demo/-/demo-1.0.0.tgz", archive)


def crate(site):
    """A crate, and a sparse index."""
    manifest = b'[package]\nname = "demo"\nversion = "1.0.0"\nedition = "2021"\n'
    archive = tar({"demo-1.0.0/Cargo.toml": manifest,
                   "demo-1.0.0/src/lib.rs": b"pub const VALUE: u32 = 42;\n"})
    entry = {"name": "demo", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
             "cksum": hashlib.sha256(archive).hexdigest()}
    write(site + "/cargo/config.json", b'{"dl": "https://packages.test/crates"}')
    write(site + "/cargo/de/mo/demo", json.dumps(entry).encode())
    write(site + "/crates/demo/1.0.0/download", archive)


def debian(site, work):
    """A flat archive of 20 packages, so that apt has requests to pipeline."""
    listing = ""
    for number in range(20):
        name = f"demo{number}"
        tree = f"{work}/{name}"
        control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\n" \
                  f"Maintainer: Test <test@example.org>\nDescription: test\n"
        write(tree + "/DEBIAN/control", control.encode())
        write(f"{tree}/usr/share/{name}/value", os.urandom(20000))
        os.makedirs(site, exist_ok=True)
        run("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, f"{site}/{name}.deb")
        with open(f"{site}/{name}.deb", "rb") as file:
            content = file.read()
        digest = hashlib.sha256(content).hexdigest()
        listing += f"{control}Filename: ./{name}.deb\nSize: {len(content)}\nSHA256: {digest}\n\n"
    write(site + "/Packages.gz", gzip.compress(listing.encode()))


def repository(directory):
    """A repository with one commit, and what a server of ssh needs."""
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org"]
    bare, tree = directory + "/repositories/demo.git", directory + "/tree"
    run("git", "init", "-q", "--bare", "-b", "main", bare)
    run("git", "-C", bare, "config", "http.receivepack", "true")
    run("git", "init", "-q", "-b", "main", tree)
    write(tree + "/value", b"42\n")
    run("git", "-C", tree, "add", "value")
    run(*git, "-C", tree, "commit", "-q", "-m", "first")
    run("git", "-C", tree, "push", "-q", bare, "main")
    # The server reads keys of its own form only.
    run("dropbearkey", "-t", "ed25519", "-f", directory + "/host_key", stderr=subprocess.DEVNULL)
    public = subprocess.run(["dropbearkey", "-y", "-f", directory + "/host_key"], check=True,
                            stdout=subprocess.PIPE, text=True).stdout.splitlines()
    public = next(line for line in public if line.startswith("ssh-"))
    write(directory + "/known_hosts", f"git.test {public}\n".encode())
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", directory + "/client_key")
    os.makedirs(directory + "/home/.ssh", mode=0o700)
    os.chmod(directory + "/home", 0o700)
    os.rename(directory + "/client_key.pub", directory + "/home/.ssh/authorized_keys")
    user = f"git:x:0:0::{directory}/home:/bin/sh\n"
    write(directory + "/passwd", ("root:x:0:0:root:/root:/bin/sh\n" + user).encode())


def main():
    directory = sys.argv[1]
    certificates(directory)
    site = directory + "/site/"
    wheel(site + "packages.test")
    node_package(site + "packages.test")
    crate(site + "packages.test")
    debian(site + "deb.test", directory + "/deb")
    write(site + "www.test/page", b"a page\n")
    repository(directory)


main()
