# What an image goes through before it is kept, in the image, as root. $1 says whether the machine
# sees the outside world; the rest is the user's command.
network=$1
shift

has() {
    command -v "$1" > /dev/null 2>&1
}

# The image's own start is over when its services are up and its cloud-init is through.
if has cloud-init; then cloud-init status --wait > /dev/null 2>&1; fi
if [ -d /run/systemd/system ]; then systemctl is-system-running --wait > /dev/null 2>&1; fi

if [ $# -gt 0 ]; then
    "$@" || exit
fi

# The lists of the package manager, once it has nothing else to do.
lists() {
    if has apt-get; then apt-get -q -o DPkg::Lock::Timeout=300 update
    elif has dnf; then dnf -q makecache
    elif has yum; then yum -q makecache
    elif has zypper; then zypper -q refresh
    elif has apk; then apk -q update
    elif has pacman; then pacman -Sy
    fi
}
if [ "$network" = user ] && ! lists > /dev/null 2>&1; then
    echo 'metaservice: the lists of packages cannot be fetched from here' >&2
fi

# An agent that starts by itself needs no cloud-init before it.
if [ -f /etc/systemd/system/metaservice.service ] || [ -f /etc/init.d/metaservice ]; then
    if [ -d /etc/cloud ]; then : > /etc/cloud/cloud-init.disabled || exit; fi
fi

# What is one machine's alone: its id, what its random numbers begin with, its leases. With the keys of
# its ssh server something has to make others.
if [ -f /etc/machine-id ]; then : > /etc/machine-id; fi
if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
    ln -sf /etc/machine-id /var/lib/dbus/machine-id
fi
rm -f /var/lib/systemd/random-seed /var/lib/dhcp/*.leases /var/lib/NetworkManager/*.lease
if [ -d /run/systemd/system ] && has ssh-keygen && ls /etc/ssh/ssh_host_*_key > /dev/null 2>&1; then
    cat > /etc/systemd/system/metaservice-ssh-keys.service << UNIT || exit
[Unit]
Description=Keys of this machine's own for its ssh server
Before=ssh.service sshd.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=$(command -v ssh-keygen) -A

[Install]
WantedBy=multi-user.target
UNIT
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -sf ../metaservice-ssh-keys.service /etc/systemd/system/multi-user.target.wants/ || exit
    rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
fi
sync
