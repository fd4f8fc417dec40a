//! The cost of parsing a ClientHello.

use std::hint::black_box;

use acequia::sniff::hello::{HelloReader, HelloVerdict};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const BYTES_MAX: usize = 64 << 10;
const RECORD_HEADER_BYTES: usize = 5;

fn hello(c: &mut Criterion) {
    let mut group = c.benchmark_group("hello");
    let short = include_bytes!("../tests/data/hello/openssl.bin");
    let post_quantum = include_bytes!("../tests/data/hello/chromium.bin");
    let message = &post_quantum[RECORD_HEADER_BYTES..]; // it was captured in one record
    let one_byte_records = in_records(&padded_message(10_900), 1); // of 6 bytes each: 65,400 bytes
    for (what, wire) in [
        ("short", short.to_vec()),
        ("post-quantum", post_quantum.to_vec()),
        (
            "post-quantum, in 3 records",
            in_records(message, message.len().div_ceil(3)),
        ),
        ("16 KiB", in_records(&padded_message(16 << 10), 16 << 10)),
        ("64 KiB of one-byte records", one_byte_records.clone()),
    ] {
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function(what, |b| {
            b.iter(|| decided(&mut HelloReader::new(BYTES_MAX), black_box(&wire)));
        });
    }
    group.bench_function("64 KiB of one-byte records, a byte at a time", |b| {
        b.iter_batched_ref(
            || HelloReader::new(BYTES_MAX),
            |reader| {
                for cut in 1..one_byte_records.len() {
                    let verdict = reader.advance(black_box(&one_byte_records[..cut]));
                    assert_eq!(verdict, HelloVerdict::NeedMore);
                }
                decided(reader, &one_byte_records)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn decided(reader: &mut HelloReader, wire: &[u8]) -> HelloVerdict {
    let verdict = reader.advance(wire);
    assert!(matches!(verdict, HelloVerdict::Hello(_)));
    verdict
}

/// A handshake message of this many bytes: a ClientHello with padding.
fn padded_message(bytes: u16) -> Vec<u8> {
    const UNPADDED_BYTES: u16 = 51; // of the message with an empty padding extension
    let padding = bytes - UNPADDED_BYTES;
    let extension = [&[0, 21][..], &padding.to_be_bytes(), &vec![0; padding.into()]].concat();
    let fields = [&[3, 3][..], &[7; 32], b"\0", b"\0\x02\x13\x01", b"\x01\0"].concat();
    let body = [&fields[..], &(padding + 4).to_be_bytes(), &extension].concat();
    let length = u32::try_from(body.len()).expect("under 64 KiB").to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    assert_eq!(message.len(), usize::from(bytes));
    message
}

/// A handshake message in records with content of this many bytes; the last may be shorter.
fn in_records(message: &[u8], bytes: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let length = u16::try_from(fragment.len()).expect("at most 16 KiB").to_be_bytes();
        [&[0x16, 3, 1], &length[..], fragment].concat()
    };
    message.chunks(bytes).flat_map(record).collect()
}

criterion_group!(benches, hello);
criterion_main!(benches);
