//! The cost of shell frames: to encode a block, to decode it, and to send it through a pair of
//! sessions with its acknowledgement.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metaservice_protocol::shell::{Frame, Role, ShellSession, Stream, StreamProtocol};

fn frames(criterion: &mut Criterion) {
    for (name, protocol, block) in
        [("v1", StreamProtocol::V1, 16 * 1024), ("v2", StreamProtocol::V2, 64 * 1024)]
    {
        let mut group = criterion.benchmark_group(format!("shell frame, {name}"));
        group.throughput(Throughput::Bytes(block as u64));
        let payload = Bytes::from(vec![7; block]);
        let frame = Frame::Data { stream: Stream::Stdout, payload: payload.clone() };
        group.bench_function("encode", |bencher| bencher.iter(|| black_box(&frame).encode()));
        let message = frame.encode();
        group.bench_function("decode", |bencher| {
            bencher.iter(|| Frame::decode(black_box(&message), protocol).unwrap());
        });
        group.bench_function("through two sessions", |bencher| {
            let mut guest = ShellSession::with_protocol(Role::Guest, protocol);
            let mut host = ShellSession::with_protocol(Role::Host, protocol);
            bencher.iter(|| {
                guest.write(Stream::Stdout, payload.clone());
                while let Some(message) = guest.next_message() {
                    host.handle(&message).unwrap();
                }
                while let Some(block) = host.read(Stream::Stdout) {
                    black_box(block);
                }
                while let Some(message) = host.next_message() {
                    guest.handle(&message).unwrap();
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
