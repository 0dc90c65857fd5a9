#!/bin/sh
# Installs what only tests need, where it is missing and may be installed.
set -eu

# Program or file and the Debian package that has it.
PATH=$PATH:/usr/sbin:/sbin
lacking=''
while read -r needed package; do
    command -v "$needed" > /dev/null || [ -f "$needed" ] || lacking="$lacking $package"
done << 'LIST'
curl curl
wget wget
openssl openssl
python3 python3
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
# Without root a distribution is unpacked by user namespaces.
if [ "$(id -u)" != 0 ] && ! command -v newuidmap > /dev/null; then lacking="$lacking uidmap"; fi
if [ -n "$lacking" ]; then
    if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
        echo "installing for the tests:$lacking"
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $lacking > /dev/null
    else
        echo "error: the tests need these packages:$lacking" >&2
        echo "hint: sudo apt-get install$lacking" >&2
        exit 1
    fi
fi
