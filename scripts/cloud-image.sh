#!/bin/sh
# Builds a cloud image from packages of the distribution only: systemd, cloud-init, a boot loader, and
# no part of metaservice. Beside it, the Python of the image with cloud-init, for tests without a
# machine. Both are built once (some minutes) and kept. Prints their paths: IMAGE.qcow2 and
# IMAGE.python.
set -eu

recipe=2 # increase with each change of the content of the image
cache=${XDG_CACHE_HOME:-$HOME/.cache}/metaservice/test-images
image=$cache/debian-12-cloud-$recipe
finish() {
    echo "$image.qcow2 $image.python"
    exit 0
}
if [ -f "$image.qcow2" ]; then finish; fi

PATH=$PATH:/usr/sbin:/sbin
boot_record=/usr/lib/syslinux/mbr/mbr.bin
for needed in mmdebstrap mke2fs mkfs.fat mcopy syslinux $boot_record sfdisk qemu-img flock \
    $([ "$(id -u)" = 0 ] || echo newuidmap); do
    command -v "$needed" > /dev/null || [ -f "$needed" ] || {
        echo "error: $needed is missing, which the test image needs" >&2
        packages='mmdebstrap e2fsprogs dosfstools mtools syslinux syslinux-common fdisk'
        echo "hint: sudo apt-get install $packages qemu-utils uidmap" >&2
        exit 1
    }
done

# One process builds the image. Others wait for the lock and then find the image.
mkdir -p "$cache"
exec 9> "$cache/.lock"
flock 9
if [ -f "$image.qcow2" ]; then finish; fi
# Remove the files of a process that was killed, and images of earlier recipes.
rm -rf "$cache"/making.* "$cache"/debian-12-cloud-*
echo "building $image.qcow2 (some minutes)" >&2
work=$(mktemp -d "$cache/making.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# Without root, everything runs as another user, in a user namespace.
chmod 755 "$work"
mkdir -m 1777 "$work/parts"
export PARTS="$work/parts"

# shellcheck disable=SC2016 # variables of the hooks
mmdebstrap --quiet --variant=minbase --format=null \
    --include=systemd-sysv,udev,dbus,ifupdown,isc-dhcp-client,cloud-init,linux-image-cloud-amd64 \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/i18n/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-include=/usr/share/locale/locale.alias' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/etc/hostname' \
    --customize-hook=': > "$1/etc/machine-id"; echo "LABEL=root / ext4 defaults 0 1" > "$1/etc/fstab"' \
    --customize-hook='tar -C "$1" -c usr/bin/python3.11 usr/lib/python3 usr/lib/python3.11 usr/lib/x86_64-linux-gnu > "$PARTS/python.tar"' \
    --customize-hook='cp "$1"/boot/vmlinuz-* "$PARTS/vmlinuz"; cp "$1"/boot/initrd.img-* "$PARTS/initrd"; rm "$1"/boot/initrd.img-*' \
    --customize-hook='mkdir "$PARTS/root" && tar -C "$1" --one-file-system -c . | tar -C "$PARTS/root" -x' \
    --customize-hook='mke2fs -q -t ext4 -L root -d "$PARTS/root" "$PARTS/root.ext4" 1G && rm -r "$PARTS/root"' \
    bookworm - >&2 9>&-

# A boot partition for the boot loader, and the root partition.
cd "$work"
cat > syslinux.cfg << 'MENU'
default linux
label linux
 kernel vmlinuz
 append initrd=initrd root=LABEL=root ro console=tty0 console=ttyS0
MENU
truncate -s 96M boot.fat
mkfs.fat -n BOOT boot.fat > /dev/null
mcopy -i boot.fat parts/vmlinuz parts/initrd syslinux.cfg ::
syslinux --install boot.fat
truncate -s 1122M disk.raw
printf 'label: dos\n1M,96M,c,*\n97M,1024M,83\n' | sfdisk --quiet disk.raw
dd if=$boot_record of=disk.raw bs=440 count=1 conv=notrunc status=none
dd if=boot.fat of=disk.raw bs=1M seek=1 conv=notrunc,sparse status=none
dd if=parts/root.ext4 of=disk.raw bs=1M seek=97 conv=notrunc,sparse status=none
qemu-img convert -f raw -O qcow2 -c disk.raw disk.qcow2
mkdir python
tar -C python -x --no-same-owner -f parts/python.tar
rm -rf "$image.python"
mv python "$image.python"
# Last: if this file exists, everything exists.
mv disk.qcow2 "$image.qcow2"
finish
