#!/bin/sh
# Installs the agent of the metadata service in this machine, and keeps it running. It can be run again
# at any time: an agent that is installed already is not changed.
#
#   curl -s http://169.254.169.254/engine/v1/agent/install | sh
#   wget -qO- http://169.254.169.254/engine/v1/agent/install | sh
#
# METASERVICE=HOST[:PORT]  the address of the service, if it is not the usual one
# sh -s install            installs without starting, for the build of an image

fail() {
    echo "metaservice: error: $*" >&2
    exit 1
}

has() {
    command -v "$1" > /dev/null 2>&1
}

# Whether busybox has this applet.
has_applet() {
    has busybox || return 1
    busybox "$1" --help > /dev/null 2>&1
    [ $? -ne 127 ]
}

by_python() {
    if has python3; then python3 "$@"; else command python "$@"; fi
}

has_python() {
    has python3 || has python
}

# fetch URL FILE
fetch() {
    if has curl; then
        curl -fsS --connect-timeout 20 -o "$2" "$1"
    elif has wget; then
        # Without -T: some builds of busybox crash on it.
        wget -q -O "$2" "$1"
    elif has_applet wget; then
        busybox wget -q -O "$2" "$1"
    elif has_python; then
        by_python -c '
import sys
try:
    from urllib.request import urlopen
except ImportError:
    from urllib2 import urlopen
open(sys.argv[2], "wb").write(urlopen(sys.argv[1], timeout=20).read())' "$1" "$2"
    else
        fail 'there is none of curl, wget, busybox and python to fetch the agent by'
    fi
}

# Prints the SHA-256 digest of a file.
digest() {
    if has sha256sum; then
        sum=$(sha256sum < "$1")
    elif has_applet sha256sum; then
        sum=$(busybox sha256sum < "$1")
    elif has openssl; then
        sum=$(openssl dgst -sha256 -r < "$1")
    elif has_python; then
        sum=$(by_python -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1")
    else
        fail 'there is none of sha256sum, busybox, openssl and python to check the agent by'
    fi
    echo "${sum%% *}"
}

is_genuine() {
    [ -f "$1" ] && [ "$(digest "$1")" = "$expected" ]
}

# Puts the agent into a directory from which it can be run.
place() {
    mkdir -p "$1" 2> /dev/null || return 1
    agent=$1/metaservice-guest
    if is_genuine "$agent" && "$agent" --version > /dev/null 2>&1; then return 0; fi
    new=$agent.new.$$
    ( : > "$new" ) 2> /dev/null || return 1
    tries=0
    until fetch "http://$authority/engine/v1/agent/$platform" "$new"; do
        tries=$((tries + 1))
        [ "$tries" -lt 10 ] || { rm -f "$new"; fail "cannot fetch the agent from $authority"; }
        sleep 1
    done
    if ! is_genuine "$new"; then
        rm -f "$new"
        fail 'what came is not the agent: its digest is wrong'
    fi
    chmod 755 "$new" && mv -f "$new" "$agent" && "$agent" --version > /dev/null 2>&1 && return 0
    rm -f "$new" "$agent"
    return 1
}

# Runs a program that may not exist.
perhaps() {
    if has "$1"; then "$@" > /dev/null 2>&1 || :; fi
}

by_systemd() {
    units=/etc/systemd/system
    ( : >> "$units/metaservice.service" ) 2> /dev/null || units=/run/systemd/system
    mkdir -p "$units/multi-user.target.wants"
    cat > "$units/metaservice.service" << UNIT
[Unit]
Description=Agent of the metadata service
StartLimitIntervalSec=0

[Service]
ExecStart=$agent --host $authority
Restart=always
RestartSec=1
# A restart of the agent leaves its command running, and so does the end of a process by lack of memory.
KillMode=process
OOMPolicy=continue
TasksMax=infinity
Delegate=yes
Environment=HOME=/root TERM=linux
WorkingDirectory=/

[Install]
WantedBy=multi-user.target
UNIT
    ln -sf ../metaservice.service "$units/multi-user.target.wants/metaservice.service"
    if [ "$start" = yes ]; then
        systemctl daemon-reload
        systemctl start --no-block metaservice.service
    fi
}

by_openrc() {
    cat > /etc/init.d/metaservice << SCRIPT
#!/sbin/openrc-run
description="Agent of the metadata service"
supervisor=supervise-daemon
command="$agent"
command_args="--host $authority"
respawn_delay=1
respawn_max=0

depend() {
    after net
}
SCRIPT
    chmod 755 /etc/init.d/metaservice
    rc-update -q add metaservice default
    if [ "$start" = yes ]; then rc-service -q metaservice start; fi
}

by_shell() {
    cat > "$agent-keeper" << SCRIPT
#!/bin/sh
# Keeps the agent running, once.
pid=/run/metaservice-keeper.pid
other=none
if [ -f "\$pid" ]; then read -r other < "\$pid"; fi
# A process id of an earlier boot may belong to any process now, this one too.
if [ "\$other" != \$\$ ]; then
    case \$({ cat "/proc/\${other:-none}/cmdline"; } 2> /dev/null) in *metaservice-guest*) exit 0 ;; esac
fi
echo \$\$ > "\$pid"
trap '' HUP
export HOME="\${HOME:-/root}"
while :; do
    "$agent" --host "$authority"
    sleep 1
done
SCRIPT
    chmod 755 "$agent-keeper"
    # cloud-init runs user data once, and these at every boot.
    boots=/var/lib/cloud/scripts/per-boot
    if [ -d "$boots" ]; then
        printf '#!/bin/sh\n"%s" < /dev/null > /dev/null 2>&1 &\n' "$agent-keeper" > "$boots/metaservice"
        chmod 755 "$boots/metaservice"
    fi
    if [ "$start" = yes ]; then
        out=/dev/console
        ( : > "$out" ) 2> /dev/null || out=/dev/null
        if has setsid; then
            setsid "$agent-keeper" < /dev/null > "$out" 2>&1 &
        else
            "$agent-keeper" < /dev/null > "$out" 2>&1 &
        fi
    fi
}

# What must be renewed when another machine is restored from a snapshot of this one. The agent runs it
# before anything else.
renewal() {
    mkdir -p /etc/metaservice 2> /dev/null || return 0
    ( cat > /etc/metaservice/renew ) 2> /dev/null << 'SCRIPT' || return 0
#!/bin/sh
# The keys of the ssh server, and the machine id.
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
exec > /dev/null 2>&1
if ls /etc/ssh/ssh_host_*_key && command -v ssh-keygen; then
    rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
    ssh-keygen -A
    for server in ssh sshd; do
        if [ -d /run/systemd/system ]; then
            systemctl try-restart "$server.service"
        elif command -v rc-service; then
            rc-service --ifstarted "$server" restart
        fi
    done
fi
if [ -s /etc/machine-id ]; then
    umount /etc/machine-id
    : > /etc/machine-id
    tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
fi
SCRIPT
    chmod 755 /etc/metaservice/renew
}

main() {
    start=yes
    case ${1:-} in
        '') ;;
        install) start=no ;;
        *) fail "'$1' is not understood: there is only 'install'" ;;
    esac
    authority=${METASERVICE:-169.254.169.254}
    case $authority in *[!A-Za-z0-9.:_-]*) fail "METASERVICE=$authority is not HOST[:PORT]" ;; esac
    PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    # The service is never reached through a proxy.
    unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
    case $(uname -m) in
        x86_64 | amd64) platform=linux-x86_64 ;;
        aarch64 | arm64) platform=linux-aarch64 ;;
        *) platform=linux-$(uname -m) ;;
    esac
    case $platform in
#DIGESTS#
        *) fail "there is no agent for $platform" ;;
    esac
    umask 022
    for directory in /usr/local/bin /opt/metaservice/bin /var/lib/metaservice /run/metaservice-agent ''; do
        [ -n "$directory" ] || fail 'there is no directory from which the agent can be run (run this script as root)'
        if place "$directory"; then break; fi
    done
    perhaps restorecon "$agent"
    renewal
    if [ -d /run/systemd/system ]; then
        by_systemd
    elif [ -d /run/openrc ]; then
        by_openrc
    elif [ "$start" = no ] && has systemctl; then
        by_systemd
    elif [ "$start" = no ] && has openrc-run; then
        by_openrc
    else
        by_shell
    fi
    if [ "$start" = yes ]; then echo 'metaservice: the agent is started'; fi
}

# The shell reads the whole script before it runs anything: a truncated script does nothing.
main "$@"
