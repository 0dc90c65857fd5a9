//! The frame path: frames taken out of QEMU's byte stream, put into it, and a request answered.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metaservice_nic::Config;
use metaservice_nic::frame::{Outgoing, Splitter};
use metaservice_nic::interface::Interface;

/// Who has 169.254.169.254? Tell 169.254.1.2.
fn arp_request() -> Vec<u8> {
    let guest = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    let mut frame = vec![0xff; 6];
    frame.extend(guest);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(guest);
    frame.extend([169, 254, 1, 2, 0, 0, 0, 0, 0, 0, 169, 254, 169, 254]);
    frame
}

fn frames(criterion: &mut Criterion) {
    for length in [64_usize, 1514, 65_000] {
        let mut group = criterion.benchmark_group(format!("frames of {length} bytes"));
        group.throughput(Throughput::Bytes(length as u64));
        let mut wire = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        wire.resize(4 + length, 7);
        group.bench_function("split", |bencher| {
            let mut splitter = Splitter::new();
            bencher.iter(|| {
                splitter.unfilled()[..wire.len()].copy_from_slice(&wire);
                splitter.filled(wire.len());
                while let Some(frame) = splitter.next_frame().unwrap() {
                    black_box(frame);
                }
            });
        });
        group.bench_function("join", |bencher| {
            let mut outgoing = Outgoing::new();
            bencher.iter(|| {
                outgoing.push(length, |frame| frame.copy_from_slice(&wire[4..]));
                let count = black_box(outgoing.unsent()).len();
                outgoing.sent(count);
            });
        });
        group.finish();
    }
    criterion.bench_function("an ARP request answered", |bencher| {
        let (request, mut outgoing) = (arp_request(), Outgoing::new());
        let mut interface = Interface::new(&Config::default(), 7);
        bencher.iter(|| {
            interface.receive(black_box(&request), Duration::ZERO, &mut outgoing);
            interface.poll(Duration::ZERO, &mut outgoing);
            let count = outgoing.unsent().len();
            assert!(count > 0, "it is answered");
            outgoing.sent(count);
        });
    });
}

criterion_group!(benches, frames);
criterion_main!(benches);
