//! Connections over a real socket pair, as a user of the crate sees them. The clock is paused: it
//! advances only when nothing else can happen.

use std::{
    io::{self, ErrorKind},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use metaservice_nic::{Config, Driver, Error, Mtu, Nic, Pcap, StreamError, attach};
use metaservice_testing::network::{ADDRESS, Guest, HARDWARE, Machine};
use metaservice_testing::noise;
use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn pair(mtu: u16) -> (Machine, Nic, Driver) {
    let config = Config::default().mtu(Mtu::try_from(mtu).unwrap());
    connect(Guest::new(mtu), config)
}

/// A machine with `guest` in it, and the card at the other end of its cable.
fn connect(guest: Guest, config: Config) -> (Machine, Nic, Driver) {
    let (machine, socket) = Machine::new(guest);
    let (nic, driver) = attach(socket, config);
    (machine, nic, driver)
}

#[tokio::test(start_paused = true)]
async fn the_guest_gets_its_address_by_dhcp_and_connects() {
    let (mut machine, mut nic, driver) = connect(Guest::without_address(1500), Config::default());
    let driver = tokio::spawn(driver.run());
    let dhcp = machine.guest.add_dhcp();
    let mut lease = None;
    machine
        .run_until(|guest| {
            lease = lease.or(guest.leased(dhcp));
            lease.is_some()
        })
        .await;
    let (address, router, resolvers) = lease.unwrap();
    assert_eq!((address.address(), address.prefix_len()), (ADDRESS, 16));
    assert_eq!((router, resolvers), (None::<Ipv4Addr>, 0));
    machine.guest.set_address(address);
    let handle = machine.guest.connect();
    let accepted = async {
        let mut connection = nic.accept().await.unwrap();
        assert_eq!((*connection.peer_addr().ip(), connection.local_port()), (ADDRESS, 80));
        connection.write_all(b"hello").await.unwrap();
        connection
    };
    let mut received = Vec::new();
    let (_connection, ()) = tokio::join!(
        accepted,
        machine.run_until(|guest| {
            guest.receive(handle, &mut received);
            received == b"hello"
        })
    );
    let statistics = nic.statistics();
    assert_eq!(statistics.dhcp_replies, 2);
    assert!(statistics.arp_replies >= 1);
    driver.abort();
}

/// Sends and receives `size` bytes at once, each side ending its direction when it is done.
async fn exchange(mtu: u16, size: usize) {
    let (mut machine, mut nic, driver) = pair(mtu);
    let driver = tokio::spawn(driver.run());
    let (up, down) = (noise(size, 11), noise(size + 777, 12));
    let handle = machine.guest.connect();
    let service = async {
        let connection = nic.accept().await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(connection);
        let read = async {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            received
        };
        let write = async {
            writer.write_all(&down).await.unwrap();
            writer.shutdown().await.unwrap();
            let error = writer.write_all(b"late").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        };
        let (received, ()) = tokio::join!(read, write);
        assert!(received == up, "the upload arrived differently");
    };
    let (mut sent, mut received) = (0, Vec::new());
    let guest = machine.run_until(|guest| {
        if sent < up.len() {
            sent += guest.send(handle, &up[sent..]);
            if sent == up.len() {
                guest.tcp(handle).close();
            }
        }
        guest.receive(handle, &mut received);
        guest.at_end(handle) && sent == up.len()
    });
    tokio::join!(service, guest);
    assert!(received == down, "the download arrived differently");
    drop(nic);
    machine.run_until(|guest| guest.state(handle) != State::LastAck).await;
    let statistics = driver.await.unwrap().unwrap();
    assert_eq!(statistics.dropped.total(), 0);
    assert_eq!(statistics.open_connections, 0);
}

#[tokio::test(start_paused = true)]
async fn megabytes_both_ways_with_a_small_mtu() {
    exchange(1500, 4 << 20).await;
}

#[tokio::test(start_paused = true)]
async fn megabytes_both_ways_with_the_smallest_mtu() {
    exchange(576, 1 << 20).await;
}

#[tokio::test(start_paused = true)]
async fn megabytes_both_ways_with_a_jumbo_mtu() {
    exchange(65520, 16 << 20).await;
    exchange(65535, 4 << 20).await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_connections_each_with_its_own_bytes() {
    let (mut machine, mut nic, driver) = pair(1500);
    let driver = tokio::spawn(driver.run());
    let handles: Vec<_> = (0..200).map(|_| machine.guest.connect()).collect();
    let service = tokio::spawn(async move {
        let mut tasks = Vec::new();
        for _ in 0..200 {
            let mut connection = nic.accept().await.unwrap();
            tasks.push(tokio::spawn(async move {
                let mut request = Vec::new();
                connection.read_to_end(&mut request).await.unwrap();
                connection.write_all(&request).await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        nic.statistics()
    });
    let bytes: Vec<_> = (0..200).map(|seed| noise(10_000, seed)).collect();
    let mut sent = vec![false; 200];
    let mut received = vec![Vec::new(); 200];
    machine
        .run_until(|guest| {
            for (number, handle) in handles.iter().enumerate() {
                if !sent[number] && guest.tcp(*handle).may_send() {
                    assert_eq!(guest.send(*handle, &bytes[number]), 10_000);
                    guest.tcp(*handle).close();
                    sent[number] = true;
                }
                guest.receive(*handle, &mut received[number]);
            }
            handles.iter().zip(&sent).all(|(handle, sent)| *sent && guest.at_end(*handle))
        })
        .await;
    assert!(received == bytes);
    let statistics = service.await.unwrap();
    assert_eq!((statistics.connections, statistics.displaced, statistics.refused), (200, 0, 0));
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_unflushed_still_arrives_and_the_driver_ends() {
    let (mut machine, mut nic, driver) = pair(65520);
    let driver = tokio::spawn(driver.run());
    let handle = machine.guest.connect();
    let bytes = noise(2 << 20, 21);
    let service = async {
        let mut connection = nic.accept().await.unwrap();
        connection.write_all(&bytes).await.unwrap();
        drop(connection);
        drop(nic);
    };
    let mut received = Vec::new();
    let guest = machine.run_until(|guest| {
        guest.receive(handle, &mut received);
        if guest.state(handle) == State::CloseWait && received.len() == bytes.len() {
            guest.tcp(handle).close();
        }
        guest.state(handle) == State::Closed
    });
    tokio::join!(service, guest);
    assert!(received == bytes);
    let statistics = driver.await.unwrap().unwrap();
    assert_eq!((statistics.open_connections, statistics.abandoned), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_gone_leaves_what_it_said_and_an_error() {
    let (mut machine, mut nic, driver) = pair(1500);
    let driver = tokio::spawn(driver.run());
    let handle = machine.guest.connect();
    let (accepted, ()) = tokio::join!(
        nic.accept(),
        machine.run_until(|guest| guest.state(handle) == State::Established)
    );
    machine.guest.send(handle, b"last words");
    machine.run_until(|_| true).await;
    let mut connection = accepted.unwrap();
    drop(machine);
    let statistics = driver.await.unwrap().unwrap();
    assert_eq!(statistics.connections, 1);
    let mut received = Vec::new();
    let error = connection.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((&received[..], error.kind()), (&b"last words"[..], ErrorKind::ConnectionAborted));
    let inner = error.into_inner().unwrap();
    assert_eq!(inner.downcast_ref(), Some(&StreamError::Gone));
    let error = connection.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert!(nic.accept().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn cutting_the_link_wakes_each_waiting_task() {
    let (mut machine, mut nic, driver) = pair(1500);
    let driver = tokio::spawn(driver.run());
    let handle = machine.guest.connect();
    let (accepted, ()) = tokio::join!(
        nic.accept(),
        machine.run_until(|guest| guest.state(handle) == State::Established)
    );
    let mut reading = accepted.unwrap();
    let reader = tokio::spawn(async move { reading.read_u8().await });
    let acceptor = tokio::spawn(async move { nic.accept().await.is_none() });
    tokio::task::yield_now().await;
    driver.abort();
    assert_eq!(reader.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert!(acceptor.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_reset_wakes_reader_and_writer() {
    let (mut machine, mut nic, driver) = pair(65520);
    let driver = tokio::spawn(driver.run());
    let handle = machine.guest.connect_from(50_000, 80, 1000);
    let (accepted, ()) = tokio::join!(
        nic.accept(),
        machine.run_until(|guest| guest.state(handle) == State::Established)
    );
    let (mut reader, mut writer) = tokio::io::split(accepted.unwrap());
    let reader = tokio::spawn(async move { reader.read_u8().await.unwrap_err() });
    // More than fits into the window and the buffer.
    let writer = tokio::spawn(async move { writer.write_all(&[0; 8 << 20]).await.unwrap_err() });
    machine.run_until(|guest| guest.tcp(handle).recv_queue() == 1000).await;
    machine.guest.tcp(handle).abort();
    machine.run_until(|guest| guest.tcp(handle).remote_endpoint().is_none()).await;
    assert_eq!(reader.await.unwrap().kind(), ErrorKind::ConnectionReset);
    assert_eq!(writer.await.unwrap().kind(), ErrorKind::ConnectionReset);
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_out_of_step_ends_the_driver() {
    let (machine, mut nic, driver) = pair(1500);
    machine.socket.try_write(&[0xff; 8]).unwrap();
    let error = driver.run().await.unwrap_err();
    assert!(matches!(error, Error::Framing(error) if error.length == u32::MAX));
    assert!(nic.accept().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_takes_nothing_is_still_heard() {
    let (mut machine, mut nic, driver) = pair(65520);
    let driver = tokio::spawn(driver.run());
    let (slow, heard) = (machine.guest.connect(), machine.guest.connect());
    let (first, ()) = tokio::join!(
        nic.accept(),
        machine.run_until(|guest| [slow, heard].iter().all(|one| guest.tcp(*one).may_send()))
    );
    let mut first = first.unwrap();
    let mut second = nic.accept().await.unwrap();
    let writer = tokio::spawn(async move {
        first.write_all(&[1; 6 << 20]).await.unwrap();
        first
    });
    // The machine writes without reading, until its data arrives: `run_until` would read.
    machine.guest.send(heard, b"listen!");
    let now = Duration::from_secs(1);
    machine.guest.poll(now);
    for frame in machine.guest.cable.to_service.split_off(0) {
        let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(frame);
        machine.socket.writable().await.unwrap();
        assert_eq!(machine.socket.try_write(&bytes).unwrap(), bytes.len());
    }
    let mut word = [0; 7];
    second.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"listen!");
    let mut count = 0;
    let mut bytes = Vec::new();
    machine
        .run_until(|guest| {
            guest.receive(slow, &mut bytes);
            count += bytes.len();
            assert!(bytes.drain(..).all(|byte| byte == 1));
            count == 6 << 20
        })
        .await;
    writer.await.unwrap();
    driver.abort();
}

#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl io::Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_copy_of_the_wire_has_every_frame_of_both_directions() {
    let file = File::default();
    let config = Config::default().pcap(Pcap::new(file.clone()));
    let (mut machine, mut nic, driver) = connect(Guest::new(1500), config);
    let driver = tokio::spawn(driver.run());
    let handle = machine.guest.connect();
    let (accepted, ()) = tokio::join!(
        nic.accept(),
        machine.run_until(|guest| guest.state(handle) == State::Established)
    );
    drop((accepted, machine));
    let statistics = driver.await.unwrap().unwrap();
    let bytes = file.0.lock().unwrap().clone();
    let (mut at, mut own, mut guests) = (24, 0, 0);
    while at < bytes.len() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let length = usize::try_from(word(at + 8)).unwrap();
        assert!(word(at) > 1_600_000_000);
        let source = &bytes[at + 16 + 6..at + 16 + 12];
        if source == HARDWARE {
            guests += 1;
        } else {
            own += 1;
        }
        at += 16 + length;
    }
    assert_eq!(
        (at, guests, own),
        (bytes.len(), statistics.frames_received, statistics.frames_sent)
    );
    assert!(guests >= 3 && own >= 2);
}
