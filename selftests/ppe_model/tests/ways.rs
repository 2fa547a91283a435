// SPDX-License-Identifier: GPL-2.0

//! Every way out of an engine: tags and PPPoE, to a MAC, a port of a switch, a station of a radio.
//! Each combination is either refused for the reason that is written here, or forwards the frame
//! that software would have sent.

mod common;

use common::*;
use mtk_foe::encode;
use mtk_foe::soc::{self, Soc};
use nft_flow::desc::*;
use nft_flow::encap::{ethertype, peel};
use ppe_model::{Reason, Station, Verdict};

const SRC: Mac = [2, 0, 0, 0, 0, 2];
const DST: Mac = [2, 0, 0, 0, 0, 3];

fn vlan(vid: u16, pcp: Option<u8>) -> Layer {
    Layer::Vlan {
        proto: ethertype::VLAN,
        vid,
        pcp,
    }
}

const SESSION: Layer = Layer::Pppoe { session: 0x1234 };

/// What is around a packet that leaves, and why that is refused if it is.
fn all_layers() -> Vec<(Vec<Layer>, Option<Unsupported>)> {
    let ad = Layer::Vlan {
        proto: ethertype::QINQ,
        vid: 5,
        pcp: None,
    };
    vec![
        (vec![], None),
        (vec![vlan(7, None)], None),
        (vec![vlan(7, Some(5)), vlan(4094, Some(1))], None),
        (vec![SESSION], None),
        (vec![vlan(7, Some(3)), SESSION], None),
        (
            vec![vlan(7, None), vlan(8, None), SESSION],
            Some(Unsupported::VlanDepth),
        ),
        (vec![SESSION, vlan(7, None)], Some(Unsupported::LayerOrder)),
        (vec![SESSION, SESSION], Some(Unsupported::PppoeDepth)),
        (vec![ad], Some(Unsupported::VlanProto)),
    ]
}

fn station(index: u8, queue: u8, wcid: u16, bss: u8) -> Via {
    Via::Wdma(Wdma {
        index,
        queue,
        wcid,
        bss,
        amsdu: false,
    })
}

/// Where it leaves: the port, the engine's own number of it and its queue.
type Out = (Port, u8, Option<u8>);

/// Ways out of an SoC, and those that it has not.
fn ways(soc: &Soc) -> (Vec<Out>, Vec<(Port, Unsupported)>) {
    let port = |ifindex, via| Port { ifindex, via };
    let switch = |n| Via::Dsa { port: n, proto: 9 };
    let mut all = vec![(Port::plain(1), 1, Some(0)), (Port::plain(2), 2, Some(1))];
    let mut none = vec![
        (Port::plain(4), Unsupported::EgressPort),
        (port(1, switch(8)), Unsupported::PortNumber),
        (
            port(1, Via::Dsa { port: 0, proto: 1 }),
            Unsupported::DsaProto,
        ),
    ];
    for n in 0..8 {
        all.push((port(1, switch(n)), 1, Some(3 + n)));
    }
    match soc.hal.version() {
        1 => {
            none.push((Port::plain(3), Unsupported::EgressPort));
            for index in 0..2 {
                all.push((port(9, station(index, 3, 0xff, 0x3f)), 3, None));
            }
            for via in [
                station(2, 0, 0, 0),
                station(0, 4, 0, 0),
                station(0, 0, 0x100, 0),
                station(0, 0, 0, 0x40),
            ] {
                none.push((port(9, via), Unsupported::PortNumber));
            }
        }
        version => {
            all.push((Port::plain(3), 15, Some(14)));
            let (wcid, bss) = if version == 2 {
                (0x3ff, 0x3f)
            } else {
                (0xffff, 0xff)
            };
            for (index, out) in [(0, 8), (1, 9), (2, 13)] {
                all.push((port(9, station(index, 3, wcid, bss)), out, None));
            }
            none.push((port(9, station(3, 0, 0, 0)), Unsupported::PortNumber));
            none.push((port(9, station(0, 4, 0, 0)), Unsupported::PortNumber));
            if version == 2 {
                none.push((port(9, station(0, 0, 0x400, 0)), Unsupported::PortNumber));
                none.push((port(9, station(0, 0, 0, 0x40)), Unsupported::PortNumber));
            }
        }
    }
    // No radio is behind the first ones.
    if soc.port_mg != 0 {
        all.retain(|(port, ..)| !matches!(port.via, Via::Wdma(_)));
        none.retain(|(port, _)| !matches!(port.via, Via::Wdma(_)));
    }
    (all, none)
}

fn tuples() -> [(u8, Tuple, Tuple); 3] {
    let v4 = |src, sport| Tuple {
        addrs: Addrs::V4 {
            src,
            dst: [192, 0, 2, 1],
        },
        ports: Some(Ports {
            src: sport,
            dst: 443,
        }),
    };
    let mut host = [0; 16];
    host[0] = 0x20;
    host[15] = 9;
    let v6 = Tuple {
        addrs: Addrs::V6 {
            src: host,
            dst: [0xfd; 16],
        },
        ports: Some(Ports { src: 999, dst: 443 }),
    };
    [
        (6, v4([10, 0, 0, 1], 4000), v4([198, 51, 100, 1], 5000)),
        (17, v4([10, 0, 0, 1], 4000), v4([198, 51, 100, 1], 5000)),
        (17, v6, v6),
    ]
}

fn describe(
    port: Port,
    layers: &[Layer],
    (proto, tuple, rewritten): (u8, Tuple, Tuple),
) -> FlowDesc {
    let mut all = Layers::NONE;
    layers.iter().for_each(|l| assert!(all.push_inner(*l)));
    FlowDesc {
        kind: Kind::Routed {
            proto,
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
            port,
            macs: Macs { src: SRC, dst: DST },
            layers: all,
            tunnel: None,
            mtu: if all.pppoe().is_some() { 1492 } else { 1500 },
        },
        marks: Marks::default(),
    }
}

/// What an engine makes of a packet with `len` bytes of data, with the flow in force; and that packet.
fn forward(w: &mut World, desc: &FlowDesc, len: usize) -> (Vec<u8>, Verdict) {
    let Kind::Routed { proto, tuple, .. } = desc.kind else {
        unreachable!()
    };
    let packet = packet(proto, &tuple, 64, &vec![7; len], false);
    let frame = around(&IN, &Layers::NONE, None, &packet, desc.is_v6());
    let image = encode(w.ppe.soc(), &BOARD, desc).unwrap();
    let handle = w.ppe.add(&image).unwrap();
    let verdict = w.receive(&frame);
    w.ppe.del(handle);
    assert!(matches!(w.receive(&frame), Verdict::Cpu { .. }));
    (packet, verdict)
}

/// Software's own parser finds in a frame what the description says.
fn understood(desc: &FlowDesc, frame: &[u8], packet: &[u8]) {
    let kind = u16::from_be_bytes([frame[12], frame[13]]);
    let peeled = peel(None, kind, &frame[14..], frame.len() - 14)
        .ok()
        .unwrap();
    assert_eq!(
        Layers::from(&peeled.encaps).as_slice().len(),
        desc.egress.layers.as_slice().len()
    );
    for (got, want) in Layers::from(&peeled.encaps)
        .iter()
        .zip(desc.egress.layers.iter())
    {
        match (got, want) {
            (
                Layer::Vlan { proto, vid, .. },
                Layer::Vlan {
                    proto: p, vid: v, ..
                },
            ) => {
                assert_eq!((proto, vid), (p, v));
            }
            _ => assert_eq!(got, want),
        }
    }
    // TTL, addresses, ports and checksums are the rewriting's; the length is not.
    assert_eq!(frame.len() - 14 - peeled.offset, packet.len());
}

#[test]
fn every_way_out() {
    for soc in soc::ALL {
        let (outs, nowhere) = ways(soc);
        let (mut forwarded, mut refused) = (0, 0);
        let mut w = world(soc);
        for flow in tuples() {
            for (layers, why) in all_layers() {
                for (port, number, queue) in &outs {
                    let desc = describe(*port, &layers, flow);
                    // The first generation has the station in the place of the second tag.
                    let crowded = soc.hal.version() == 1
                        && matches!(port.via, Via::Wdma(_))
                        && desc.egress.layers.vlans() == 2;
                    let why = why.or(crowded.then_some(Unsupported::VlanDepth));
                    if let Some(why) = why {
                        assert_eq!(
                            encode(soc, &BOARD, &desc),
                            Err(why),
                            "{} {desc:?}",
                            soc.name
                        );
                        refused += 1;
                        continue;
                    }
                    let (packet, verdict) = forward(&mut w, &desc, 100);
                    let Verdict::Forward {
                        port: out,
                        queue: q,
                        station,
                        frame,
                        ..
                    } = verdict
                    else {
                        panic!("{}: not forwarded: {verdict:?} {desc:?}", soc.name);
                    };
                    assert_eq!(frame, software(&desc, &packet), "{} {desc:?}", soc.name);
                    if !matches!(port.via, Via::Dsa { .. }) {
                        understood(&desc, &frame, &packet);
                    }
                    assert_eq!((out, q), (*number, *queue), "{} {desc:?}", soc.name);
                    match (port.via, station) {
                        (Via::Wdma(w), Some(Station { wcid, bss, ring })) => {
                            assert_eq!((wcid, bss, ring), (w.wcid, w.bss, w.queue));
                        }
                        (Via::Wdma(_), None) | (_, Some(_)) => panic!("{} {desc:?}", soc.name),
                        (_, None) => {}
                    }
                    forwarded += 1;
                }
            }
            for (port, why) in &nowhere {
                let desc = describe(*port, &[], flow);
                assert_eq!(
                    encode(soc, &BOARD, &desc),
                    Err(*why),
                    "{} {port:?}",
                    soc.name
                );
                refused += 1;
            }
        }
        println!("{}: {forwarded} forwarded, {refused} refused", soc.name);
        assert!(forwarded >= 3 * 5 * 10 && refused >= 3 * 4 * 10);
    }
}

/// Where packets come in by decides on the engine, not on the entry.
#[test]
fn every_way_in() {
    for soc in soc::ALL {
        let flow = tuples()[0];
        let mut seen = vec![];
        let dsa = |port| Via::Dsa { port, proto: 9 };
        for (ifindex, via, engine) in [
            (1, Via::Plain, 0),
            (1, dsa(0), 0),
            (1, dsa(5), 0),
            (2, Via::Plain, 1),
            (3, Via::Plain, 2),
            (9, station(1, 0, 1, 1), 0),
        ] {
            let mut desc = describe(Port::plain(2), &[], flow);
            desc.ingress.port = Port { ifindex, via };
            let image = encode(soc, &BOARD, &desc).unwrap();
            assert_eq!(image.engine, engine.min(soc.engines - 1), "{}", soc.name);
            // The ports of a switch are different ways in.
            assert!(!seen.contains(&image.domain));
            seen.push(image.domain);
        }
        let mut desc = describe(Port::plain(2), &[], flow);
        desc.ingress.port = Port::plain(4);
        assert_eq!(encode(soc, &BOARD, &desc), Err(Unsupported::IngressPort));
    }
}

/// The largest packet that passes, for each kind of frame: never less than the way out carries.
#[test]
fn largest() {
    for soc in soc::ALL {
        let flow = tuples()[1];
        let mut w = world(soc);
        for (layers, why) in all_layers() {
            if why.is_some() {
                continue;
            }
            let desc = describe(Port::plain(2), &layers, flow);
            // A PPPoE header of 8 bytes counts as a tag of 4.
            let most = match desc.egress.layers.pppoe() {
                Some(_) => 1496,
                None => 1500,
            };
            for ip in [1400, most - 1, most, most + 1, 1514] {
                let (_, verdict) = forward(&mut w, &desc, ip - 28);
                match verdict {
                    Verdict::Forward { .. } => assert!(ip <= most, "{} {layers:?} {ip}", soc.name),
                    Verdict::Cpu { reason, .. } => {
                        assert_eq!((ip > most, reason), (true, Reason::Mtu), "{ip}");
                    }
                    Verdict::Drop => panic!("{} {layers:?} {ip} is dropped", soc.name),
                }
            }
        }
    }
}
