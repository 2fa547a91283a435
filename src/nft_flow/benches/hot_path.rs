// SPDX-License-Identifier: GPL-2.0

//! What a packet costs: `cargo bench`. The numbers are for comparing two versions of this crate on
//! one machine, not for quoting.

#![allow(missing_docs)]

#[cfg(not(loom))]
#[path = "../tests/common/mod.rs"]
mod common;

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() {
    bench::main();
}

#[cfg(not(loom))]
mod bench {
    use super::common::{
        buckets,
        free,
        ingress,
        key,
        seed,
        splitmix,
        Flow, //
    };
    use criterion::{
        black_box,
        BenchmarkId,
        Criterion, //
    };
    use nft_flow::{
        key::{
            IngressProto, //
            Key,
            Key4,
            Key6,
            L4Proto,
        },
        parse,
        rewrite::{
            apply,
            Csum,
            Rewrite4, //
        },
        table::{
            Migration,
            Table,
            Writer, //
        },
    };
    use std::ptr::NonNull;

    /// UDP, 60 bytes, as pktgen makes it; the checksum is right.
    const PACKET: [u8; 60] = {
        let mut packet = [0; 60];
        let header = [
            0x45, 0x00, 0x00, 0x3c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x26, 0xaf, 0x0a, 0x00,
            0x00, 0x01, 0x0a, 0x00, 0x00, 0x02, 0x9c, 0x40, 0x01, 0xbb, 0x00, 0x28, 0x12, 0x34,
        ];
        let mut i = 0;
        while i < header.len() {
            packet[i] = header[i];
            i += 1;
        }
        packet
    };

    fn hash(c: &mut Criterion) {
        let seed = seed(1);
        let (key4, key6) = (
            key(1),
            Key6 {
                saddr: [1, 2],
                daddr: [3, 4],
                ports: 5,
                ingress: IngressProto::new(L4Proto::Udp, ingress()),
            },
        );
        c.bench_function("hash/ipv4", |b| b.iter(|| black_box(&key4).hash(&seed)));
        c.bench_function("hash/ipv6", |b| b.iter(|| black_box(&key6).hash(&seed)));
    }

    fn packet(c: &mut Criterion) {
        let packet = parse::ipv4(&PACKET, PACKET.len(), ingress()).expect("a right packet");
        let key = packet.key;
        let nat = Rewrite4::new(&key, !key.saddr, key.daddr, !key.ports);
        let identity = Rewrite4::identity(&key);
        for (name, rewrite) in [("nat", nat), ("identity", identity)] {
            c.bench_function(&format!("parse+rewrite/{name}"), |b| {
                b.iter(|| {
                    let mut packet = *black_box(&PACKET);
                    let p = parse::ipv4(&packet, packet.len(), ingress()).expect("a right packet");
                    apply(&mut packet, p.proto, &rewrite, Csum::Full).expect("long enough");
                    (packet, p.key)
                })
            });
        }
    }

    fn grow(table: &Table<Flow>, writer: &mut Writer<Flow>) {
        while let Some(n) = writer.wants_resize() {
            assert!(writer.begin_resize(buckets(n)).is_ok());
            assert_eq!(writer.migrate(usize::MAX), Migration::Done);
            // SAFETY: They belong together.
            if let Some(old) = unsafe { writer.finish(table) } {
                free(old);
            }
        }
    }

    fn lookup(c: &mut Criterion) {
        let seed = seed(1);
        let mut group = c.benchmark_group("hash+lookup");
        for number in [1_u32, 1_000, 100_000, 1_000_000] {
            let flows: Vec<_> = (0..number).map(|i| Flow::seeded(key(i), &seed)).collect();
            let (table, mut writer) = Table::new(buckets(64));
            for flow in &flows {
                // SAFETY: Outlives the table.
                let _ = unsafe { writer.insert(NonNull::from(flow)) };
                grow(&table, &mut writer);
            }
            let mut state = 1;
            let mut one = |absent: u64| {
                let i = splitmix(&mut state) % u64::from(number);
                let key: Key4 = key((i + absent) as u32);
                // SAFETY: Nothing is freed before the end.
                unsafe { table.lookup(key.hash(&seed), &key) }.map(|flow| flow.hash)
            };
            group.bench_function(BenchmarkId::new("hit", number), |b| b.iter(|| one(0)));
            group.bench_function(BenchmarkId::new("miss", number), |b| {
                b.iter(|| one(1 << 24))
            });
            // SAFETY: They belong together.
            let (used, unused) = unsafe { writer.close(&table) };
            used.into_iter().chain(unused).for_each(free);
        }
        group.finish();
    }

    fn insert(c: &mut Criterion) {
        let seed = seed(1);
        let flows: Vec<_> = (0..1000).map(|i| Flow::seeded(key(i), &seed)).collect();
        let (table, mut writer) = Table::new(buckets(512));
        c.bench_function("insert+remove/1000", |b| {
            b.iter(|| {
                for flow in &flows {
                    // SAFETY: Outlives the table.
                    let _ = unsafe { writer.insert(NonNull::from(flow)) };
                }
                for flow in &flows {
                    writer.remove(flow);
                }
            })
        });
        // SAFETY: They belong together.
        let (used, unused) = unsafe { writer.close(&table) };
        used.into_iter().chain(unused).for_each(free);
    }

    pub(crate) fn main() {
        let mut c = Criterion::default().configure_from_args();
        hash(&mut c);
        packet(&mut c);
        lookup(&mut c);
        insert(&mut c);
        c.final_summary();
    }
}
