# What an image goes through before it is kept, in the image, as root. $1 says whether the machine
# sees the outside world; the rest is the user's command. Whatever fails here fails all of it.
unset METASERVICE_STEPS
network=$1
shift

fail() {
    echo "metaservice: error: $*" >&2
    exit 1
}

has() {
    command -v "$1" > /dev/null 2>&1
}

# The image's own start is over when its services are up and its cloud-init is through.
if has cloud-init; then
    cloud-init status --wait > /dev/null 2>&1
    if grep -q scripts-user /run/cloud-init/result.json 2> /dev/null; then
        fail 'the user data have failed; /var/log/cloud-init-output.log says why'
    fi
fi
if [ -d /run/systemd/system ]; then systemctl is-system-running --wait > /dev/null 2>&1; fi

# The lists of the package manager. apt takes a mirror that cannot be reached for no error by itself.
lists() {
    if has apt-get; then apt-get -q -o APT::Update::Error-Mode=any update
    elif has dnf; then dnf -q makecache
    elif has yum; then yum -q makecache
    elif has zypper; then zypper -q refresh
    elif has apk; then apk -q update
    elif has pacman; then pacman -Sy
    fi
}

if [ "$network" = some ]; then
    tries=0
    until said=$(lists 2>&1); do
        tries=$((tries + 1))
        # Another process is fetching them, for example a service of the new machine.
        case $said in
            *'get lock'* | *'another'*) [ "$tries" -lt 60 ] && sleep 5 && continue ;;
        esac
        printf 'metaservice: the lists of packages cannot be fetched:\n%s\n' "$said" >&2
        break
    done
fi

if [ $# -gt 0 ]; then
    (exec "$@") || exit
fi

# An agent that starts by itself, from the disk, needs no cloud-init before it.
starter=
if [ -f /etc/systemd/system/metaservice.service ]; then
    starter=/etc/systemd/system/metaservice.service
elif [ -f /etc/init.d/metaservice ]; then
    starter=/etc/init.d/metaservice
fi
if [ -n "$starter" ]; then
    if grep -q /run/ "$starter"; then fail 'the agent has no place on the disk that it can be run from'; fi
    if [ -d /etc/cloud ]; then
        : > /etc/cloud/cloud-init.disabled || fail 'cloud-init cannot be told not to run again'
    fi
fi

# What is one machine's alone: its id, what its random numbers begin with, its leases, the keys of its
# ssh server where something makes others.
if [ -f /etc/machine-id ]; then
    : > /etc/machine-id || fail 'the id of the machine cannot be removed'
    if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
        ln -sf /etc/machine-id /var/lib/dbus/machine-id || fail 'the id of dbus cannot be removed'
    fi
fi
# Stopped first: their end writes them again.
if [ -d /run/systemd/system ]; then
    systemctl stop systemd-random-seed.service > /dev/null 2>&1
elif has rc-service; then
    for seed in seedrng urandom; do rc-service "$seed" stop; done > /dev/null 2>&1
fi
rm -rf /var/lib/systemd/random-seed /var/lib/seedrng /var/lib/misc/random-seed /var/lib/urandom \
    /var/lib/dhcp/*.leases /var/lib/NetworkManager/*.lease || fail 'what is one machine'\''s alone cannot be removed'
if ls /etc/ssh/ssh_host_*_key > /dev/null 2>&1 && [ -d /run/systemd/system ] && has ssh-keygen; then
    cat > /etc/systemd/system/metaservice-ssh-keys.service << UNIT || fail 'the keys of the ssh server cannot be removed'
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
    mkdir -p /etc/systemd/system/multi-user.target.wants &&
        ln -sf ../metaservice-ssh-keys.service /etc/systemd/system/multi-user.target.wants/ &&
        rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub ||
        fail 'the keys of the ssh server cannot be removed'
elif ls /etc/ssh/ssh_host_*_key > /dev/null 2>&1; then
    echo 'metaservice: nothing here makes keys for the ssh server at boot: all machines of the image have the same' >&2
fi
sync
