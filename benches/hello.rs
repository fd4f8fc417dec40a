//! What it costs to read a ClientHello.

use std::hint::black_box;

use acequia::sniff::hello::{Reader, Verdict};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const BYTES_MAX: usize = 64 << 10;

fn hello(c: &mut Criterion) {
    let mut group = c.benchmark_group("hello");
    let usual = include_bytes!("../tests/data/hello/chromium.bin");
    group.throughput(Throughput::Bytes(usual.len() as u64));
    group.bench_function("usual, whole", |b| {
        b.iter(|| decided(&mut Reader::new(BYTES_MAX), black_box(usual)));
    });

    let cut_up = in_records_of_one_byte(&padded_message());
    group.throughput(Throughput::Bytes(cut_up.len() as u64));
    group.bench_function("64 KiB of one-byte records, whole", |b| {
        b.iter(|| decided(&mut Reader::new(BYTES_MAX), black_box(&cut_up)));
    });
    group.bench_function("64 KiB of one-byte records, a byte at a time", |b| {
        b.iter_batched_ref(
            || Reader::new(BYTES_MAX),
            |reader| {
                for come in 1..cut_up.len() {
                    assert_eq!(reader.advance(black_box(&cut_up[..come])), Verdict::NeedMore);
                }
                decided(reader, &cut_up)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn decided(reader: &mut Reader, wire: &[u8]) -> Verdict {
    let verdict = reader.advance(wire);
    assert!(matches!(verdict, Verdict::Hello(_)));
    verdict
}

/// A ClientHello with so much padding that it comes close to 64 KiB in records of one byte each.
fn padded_message() -> Vec<u8> {
    const PADDING_BYTES: u16 = 10_850;
    let extension = [
        &[0, 21][..],
        &PADDING_BYTES.to_be_bytes(),
        &vec![0; PADDING_BYTES.into()],
    ]
    .concat();
    let fields = [&[3, 3][..], &[7; 32], b"\0", b"\0\x02\x13\x01", b"\x01\0"].concat();
    let body = [&fields[..], &(PADDING_BYTES + 4).to_be_bytes(), &extension].concat();
    let length = u32::try_from(body.len()).expect("under 64 KiB").to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

fn in_records_of_one_byte(message: &[u8]) -> Vec<u8> {
    message.iter().flat_map(|&byte| [0x16, 3, 1, 0, 1, byte]).collect()
}

criterion_group!(benches, hello);
criterion_main!(benches);
