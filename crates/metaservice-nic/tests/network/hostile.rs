//! Whatever a guest sends, the card does not crash, and continues to serve.

use std::time::Duration;

use metaservice_nic::{
    Config, Limits, SERVICE_HARDWARE_ADDRESS,
    frame::{Outgoing, Splitter},
    interface::Interface,
};
use metaservice_testing::network::{ADDRESS, Flags, HARDWARE, Segment, ipv4_frame};
use proptest::prelude::*;

struct Card {
    interface: Interface,
    outgoing: Outgoing,
    now: Duration,
    /// The service's next sequence number of the flow from port 9, as far as it was seen.
    service: u32,
}

impl Card {
    fn new() -> Self {
        let mut limits = Limits::default();
        (limits.connections, limits.half_open) = (8, 4);
        let config = Config::default().limits(limits);
        Self {
            interface: Interface::new(&config, 1),
            outgoing: Outgoing::new(),
            now: Duration::ZERO,
            service: 0,
        }
    }

    fn step(&mut self, frame: &[u8]) {
        self.interface.receive(frame, self.now, &mut self.outgoing);
        self.interface.poll(self.now, &mut self.outgoing);
        let own = 9u16.to_be_bytes();
        for frame in self.outgoing.frames_since(0) {
            if frame.len() >= 54
                && frame[12..14] == [8, 0]
                && frame[23] == 6
                && frame[36..38] == own
            {
                self.service = u32::from_be_bytes(frame[38..42].try_into().unwrap());
                self.service += u32::from(frame[47] & 3 != 0);
            }
        }
        self.outgoing.sent(self.outgoing.unsent().len());
    }

    /// A connection by hand: SYN, ACK with four bytes.
    fn serves(&mut self) -> bool {
        let accepted = std::iter::from_fn(|| self.interface.accept()).collect::<Vec<_>>();
        for id in accepted {
            self.interface.release(id, self.now);
        }
        // The remains of the chaos get the time to end.
        for _ in 0..2000 {
            if !self.interface.has_backlog() {
                let Some(deadline) = self.interface.deadline() else { break };
                self.now = self.now.max(deadline);
            }
            self.interface.poll(self.now, &mut self.outgoing);
            self.outgoing.sent(self.outgoing.unsent().len());
        }
        if !self.interface.is_idle() {
            return false;
        }
        let mut service = None;
        self.interface.receive(
            &Segment::syn(11, 70).window(1000).frame(),
            self.now,
            &mut self.outgoing,
        );
        self.interface.poll(self.now, &mut self.outgoing);
        for frame in self.outgoing.frames_since(0) {
            if frame.len() >= 54 && frame[36..38] == 11u16.to_be_bytes() {
                service = Some(u32::from_be_bytes(frame[38..42].try_into().unwrap()));
            }
        }
        self.outgoing.sent(self.outgoing.unsent().len());
        let Some(service) = service else { return false };
        self.step(
            &Segment::new(11, 71, service.wrapping_add(1), Flags::PSH | Flags::ACK)
                .window(1000)
                .payload(b"ping")
                .frame(),
        );
        while let Some(id) = self.interface.accept() {
            let mut bytes = Vec::new();
            let _ = self.interface.read(id, |slice| {
                bytes.extend_from_slice(slice);
                slice.len()
            });
            if bytes == b"ping" {
                return true;
            }
        }
        false
    }
}

/// Frames that pass the first checks.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let header = |ethertype: [u8; 2]| {
        let mut frame = SERVICE_HARDWARE_ADDRESS.to_vec();
        frame.extend(HARDWARE);
        frame.extend(ethertype);
        frame
    };
    let bytes = || proptest::collection::vec(any::<u8>(), 0..400);
    prop_oneof![
        bytes(),
        (bytes(), prop_oneof![Just([8u8, 0]), Just([8, 6]), Just([0x86, 0xdd]), any::<[u8; 2]>()])
            .prop_map(move |(payload, ethertype)| [header(ethertype), payload].concat()),
        (bytes(), prop_oneof![Just(1u8), Just(2), Just(6), Just(17), any::<u8>()], any::<bool>())
            .prop_map(|(payload, protocol, broadcast)| {
                let to = if broadcast { [255; 4] } else { [169, 254, 169, 254] };
                ipv4_frame(ADDRESS, to.into(), protocol, &payload)
            }),
        (any::<u16>(), any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), bytes()).prop_map(
            |(port, a, b, flags, window, payload)| Segment::new(port, a, b, Flags(flags))
                .window(window)
                .payload(&payload)
                .frame()
        ),
        // A DHCP message with any options.
        (bytes(), any::<[u8; 4]>()).prop_map(|(options, current)| {
            let mut udp = vec![0, 68, 0, 67, 0, 0, 0, 0, 1, 1, 6, 0];
            udp.extend([0; 8]);
            udp.extend(current);
            udp.extend([0; 12]);
            udp.extend(HARDWARE);
            udp.resize(8 + 236, 0);
            udp.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 3]);
            udp.extend(options);
            let length = u16::try_from(udp.len()).unwrap();
            udp[4..6].copy_from_slice(&length.to_be_bytes());
            ipv4_frame([0; 4].into(), [255; 4].into(), 17, &udp)
        }),
    ]
}

/// An operation of the guest or of the service in the life of a connection.
#[derive(Debug, Clone)]
enum Act {
    /// A segment near the one that is expected: offsets from the expected numbers.
    Segment {
        sequence: i32,
        acknowledged: i32,
        flags: u8,
        window: u16,
        length: usize,
    },
    Read(usize),
    Write(usize),
    ShutDown,
    Release,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let near = || {
        prop_oneof![
            4 => Just(0i32),
            2 => -3i32..3,
            2 => -70_000i32..70_000,
            1 => -5_000_000i32..10_000_000,
            1 => any::<i32>(),
        ]
    };
    let flags = prop_oneof![4 => Just(16u8), 2 => Just(24), 1 => Just(17), 1 => Just(2), 1 => Just(20), 1 => 0u8..64];
    let window = prop_oneof![Just(0u16), Just(1), Just(65535), any::<u16>()];
    prop_oneof![
        10 => (near(), near(), flags, window, prop_oneof![Just(0usize), Just(1), 0usize..60_000])
            .prop_map(|(sequence, acknowledged, flags, window, length)| {
                Act::Segment { sequence, acknowledged, flags, window, length }
            }),
        2 => (1usize..5_000_000).prop_map(Act::Read),
        3 => (1usize..3_000_000).prop_map(Act::Write),
        1 => Just(Act::ShutDown),
        1 => Just(Act::Release),
        2 => prop_oneof![0u64..100, 0u64..2_000_000].prop_map(Act::Pass),
    ]
}

proptest! {
    #[test]
    fn any_frames_leave_the_card_serving(frames in proptest::collection::vec(plausible(), 0..60)) {
        let mut card = Card::new();
        for frame in frames {
            card.step(&frame);
        }
        prop_assert!(card.serves());
        prop_assert!(card.interface.statistics().peak_connections <= 8);
    }

    #[test]
    fn any_bytes_are_split_and_survived(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
        whole in plausible(),
    ) {
        let (mut card, mut splitter) = (Card::new(), Splitter::new());
        let mut wire = u32::try_from(whole.len()).unwrap().to_be_bytes().to_vec();
        wire.extend(whole);
        for piece in std::iter::once(wire).chain(pieces) {
            splitter.unfilled()[..piece.len()].copy_from_slice(&piece);
            splitter.filled(piece.len());
            while let Ok(Some(frame)) = splitter.next_frame() {
                card.interface.receive(frame, Duration::ZERO, &mut card.outgoing);
            }
            if splitter.next_frame().is_err() {
                break;
            }
        }
        prop_assert!(card.serves());
    }

    #[test]
    fn any_course_of_a_connection_is_survived(acts in proptest::collection::vec(act(), 0..80)) {
        let mut card = Card::new();
        card.step(&Segment::syn(9, 0).frame());
        let mut next = 1u32;
        let service = card.service;
        card.step(&Segment::ack(9, next, service).frame());
        let id = card.interface.accept().unwrap();
        let mut held = true;
        for act in acts {
            match act {
                Act::Segment { sequence, acknowledged, flags, window, length } => {
                    let payload = vec![3; length];
                    let at = next.wrapping_add_signed(sequence);
                    let acknowledged = card.service.wrapping_add_signed(acknowledged);
                    card.step(&Segment::new(9, at, acknowledged, Flags(flags)).window(window).payload(&payload).frame());
                    if sequence == 0 {
                        next = next.wrapping_add(u32::try_from(length).unwrap());
                    }
                }
                Act::Read(most) if held => {
                    let mut left = most;
                    let _ = card.interface.read(id, |bytes| {
                        let count = bytes.len().min(left);
                        left -= count;
                        count
                    });
                }
                Act::Write(length) if held => {
                    let _ = card.interface.write(id, &vec![5; length]);
                }
                Act::ShutDown if held => card.interface.shut_down(id),
                Act::Release if held => {
                    card.interface.release(id, card.now);
                    held = false;
                }
                Act::Pass(milliseconds) => card.now += Duration::from_millis(milliseconds),
                _ => {}
            }
            card.interface.poll(card.now, &mut card.outgoing);
            prop_assert!(card.outgoing.unsent().len() < 1 << 20);
            card.outgoing.sent(card.outgoing.unsent().len());
        }
        if held {
            card.interface.release(id, card.now);
        }
        prop_assert!(card.serves());
    }
}

/// The property above found this: TCP wants this connection to be polled at once, but sends
/// nothing, and wants it again until the connection ends.
#[test]
fn a_connection_that_never_settles_is_asked_less_and_less() {
    let mut card = Card::new();
    card.step(&Segment::syn(9, 0).frame());
    let service = card.service;
    card.step(&Segment::ack(9, 1, service).frame());
    let id = card.interface.accept().unwrap();
    let settle = |card: &mut Card| {
        card.interface.poll(card.now, &mut card.outgoing);
        card.outgoing.sent(card.outgoing.unsent().len());
    };
    card.interface.write(id, &vec![5; 523_841]).unwrap();
    settle(&mut card);
    let service = card.service;
    card.step(&Segment::ack(9, 1u32.wrapping_sub(58_272), service).window(0).frame());
    card.interface.shut_down(id);
    settle(&mut card);
    for (next, payload) in [(1, &[3][..]), (2, &[])] {
        let service = card.service;
        card.step(&Segment::ack(9, next, service).window(0).payload(payload).frame());
    }
    card.interface.release(id, card.now);
    assert!(card.serves());
}

/// Five thousand frames at a limit of a thousand a second: the guest waits, and no frame is lost.
#[tokio::test(start_paused = true)]
async fn a_guest_that_sends_more_frames_than_it_may_is_held_back() {
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;

    let (mut guest, host) = tokio::net::UnixStream::pair().expect("a socket pair");
    let mut limits = Limits::default();
    limits.frames = 1000;
    let (nic, driver) = metaservice_nic::attach(host, Config::default().limits(limits));
    let begin = tokio::time::Instant::now();
    let running = tokio::spawn(driver.run());
    let frame = [&20u32.to_be_bytes()[..], &[0xff; 20]].concat();
    for _ in 0..500 {
        guest.write_all(&frame.repeat(10)).await.expect("a card that reads");
    }
    drop(guest);
    let statistics = running.await.expect("a driver").expect("a stream in step");
    assert_eq!(statistics.frames_received, 5000);
    let elapsed = begin.elapsed();
    assert!(
        elapsed > Duration::from_millis(4800) && elapsed < Duration::from_secs(6),
        "{elapsed:?}"
    );
    drop(nic);
}
