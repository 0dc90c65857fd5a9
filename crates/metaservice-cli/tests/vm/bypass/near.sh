# The tool's side of the cable: everything else is on the far side, also the resolver.
# Arguments: the files that are its /etc/resolv.conf and its /etc/nsswitch.conf.
mount --bind "$1" "$(readlink -f /etc/resolv.conf)"
mount --bind "$2" "$(readlink -f /etc/nsswitch.conf)"
ip route add default via 11.0.0.2
ip -6 route add default via 2a00:e::2
# The tool may ping.
echo 0 0 > /proc/sys/net/ipv4/ping_group_range
