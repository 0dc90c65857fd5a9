//! Echo requests, to what the guest may reach.

use std::net::Ipv4Addr;

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp::{Endpoint, PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr};

use crate::world::{World, errors, next_error};

/// An echo reply, and destination unreachable: the host, and administratively prohibited (RFC 792,
/// RFC 1812).
const REPLY: (u8, u8) = (0, 0);
const HOST: (u8, u8) = (3, 1);
const PROHIBITED: (u8, u8) = (3, 13);

/// One that asks, and one that gets each ICMP message.
type Sockets = (SocketHandle, SocketHandle);

fn sockets(world: &mut World) -> Sockets {
    let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 8], vec![0; 4096]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.bind(Endpoint::Ident(7)).unwrap();
    let guest = &mut world.machine.guest;
    (guest.sockets.add(socket), errors(guest))
}

/// Sends a request, and returns the type and the code of what comes back.
async fn ping(world: &mut World, (asks, gets): Sockets, to: Ipv4Addr) -> (u8, u8) {
    let checksums = ChecksumCapabilities::default();
    let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: b"ping" };
    let socket = world.machine.guest.sockets.get_mut::<Socket>(asks);
    let bytes = socket.send(request.buffer_len(), to.into()).unwrap();
    request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums);
    let mut got = None;
    world
        .until(|guest| {
            got = next_error(guest, gets);
            got.is_some()
        })
        .await;
    if got == Some(REPLY) {
        let (bytes, from) = world.machine.guest.sockets.get_mut::<Socket>(asks).recv().unwrap();
        let packet = Icmpv4Packet::new_checked(bytes).unwrap();
        let reply = Icmpv4Repr::EchoReply { ident: 7, seq_no: 1, data: b"ping" };
        assert_eq!(Icmpv4Repr::parse(&packet, &checksums).unwrap(), reply);
        assert_eq!(from, to.into());
    }
    got.unwrap()
}

#[tokio::test]
async fn what_is_allowed_at_some_port_answers() {
    let mut world = World::new(&["a.example:443", "9.9.9.9:53/udp"]);
    world.outside.name("a.example", &["93.184.216.34"]);
    world.outside.answers("93.184.216.34");
    world.outside.answers("9.9.9.9");
    let handle = sockets(&mut world);
    let stands = world.resolve("a.example").await;
    for to in [stands, Ipv4Addr::new(9, 9, 9, 9)] {
        assert_eq!(ping(&mut world, handle, to).await, REPLY, "{to}");
    }
    let lines = world.lines(2).await;
    assert_eq!(lines[0]["name"], "a.example");
    for line in lines {
        let told = (&line["protocol"], &line["sent"], &line["verdict"]);
        assert_eq!(told, (&"icmp".into(), &4.into(), &"allowed".into()));
    }
}

#[tokio::test]
async fn everything_else_is_prohibited_and_never_asked() {
    let mut world = World::new(&["a.example", "198.18.0.0/15"]);
    let handle = sockets(&mut world);
    let stands = world.resolve("a.example").await;
    let next = Ipv4Addr::from_bits(stands.to_bits() + 1);
    for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::a00:1"]
    {
        world.outside.name("a.example", &[address]);
        world.outside.answers(address);
        assert_eq!(ping(&mut world, handle, stands).await, PROHIBITED, "{address}");
    }
    for raw in [Ipv4Addr::new(93, 184, 216, 34), Ipv4Addr::new(192, 168, 0, 1), next] {
        world.outside.answers(&raw.to_string());
        assert_eq!(ping(&mut world, handle, raw).await, PROHIBITED, "{raw}");
    }
    assert_eq!(world.outside.dialled(), [] as [&str; 0]);
}

#[tokio::test]
async fn one_that_does_not_answer_is_unreachable() {
    let mut world = World::new(&["public"]);
    let handle = sockets(&mut world);
    let got = ping(&mut world, handle, Ipv4Addr::new(93, 184, 216, 34)).await;
    assert_eq!(got, HOST);
    assert_eq!(world.outcome().await, ("allowed".into(), "unreachable".into()));
}
