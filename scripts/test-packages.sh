#!/bin/sh
# Installs the packages that only the tests need, if they are missing.
set -eu

# A program or a file, and its Debian package.
PATH=$PATH:/usr/sbin:/sbin
missing=''
while read -r needed package; do
    command -v "$needed" > /dev/null || [ -f "$needed" ] || missing="$missing $package"
done << 'LIST'
curl curl
wget wget
openssl openssl
ip iproute2
nats-server nats-server
python3 python3
/usr/lib/python3/dist-packages/pip/__init__.py python3-pip
/usr/lib/python3/dist-packages/requests/__init__.py python3-requests
/usr/lib/python3/dist-packages/websockets/__init__.py python3-websockets
npm npm
git git
ssh openssh-client
dropbear dropbear-bin
unshare util-linux
mke2fs e2fsprogs
mkfs.fat dosfstools
mcopy mtools
syslinux syslinux
/usr/lib/syslinux/mbr/mbr.bin syslinux-common
sfdisk fdisk
qemu-img qemu-utils
mmdebstrap mmdebstrap
/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
LIST
# Without root, a distribution is unpacked in a user namespace.
if [ "$(id -u)" != 0 ] && ! command -v newuidmap > /dev/null; then missing="$missing uidmap"; fi
if [ -n "$missing" ]; then
    if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
        echo "installing for the tests:$missing"
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing > /dev/null
    else
        echo "error: the tests need these packages:$missing" >&2
        echo "hint: sudo apt-get install$missing" >&2
        exit 1
    fi
fi
