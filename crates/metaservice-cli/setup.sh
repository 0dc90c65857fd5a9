#!/bin/sh
# Gets what a virtual machine needs on Debian and Ubuntu: QEMU, a kernel with its
# modules, and a static busybox; and nats-server for a queue of jobs on this host, where
# there is a package of it. What is there already is left alone.
#
# Kernel, busybox and nats-server are never installed, only unpacked into the cache
# directory: the package nats-server would start a service. QEMU is installed where that is
# allowed and removes no package, and unpacked into the cache directory otherwise.
set -eu

usage() {
    cat <<'USAGE'
Usage: setup.sh [--check]

Installs what a virtual machine needs: QEMU, a kernel with its modules, a static busybox.
Also gets nats-server. Only a queue on this host needs it, so it is no failure if it is missing.

  --check   only list what is found and what is missing; exit status 1 if a machine lacks something
  --help    print this text

What is not installed as a package is unpacked to ${XDG_CACHE_HOME:-~/.cache}/metaservice.
To use other tools, set METASERVICE_QEMU, METASERVICE_QEMU_IMG,
METASERVICE_KERNEL, METASERVICE_MODULES, METASERVICE_BUSYBOX or METASERVICE_NATS_SERVER.
USAGE
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
    exit 1
}

check_only=false
while [ $# -gt 0 ]; do
    case $1 in
        --check) check_only=true ;;
        -h | --help) usage; exit 0 ;;
        *) printf 'error: unknown argument: %s\n' "$1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done

# Messages of apt and ldd are read below, so they must not be translated.
LC_ALL=C
DEBIAN_FRONTEND=noninteractive
export LC_ALL DEBIAN_FRONTEND

if [ -n "${XDG_CACHE_HOME:-}" ]; then
    cache=$XDG_CACHE_HOME/metaservice
else
    home=${HOME:-$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)}
    [ -n "$home" ] || fail 'there is no cache directory: neither XDG_CACHE_HOME nor HOME is set'
    # One that is not there is not made: it may be a wrong name.
    [ -d "$home" ] || fail "there is no home directory $home" 'set HOME or XDG_CACHE_HOME'
    cache=$home/.cache/metaservice
fi
case $cache in
    /*) ;;
    *) fail "the cache directory must be an absolute path, not $cache" ;;
esac

case $(uname -m) in
    x86_64 | amd64)
        emulator=qemu-system-x86_64 qemu_package=qemu-system-x86 kernel_suffix=amd64 ;;
    aarch64 | arm64)
        emulator=qemu-system-aarch64 qemu_package=qemu-system-arm kernel_suffix=arm64 ;;
    *) fail "the processor $(uname -m) is not supported" 'x86_64 and aarch64 are supported' ;;
esac

# --- what is there -----------------------------------------------------------------

# Prints the path of a tool: the override, else the one on PATH, else the one in the cache.
locate() { # OVERRIDE NAME
    if [ -n "$1" ]; then
        printf '%s\n' "$1"
    elif command -v "$2" 2>/dev/null; then
        :
    elif [ -x "$cache/bin/$2" ]; then
        printf '%s\n' "$cache/bin/$2"
    else
        return 1
    fi
}

runs() { "$1" --version >/dev/null 2>&1 </dev/null; }

is_at_least() { # VERSION MAJOR MINOR
    major=${1%%.*} minor=${1#*.}
    minor=${minor%%[!0-9]*}
    case $major$minor in '' | *[!0-9]*) return 1 ;; esac
    [ "$major" -gt "$2" ] || { [ "$major" -eq "$2" ] && [ "${minor:-0}" -ge "$3" ]; }
}

# Older ones cannot hand network frames to a socket.
is_new_enough() { is_at_least "$1" 7 2; }

is_static() {
    [ -x "$1" ] || return 1
    # ldd says of what is no program that it is static, too.
    "$1" true >/dev/null 2>&1 </dev/null || return 1
    case $(ldd "$1" 2>&1) in
        *'not a dynamic executable'* | *'statically linked'*) return 0 ;;
        *) return 1 ;;
    esac
}

find_qemu() {
    for qemu in "${METASERVICE_QEMU:-$(command -v "$emulator" || :)}" "$cache/bin/$emulator"; do
        [ -n "$qemu" ] || continue
        qemu_version=$("$qemu" --version 2>/dev/null </dev/null | sed -n 's/.* version \([0-9][0-9.]*\).*/\1/p')
        if is_new_enough "$qemu_version"; then return 0; fi
    done
    return 1
}
find_qemu_img() { qemu_img=$(locate "${METASERVICE_QEMU_IMG:-}" qemu-img) && runs "$qemu_img"; }

find_busybox() {
    for busybox in "${METASERVICE_BUSYBOX:-}" "$(command -v busybox || :)" "$cache/bin/busybox"; do
        if [ -n "$busybox" ] && is_static "$busybox"; then return 0; fi
    done
    return 1
}

# True for a kernel whose files are those that were unpacked.
kernel_is_whole() { # DIRECTORY
    [ -s "$1/vmlinuz" ] && [ -s "$1/modules/modules.dep" ] || return 1
    # An earlier version has left no checksums.
    [ ! -e "$1/checksums" ] || (cd "$1" && sha256sum -c --status checksums >/dev/null 2>&1)
}

find_kernel() {
    if [ -n "${METASERVICE_KERNEL:-}" ] && [ -r "${METASERVICE_KERNEL}" ]; then
        kernel=$METASERVICE_KERNEL
    elif kernel_is_whole "$cache/kernel/current"; then
        kernel="$cache/kernel/current/vmlinuz ($(readlink "$cache/kernel/current"))"
    else
        return 1
    fi
}

# The worker takes the first one that is there, in this order. Older ones than 2.9 have no queue.
find_nats_server() {
    for nats_server in "${METASERVICE_NATS_SERVER:-}" "$(command -v nats-server || :)" \
        /usr/sbin/nats-server /usr/local/sbin/nats-server /usr/local/bin/nats-server "$cache/bin/nats-server"; do
        [ -n "$nats_server" ] && [ -f "$nats_server" ] || continue
        nats_version=$("$nats_server" --version 2>/dev/null </dev/null | sed -n 's/^nats-server: v\([0-9][0-9.]*\).*/\1/p')
        if is_at_least "$nats_version" 2 9; then return 0; fi
        break
    done
    return 1
}

missing=
lacks_nats_server=false
look() {
    missing= lacks_nats_server=false
    if find_qemu; then say "found:   QEMU      $qemu ($qemu_version)"; else missing="$missing qemu"; fi
    if find_qemu_img; then say "found:   qemu-img  $qemu_img"; else missing="$missing qemu-img"; fi
    if find_busybox; then say "found:   busybox   $busybox"; else missing="$missing busybox"; fi
    if find_kernel; then say "found:   kernel    $kernel"; else missing="$missing kernel"; fi
    if find_nats_server; then say "found:   NATS      $nats_server ($nats_version)"; else lacks_nats_server=true; fi
}

have_apt() {
    for tool in apt-get apt-cache dpkg-deb; do
        command -v "$tool" >/dev/null 2>&1 || return 1
    done
}

finish() {
    if $lacks_nats_server; then say 'missing: nats-server 2.9 or newer, which only a queue on this host needs'; fi
    [ -z "$missing" ] || exit 1
    say 'Everything that a virtual machine needs is installed.'
    exit 0
}

look
for thing in $missing; do say "missing: $thing"; done
if $check_only || { [ -z "$missing" ] && { ! $lacks_nats_server || ! have_apt; }; }; then finish; fi

have_apt || fail "this system has no $tool, so packages cannot be fetched" \
    "install QEMU 7.2 or newer ($emulator and qemu-img) and a static busybox by hand" \
    'set METASERVICE_KERNEL to a kernel image and METASERVICE_MODULES to its directory in /lib/modules'

# --- one at a time, and nothing half-written -----------------------------------------

# Other users must not be able to change what is executed and booted from here.
umask 022
mkdir -p "$cache/bin" "$cache/kernel" 2>/dev/null || fail "cannot write to $cache" \
    'set XDG_CACHE_HOME to a directory in which you can write'
exec 9>"$cache/.setup.lock" || fail "cannot write to $cache"
if command -v flock >/dev/null 2>&1; then flock 9; fi
# This process has the lock, so the files of an interrupted run can be removed.
rm -rf "$cache"/.staging.*
staging=$cache/.staging.$$
clean_up() { rm -rf "$staging"; }
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$staging" || fail "cannot write to $cache"

# What was unpacked is on the disk before it gets its name.
settle() { sync -f "$staging" 2>/dev/null || sync; }

# --- apt ------------------------------------------------------------------------------

if [ "$(id -u)" -eq 0 ]; then
    as_root=
    may_be_root=true
elif command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1; then
    as_root='sudo -n'
    may_be_root=true
else
    as_root=
    may_be_root=false
fi

updated=false
update_lists() { # WHY
    if $updated; then return 1; fi
    $may_be_root || fail "$1, and an update of apt's lists needs root" \
        "run 'sudo apt-get update', then run this again"
    say "updating apt's lists: $1"
    # One unreachable source of many is no failure: what counts is asked again afterwards.
    # shellcheck disable=SC2086 # as_root is empty or two words
    $as_root apt-get -q update >"$staging/update.log" 2>&1 </dev/null || :
    updated=true
}

known() { apt-cache show "$1" 2>/dev/null | grep -q '^Filename:'; }

require_known() { # PACKAGE
    if known "$1"; then return 0; fi
    update_lists "apt does not know the package $1" || :
    known "$1" || fail "apt does not know the package $1" \
        "$(grep -m1 -E '^(E|W|Err)' "$staging/update.log" 2>/dev/null || printf '%s' "check apt's sources")"
}

download_once() {
    mkdir -p "$staging/debs"
    (cd "$staging/debs" && apt-get -q -o APT::Sandbox::User=root download "$@") \
        >"$staging/download.log" 2>&1 </dev/null
}

# Fetches packages and unpacks them into a directory. apt checks them against its signed lists.
unpack() { # DIRECTORY PACKAGE...
    directory=$1
    shift
    rm -rf "$staging/debs"
    if ! download_once "$@"; then
        # A list from long ago names files that the archive has replaced since.
        if update_lists 'a download failed, possibly because of old lists' && download_once "$@"; then
            :
        else
            grep -E '^(E|W|Err)' "$staging/download.log" >&2 || cat "$staging/download.log" >&2
            fail "could not fetch: $*" \
                "check the network and the free space in $cache; no partial files were left"
        fi
    fi
    mkdir -p "$directory"
    for deb in "$staging"/debs/*.deb; do
        if ! dpkg-deb -x "$deb" "$directory" 2>"$staging/unpack.log"; then
            # A full disk leaves the log empty, too.
            reason=$(grep -m 1 -v '^$' "$staging/unpack.log" || printf '%s' 'no reason given, possibly no free space')
            fail "could not unpack ${deb##*/}: $reason" \
                "check the free space in $cache; no partial files were left"
        fi
    done
    rm -rf "$staging/debs"
}

# Prints the packages that apt would bring in for the named ones. libc stays the system's:
# it must match the system's own program loader.
closure() { # PACKAGE...
    apt-get -s -q install --no-install-recommends "$@" >"$staging/plan" 2>/dev/null </dev/null || {
        # What is installed here is in the way: plan as if nothing were.
        : >"$staging/status"
        apt-get -s -q -o "Dir::State::status=$staging/status" install --no-install-recommends "$@" \
            >"$staging/plan" 2>/dev/null </dev/null || return 1
    }
    sed -n 's/^Inst \([^ ]*\).*/\1/p' "$staging/plan" |
        grep -v -x -E '(libc6|libc-bin|libgcc-s1|gcc-[0-9]+-base)(:.*)?' || :
}

# --- each missing thing -----------------------------------------------------------------

get_busybox() {
    require_known busybox-static
    say "busybox: unpacking package busybox-static to $cache/bin/busybox"
    unpack "$staging/busybox" busybox-static
    for candidate in bin/busybox usr/bin/busybox; do
        if [ -f "$staging/busybox/$candidate" ]; then
            settle
            mv -f "$staging/busybox/$candidate" "$cache/bin/busybox"
            return 0
        fi
    done
    fail 'the package busybox-static has no busybox'
}

# In a subshell: a failure here must not end the rest.
get_nats_server() (
    # The program of the variable is the user's.
    [ -z "${METASERVICE_NATS_SERVER:-}" ] || return 1
    if ! known nats-server; then
        # Lists that know another package do not lack this one by their age.
        if known busybox-static || ! $may_be_root; then return 1; fi
        update_lists 'apt does not know the package nats-server' && known nats-server || return 1
    fi
    say "NATS: unpacking package nats-server to $cache/bin/nats-server"
    unpack "$staging/nats-server" nats-server
    program=$staging/nats-server/usr/sbin/nats-server
    [ -f "$program" ] || program=$staging/nats-server/usr/bin/nats-server
    [ -x "$program" ] || fail 'the package nats-server has no nats-server'
    settle
    mv -f "$program" "$cache/bin/nats-server"
)

find_depmod() {
    for depmod in "$(command -v depmod || :)" /sbin/depmod /usr/sbin/depmod; do
        if [ -n "$depmod" ] && [ -x "$depmod" ]; then return 0; fi
    done
    if find_busybox && "$busybox" --list 2>/dev/null | grep -q -x depmod; then
        depmod="$busybox depmod"
        return 0
    fi
    return 1
}

# Drivers of hardware that no virtual machine has are four fifths of a kernel package.
prune_modules() { # DIRECTORY
    rm -rf "$1/sound" "$1/samples" "$1/net/wireless" "$1/net/mac80211" "$1/net/bluetooth" "$1/fs/ocfs2"
    for drivers in "$1"/drivers/*; do
        case ${drivers##*/} in
            acpi | block | cdrom | char | dax | firmware | input | md | misc | net | nvdimm | nvme | ptp | rtc | scsi | \
                vhost | virtio | watchdog | xen) ;;
            *) rm -rf "$drivers" ;;
        esac
    done
    # Of these only what is not tied to a maker's card.
    for directory in "$1"/drivers/net/*/ "$1"/drivers/scsi/*/ "$1"/drivers/misc/*/ "$1"/drivers/input/*/; do
        case $directory in
            */net/bonding/ | */net/vxlan/ | */net/wireguard/ | */net/ipvlan/ | */misc/pvpanic/) ;;
            *) rm -rf "$directory" ;;
        esac
    done
}

get_kernel() {
    # Debian's smaller cloud kernel is no choice: it has no 9p, and so could not share a directory.
    meta=linux-image-$kernel_suffix
    if ! known "$meta" && known linux-image-virtual; then meta=linux-image-virtual; fi
    require_known "$meta"
    image=$(apt-cache depends --important "$meta" | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    [ -n "$image" ] || image=$meta
    # Some releases ship the modules, or the kernel itself, in packages of their own.
    parts=$(apt-cache depends --important "$image" |
        sed -n 's/^ *Depends: \(linux-\(modules\|binary\|image\)-[0-9][^ ]*\)$/\1/p' | sort -u)
    say "kernel: unpacking package $image to $cache/kernel"
    # shellcheck disable=SC2086 # one word a package
    unpack "$staging/package" "$image" $parts

    for modules in "$staging"/package/lib/modules/* "$staging"/package/usr/lib/modules/*; do
        if [ -d "$modules/kernel" ]; then break; fi
    done
    [ -d "$modules/kernel" ] || fail "the package $image has no modules"
    version=${modules##*/}
    vmlinuz=
    for candidate in "$staging/package/boot/vmlinuz-$version" "$modules/vmlinuz"; do
        if [ -f "$candidate" ]; then vmlinuz=$candidate; break; fi
    done
    [ -n "$vmlinuz" ] || fail "the package $image has no kernel image"

    prune_modules "$modules/kernel"

    # The order in which modules load is worked out when a kernel package is installed,
    # which does not happen here.
    find_depmod || fail 'depmod is missing' "run 'apt-get install kmod'"
    mkdir -p "$staging/base/lib/modules"
    mv "$modules" "$staging/base/lib/modules/$version"
    modules=$staging/base/lib/modules/$version
    # shellcheck disable=SC2086 # depmod may be an applet: two words
    $depmod -b "$staging/base" "$version" 2>"$staging/depmod.log" ||
        fail "depmod failed: $(head -n 1 "$staging/depmod.log")"
    # A depmod that cannot read compressed modules finds none of them in need of another.
    grep -q '/virtio_net\.ko' "$modules/modules.builtin" ||
        grep -q '/virtio_net\.ko[^:]*: .' "$modules/modules.dep" ||
        fail "$depmod cannot read the modules of $version" "run 'apt-get install kmod', then run this again"

    mkdir "$staging/kernel"
    mv "$vmlinuz" "$staging/kernel/vmlinuz"
    rm -f "$modules/vmlinuz" "$modules/build" "$modules/source"
    mv "$modules" "$staging/kernel/modules"
    if [ -f "$staging/package/boot/config-$version" ]; then
        mv "$staging/package/boot/config-$version" "$staging/kernel/config"
    fi
    chmod -R u+rwX,go+rX "$staging/kernel"
    (cd "$staging/kernel" && find . -type f -exec sha256sum {} + >"$staging/checksums")
    mv "$staging/checksums" "$staging/kernel/checksums"
    settle
    rm -rf "${cache:?}/kernel/$version"
    mv "$staging/kernel" "$cache/kernel/$version"
    ln -s "$version" "$staging/current"
    # -T: the link itself is replaced, not a file put into the directory that it names.
    mv -f -T "$staging/current" "$cache/kernel/current"
}

# True when apt may install the packages here and would remove or downgrade none.
may_install() { # PACKAGE...
    $may_be_root || return 1
    # shellcheck disable=SC2086 # as_root is empty or two words
    $as_root apt-get -s -q install --no-install-recommends "$@" >"$staging/plan" 2>&1 </dev/null || return 1
    ! grep -q -E '^Remv |DOWNGRADED' "$staging/plan"
}

# A program from the cache that finds its libraries, modules and firmware there.
write_wrapper() { # NAME
    cat >"$staging/wrapper" <<WRAPPER
#!/bin/sh
# Runs the QEMU that was unpacked beside this directory.
root=\${0%/*}/../qemu
LD_LIBRARY_PATH=\$root/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
QEMU_MODULE_DIR=\$root/lib/qemu
export LD_LIBRARY_PATH QEMU_MODULE_DIR
exec "\$root/usr/bin/$1"$2 "\$@"
WRAPPER
    chmod 755 "$staging/wrapper"
    settle
    mv -f "$staging/wrapper" "$cache/bin/$1"
}

unpack_qemu() { # PACKAGE...
    packages=$(closure "$@") || fail "apt cannot install $*" "run 'apt-get -s install $*' to see why"
    # Those that were named may be installed and broken: they are wanted in any case.
    packages=$(printf '%s\n' "$packages" "$@" | sort -u)
    say "QEMU: unpacking these packages to $cache/qemu:" "$(printf '%s' "$packages" | tr '\n' ' ')"
    # shellcheck disable=SC2086
    unpack "$staging/qemu" $packages
    # Libraries live in a directory named after the processor, and in /lib or /usr/lib by release.
    for directory in "$staging"/qemu/usr/lib/*-linux-gnu* "$staging"/qemu/lib/*-linux-gnu*; do
        if [ -d "$directory" ]; then
            mkdir -p "$staging/qemu/libraries"
            cp -a "$directory/." "$staging/qemu/libraries/"
            rm -rf "$directory"
        fi
    done
    rm -rf "$staging/qemu/lib" "$staging/qemu/etc" "$staging/qemu/var" "$staging/qemu/usr/lib/qemu" \
        "$staging/qemu/usr/libexec" "$staging/qemu/usr/share/doc" "$staging/qemu/usr/share/man" \
        "$staging/qemu/usr/share/locale" "$staging/qemu/usr/share/icons"
    mv "$staging/qemu/libraries" "$staging/qemu/lib"
    for program in "$staging"/qemu/usr/bin/*; do
        case ${program##*/} in
            "$emulator" | qemu-img) ;;
            *) rm -f "$program" ;;
        esac
    done
    settle
    rm -rf "${cache:?}/qemu"
    mv "$staging/qemu" "$cache/qemu"
    firmware=
    for directory in usr/share/qemu usr/share/seabios usr/lib/ipxe/qemu; do
        if [ -d "$cache/qemu/$directory" ]; then firmware="$firmware -L \"\$root/$directory\""; fi
    done
    if [ -x "$cache/qemu/usr/bin/$emulator" ]; then write_wrapper "$emulator" "$firmware"; fi
    if [ -x "$cache/qemu/usr/bin/qemu-img" ]; then write_wrapper qemu-img ''; fi
}

get_qemu() {
    wanted=
    case " $missing " in *' qemu '*) wanted=$qemu_package ;; esac
    case " $missing " in *' qemu-img '*) wanted="$wanted qemu-utils" ;; esac
    for package in $wanted; do
        require_known "$package"
        # Versions look like 1:7.2+dfsg-7.
        candidate=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}//p')
        is_new_enough "$candidate" || fail "this release has QEMU $candidate; 7.2 or newer is needed" \
            "install a newer QEMU by hand, and set METASERVICE_QEMU to its $emulator"
    done
    # shellcheck disable=SC2086 # one word a package
    if may_install $wanted; then
        say "QEMU: installing packages:$(sed -n 's/^Inst \([^ ]*\).*/ \1/p' "$staging/plan" | tr -d '\n')"
        # shellcheck disable=SC2086
        if $as_root apt-get -q -y install --no-install-recommends $wanted \
            >"$staging/install.log" 2>&1 </dev/null; then
            return 0
        fi
        # shellcheck disable=SC2086
        if update_lists 'the installation failed, possibly because of old lists' && may_install $wanted &&
            $as_root apt-get -q -y install --no-install-recommends $wanted \
                >"$staging/install.log" 2>&1 </dev/null; then
            return 0
        fi
        grep -E '^(E|W|Err)' "$staging/install.log" >&2 || :
        say 'QEMU: the installation failed'
    elif $may_be_root; then
        say 'QEMU: an installation would remove or downgrade packages of this system'
    else
        say 'QEMU: an installation needs root'
    fi
    # shellcheck disable=SC2086
    unpack_qemu $wanted
}

# busybox comes first: its depmod may be the only one.
case " $missing " in *' busybox '*) get_busybox ;; esac
case " $missing " in *' kernel '*) get_kernel ;; esac
case " $missing " in *' qemu '* | *' qemu-img '*) get_qemu ;; esac
if $lacks_nats_server; then get_nats_server || :; fi

hash -r
look >"$staging/report"
cat "$staging/report"
if [ -n "$missing" ]; then
    fail "still missing:$missing" "remove $cache and try again"
fi
finish
