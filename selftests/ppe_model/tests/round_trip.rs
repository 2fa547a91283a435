// SPDX-License-Identifier: GPL-2.0

//! The driver's entries, executed: what the model makes of a frame is what software makes of it.

mod common;

use common::*;
use mtk_foe::ppe::Gone;
use mtk_foe::soc::{self, Soc};
use mtk_foe::{encode, ENTRIES};
use nft_flow::desc::*;
use nft_flow::encap::ethertype;
use ppe_model::{Reason, Verdict};
use proptest::prelude::*;

/// A flow that can be offloaded.
fn any_flow() -> impl Strategy<Value = FlowDesc> {
    let v4 = || {
        (any::<[[u8; 4]; 2]>(), any::<[u16; 2]>()).prop_map(|([src, dst], [s, d])| Tuple {
            addrs: Addrs::V4 { src, dst },
            ports: Some(Ports { src: s, dst: d }),
        })
    };
    let v6 = (any::<[[u8; 16]; 2]>(), any::<[u16; 2]>()).prop_map(|([src, dst], [s, d])| Tuple {
        addrs: Addrs::V6 { src, dst },
        ports: Some(Ports { src: s, dst: d }),
    });
    let proto = || prop_oneof![Just(6u8), Just(17u8)];
    let kind = prop_oneof![
        (proto(), v4(), v4()).prop_map(|(proto, tuple, rewritten)| Kind::Routed {
            proto,
            tuple,
            rewritten
        }),
        (proto(), v4()).prop_map(|(proto, t)| Kind::Routed {
            proto,
            tuple: t,
            rewritten: t
        }),
        (proto(), v6).prop_map(|(proto, t)| Kind::Routed {
            proto,
            tuple: t,
            rewritten: t
        }),
    ];
    let vlan = || {
        (1..4095_u16, prop::option::of(0..8_u8)).prop_map(|(vid, pcp)| Layer::Vlan {
            proto: ethertype::VLAN,
            vid,
            pcp,
        })
    };
    let session = || any::<u16>().prop_map(|session| Layer::Pppoe { session });
    let layers = || {
        prop_oneof![
            2 => Just(vec![]),
            2 => vlan().prop_map(|v| vec![v]),
            1 => (vlan(), vlan()).prop_map(|(a, b)| vec![a, b]),
            1 => session().prop_map(|s| vec![s]),
            2 => (vlan(), session()).prop_map(|(v, s)| vec![v, s]),
        ]
        .prop_map(|list| {
            let mut all = Layers::NONE;
            list.into_iter().for_each(|l| assert!(all.push_inner(l)));
            all
        })
    };
    let mac = || {
        any::<Mac>().prop_map(|mut m| {
            m[0] &= 0xfe;
            m[5] |= 1;
            m
        })
    };
    let out = prop_oneof![
        2 => (1..3_u32).prop_map(Port::plain),
        2 => (0..8_u8).prop_map(|port| Port { ifindex: 1, via: Via::Dsa { port, proto: 9 } }),
        1 => (0..2_u8, 0..4_u8, 0..256_u16, 0..64_u8).prop_map(|(index, queue, wcid, bss)| {
            Port { ifindex: 9, via: Via::Wdma(Wdma { index, queue, wcid, bss, amsdu: false }) }
        }),
    ];
    (kind, layers(), layers(), mac(), mac(), out).prop_map(
        |(kind, inside, outside, src, dst, port)| FlowDesc {
            kind,
            ingress: Ingress {
                port: Port::plain(1),
                macs: None,
                layers: inside,
                tunnel: None,
            },
            egress: Egress {
                port,
                macs: Macs { src, dst },
                layers: outside,
                tunnel: None,
                mtu: if outside.pppoe().is_some() {
                    1492
                } else {
                    1500
                },
            },
            marks: Marks::default(),
        },
    )
}

fn one(
    soc: &'static Soc,
    desc: &FlowDesc,
    ttl: u8,
    data: &[u8],
    no_sum: bool,
) -> Result<(), TestCaseError> {
    let Kind::Routed { proto, tuple, .. } = desc.kind else {
        panic!()
    };
    let mut w = world(soc);
    let packet = packet(proto, &tuple, ttl, data, no_sum);
    let frame = around(&IN, &desc.ingress.layers, None, &packet, desc.is_v6());
    let image = match encode(soc, &BOARD, desc) {
        Ok(image) => image,
        Err(why) => {
            // The only thing that is drawn and does not go: a station in the place of a tag.
            prop_assert_eq!(why, Unsupported::VlanDepth);
            return Ok(());
        }
    };

    // Not known yet; the engine's own entry is used, and is where both look.
    let first = w.receive(&frame);
    prop_assert!(
        matches!(
            first,
            Verdict::Cpu {
                reason: Reason::Unbound,
                slot: Some(_)
            }
        ),
        "{first:?}"
    );
    let handle = w.ppe.add(&image).unwrap();
    let Verdict::Cpu { slot, .. } = first else {
        unreachable!()
    };
    prop_assert_eq!(slot, Some(handle.slot()));

    let Verdict::Forward {
        port,
        queue,
        station,
        slot,
        frame: out,
    } = w.receive(&frame)
    else {
        return Err(TestCaseError::fail(format!(
            "not forwarded: {:?}",
            w.receive(&frame)
        )));
    };
    prop_assert_eq!(slot, handle.slot());
    prop_assert_eq!(&out, &software(desc, &packet));
    match desc.egress.port.via {
        Via::Plain => {
            prop_assert_eq!(
                (port, queue),
                (
                    desc.egress.port.ifindex as u8,
                    Some(desc.egress.port.ifindex as u8 - 1)
                )
            );
        }
        Via::Dsa { port: n, .. } => prop_assert_eq!((port, queue), (1, Some(3 + n))),
        Via::Wdma(wdma) => {
            let s = station.unwrap();
            prop_assert_eq!((s.wcid, s.bss, s.ring), (wdma.wcid, wdma.bss, wdma.queue));
            prop_assert_eq!(
                port,
                if soc.hal.version() == 1 {
                    3
                } else {
                    8 + wdma.index
                }
            );
            prop_assert_eq!(queue, None);
        }
    }
    prop_assert_eq!(
        station.is_some(),
        matches!(desc.egress.port.via, Via::Wdma(_))
    );

    let count = w.model.take_count(slot);
    let want = if soc.counts {
        (1, frame.len() as u64)
    } else {
        (0, 0)
    };
    prop_assert_eq!((count.packets, count.bytes), want);

    // Withdrawn: the next packet goes to the CPU.
    w.ppe.del(handle);
    prop_assert!(
        matches!(w.receive(&frame), Verdict::Cpu { .. }),
        "still forwarded"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    /// Byte for byte what the software path sends.
    #[test]
    fn as_software(
        which in 0..soc::ALL.len(),
        desc in any_flow(),
        ttl in 2_u8..,
        data in prop::collection::vec(any::<u8>(), 0..200),
        no_sum in any::<bool>(),
    ) {
        // The very first one has reserved slots.
        let soc = soc::ALL[which];
        // Only MT7622 and later have radios behind the engine.
        prop_assume!(soc.port_mg == 0 || !matches!(desc.egress.port.via, Via::Wdma(_)));
        if soc.no_crossing {
            if let Ok(image) = encode(soc, &BOARD, &desc) {
                prop_assume!((0..2).all(|n| !soc.is_reserved(usize::from(image.bucket) + n)));
            }
        }
        one(soc, &desc, ttl, &data, no_sum)?;
    }
}

fn desc(n: u16) -> FlowDesc {
    let tuple = Tuple {
        addrs: Addrs::V4 {
            src: [10, 0, 0, 1],
            dst: [192, 0, 2, 1],
        },
        ports: Some(Ports { src: n, dst: 443 }),
    };
    let rewritten = Tuple {
        addrs: Addrs::V4 {
            src: [198, 51, 100, 1],
            dst: [192, 0, 2, 1],
        },
        ..tuple
    };
    FlowDesc {
        kind: Kind::Routed {
            proto: 6,
            tuple,
            rewritten,
        },
        ingress: Ingress {
            port: Port::plain(1),
            macs: None,
            layers: Layers::NONE,
            tunnel: None,
        },
        egress: Egress {
            port: Port::plain(2),
            macs: Macs {
                src: [2, 0, 0, 0, 0, 2],
                dst: [2, 0, 0, 0, 0, 3],
            },
            layers: Layers::NONE,
            tunnel: None,
            mtu: 1500,
        },
        marks: Marks::default(),
    }
}

fn frame(desc: &FlowDesc, ttl: u8, len: usize) -> Vec<u8> {
    let Kind::Routed { proto, tuple, .. } = desc.kind else {
        panic!()
    };
    around(
        &IN,
        &Layers::NONE,
        None,
        &packet(proto, &tuple, ttl, &vec![7; len], false),
        false,
    )
}

fn reason(v: Verdict) -> Option<Reason> {
    match v {
        Verdict::Cpu { reason, .. } => Some(reason),
        Verdict::Forward { .. } | Verdict::Drop => None,
    }
}

/// Frames that are broken are not repaired.
#[test]
fn wrong_checksums() {
    for soc in [&soc::MT7622, &soc::MT7986, &soc::MT7988] {
        let mut w = world(soc);
        w.ppe.add(&encode(soc, &BOARD, &desc(1)).unwrap()).unwrap();
        let frame = frame(&desc(1), 64, 100);
        assert!(matches!(w.receive(&frame), Verdict::Forward { .. }));
        // In the IPv4 header, the ports, the payload.
        for at in [14 + 8, 14 + 20 + 4, 14 + 20 + 8 + 50] {
            let mut broken = frame.clone();
            broken[at] ^= 0x10;
            assert_eq!(w.receive(&broken), Verdict::Drop, "{at}");
        }
    }
}

/// One more flag in the TCP header.
fn flagged(mut frame: Vec<u8>, flag: u8) -> Vec<u8> {
    let l4 = &mut frame[14 + 20..];
    assert_eq!(l4[13] & flag, 0);
    l4[13] |= flag;
    let sum = u32::from(!u16::from_be_bytes([l4[16], l4[17]])) + u32::from(flag);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    l4[16..18].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// What the engine leaves to the CPU, and what it forgets.
#[test]
fn life_of_a_flow() {
    for soc in [&soc::MT7622, &soc::MT7986, &soc::MT7988] {
        let mut w = world(soc);
        let d = desc(1);
        let image = encode(soc, &BOARD, &d).unwrap();
        for n in 0..40 {
            let want = if n < 29 {
                Reason::Unbound
            } else {
                Reason::UnboundRate
            };
            assert_eq!(reason(w.receive(&frame(&d, 64, 0))), Some(want), "{n}");
        }
        w.tick(100);
        let handle = w.ppe.add(&image).unwrap();
        assert_eq!(reason(w.receive(&frame(&d, 64, 0))), None);
        assert_eq!(reason(w.receive(&frame(&d, 1, 0))), Some(Reason::Ttl));
        assert_eq!(reason(w.receive(&frame(&d, 64, 1460))), None);
        assert_eq!(reason(w.receive(&frame(&d, 64, 1461))), Some(Reason::Mtu));

        // Packets keep it, for as long as they come.
        for now in (103..400).step_by(7) {
            w.tick(now);
            assert_eq!(reason(w.receive(&frame(&d, 64, 0))), None, "{now}");
        }
        assert_eq!(w.ppe.stats(&handle).unwrap().idle, 0);
        w.tick(403);
        assert_eq!(w.ppe.stats(&handle).unwrap().idle, 403 - 397);
        w.tick(410);
        assert_eq!(w.ppe.stats(&handle), Err(Gone::Aged));
        let mut gone = vec![];
        assert_eq!(
            w.ppe
                .scan(0, ENTRIES, |slot, _, why| gone.push((slot, why))),
            0
        );
        assert_eq!(gone, [(handle.slot(), Gone::Aged)]);

        // And the end of the connection.
        let handle = w.ppe.add(&image).unwrap();
        let fin = flagged(frame(&d, 64, 0), 1);
        assert_eq!(reason(w.receive(&fin)), Some(Reason::BoundFin));
        assert_eq!(w.ppe.stats(&handle), Err(Gone::Fin));
        assert_eq!(reason(w.receive(&frame(&d, 64, 0))), Some(Reason::Unbound));
        w.ppe.del(handle);

        // A connection that is not known is not remembered by its last packets.
        let rst = flagged(frame(&desc(2), 64, 0), 4);
        assert_eq!(reason(w.receive(&rst)), Some(Reason::TcpFlags));
    }
}

/// More flows than places: those that are told to be bound are forwarded, no other is.
#[test]
fn more_than_fit() {
    let soc = &soc::MT7622;
    let mut w = world(soc);
    let mut bound = vec![];
    let mut refused = vec![];
    for n in 0..30_000 {
        let d = desc(n);
        match w.ppe.add(&encode(soc, &BOARD, &d).unwrap()) {
            Ok(handle) => bound.push((n, handle)),
            Err(_) => refused.push(n),
        }
    }
    assert!(
        bound.len() > 8_000 && refused.len() > 5_000,
        "{} {}",
        bound.len(),
        refused.len()
    );
    for (n, handle) in &bound {
        let Verdict::Forward {
            slot, frame: out, ..
        } = w.receive(&frame(&desc(*n), 64, 0))
        else {
            panic!("{n} is not forwarded");
        };
        assert_eq!(
            (slot, u16::from_be_bytes([out[34], out[35]])),
            (handle.slot(), *n)
        );
    }
    for n in &refused {
        assert!(reason(w.receive(&frame(&desc(*n), 64, 0))).is_some());
    }
    for (_, handle) in bound {
        w.ppe.del(handle);
    }
    for n in 0..30_000 {
        assert!(
            reason(w.receive(&frame(&desc(n), 64, 0))).is_some(),
            "{n} is still forwarded"
        );
    }
}
