# The servers' side of the cable: each address is one of its own. A few never answer.
ip address add 11.0.0.4/24 dev far
ip route add local 0.0.0.0/0 dev lo
ip -6 route add local ::/0 dev lo table main
ip route add blackhole 11.0.9.0/24
