// SPDX-License-Identifier: GPL-2.0

//! Entries of the kernel's unmodified driver, made once from its C. `golden.txt` has them; the
//! differential test makes more of them where the kernel's source is.

mod common;
use common::*;
use mtk_foe::encode::{bridged, encode_bridge};
use mtk_foe::entry::{ib1, State};
use mtk_foe::soc::{self, Soc};
use mtk_foe::{encode, regs, seq, text, Foe, Memory};
use nft_flow::desc::*;

const WEB: [u8; 4] = [93, 184, 216, 34];
const US: [u8; 4] = [203, 0, 113, 7];

fn host(n: u8) -> [u8; 4] {
    [192, 168, 1, n]
}

fn v6(net: u8) -> [u8; 16] {
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    addr[5] = net;
    addr[15] = 0x99;
    addr
}

fn case(name: &str) -> FlowDesc {
    let from_lan = Port::plain(1);
    let from_wan = Port::plain(2);
    let session = Layer::Pppoe { session: 0x1234 };
    let snat = |proto, h, sport, dst, dport, nsport, layers: &[Layer]| {
        let (old, new) = (v4(host(h), sport, dst, dport), v4(US, nsport, dst, dport));
        flow(proto, old, new, from_lan, wan(layers))
    };
    let route = |t: Tuple, ingress, egress| flow(TCP, t, t, ingress, egress);
    match name {
        "1" => snat(UDP, 100, 12345, WEB, 443, 40000, &[]),
        "2" => {
            let (old, new) = (v4(WEB, 443, US, 40000), v4(WEB, 443, host(100), 12345));
            flow(UDP, old, new, from_wan, lan(2, &[]))
        }
        "3" => route(
            v4([10, 0, 1, 99], 40001, [10, 0, 2, 99], 80),
            from_lan,
            wan(&[]),
        ),
        "4" => snat(TCP, 100, 1111, [1, 2, 3, 4], 443, 1111, &[vlan(7), session]),
        "5" => {
            let t = Tuple {
                addrs: Addrs::V6 {
                    src: v6(1),
                    dst: v6(2),
                },
                ports: Some(Ports {
                    src: 40001,
                    dst: 80,
                }),
            };
            route(t, from_lan, wan(&[]))
        }
        "6" => {
            let (old, new) = (v4(WEB, 443, US, 40002), v4(WEB, 443, host(101), 12346));
            let wdma = Wdma {
                index: 0,
                queue: 1,
                wcid: 0x12,
                bss: 3,
                amsdu: true,
            };
            flow(UDP, old, new, from_wan, radio(wdma))
        }
        "A" => snat(TCP, 100, 1112, [1, 2, 3, 5], 443, 1112, &[session]),
        "B" => {
            let t = v4([10, 0, 1, 99], 40003, [10, 0, 2, 98], 80);
            route(t, from_lan, wan(&[vlan(100), vlan(101)]))
        }
        "C" => {
            let t = v4([10, 0, 2, 99], 80, [10, 0, 1, 98], 40004);
            route(t, from_wan, lan(2, &[vlan(20)]))
        }
        _ => panic!("{name}"),
    }
}

/// Vectors: SoC, case, engine, bucket, bytes.
fn vectors() -> impl Iterator<Item = (&'static Soc, &'static str, u8, &'static str, Vec<u8>)> {
    include_str!("golden.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|line| {
            let f: Vec<_> = line.split(' ').collect();
            let soc = soc::ALL.into_iter().find(|s| s.name == f[0]).unwrap();
            let bytes = (0..f[4].len() / 2)
                .map(|i| u8::from_str_radix(&f[4][2 * i..2 * i + 2], 16).unwrap());
            (soc, f[1], f[2].parse().unwrap(), f[3], bytes.collect())
        })
}

#[test]
fn entries() {
    let mut seen = 0;
    for (soc, name, ppe, bucket, want) in vectors().filter(|v| !v.1.starts_with('8')) {
        let image = encode(soc, &BOARD, &case(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            format!("{:04x}", image.bucket),
            bucket,
            "{} {name}",
            soc.name
        );
        assert_eq!(image.engine, ppe, "{} {name}", soc.name);

        let (mut engine, regs, table) = engine(soc);
        regs.clock.set(0x1234);
        let handle = engine.add(&image).unwrap();
        assert_eq!(handle.slot(), image.bucket);
        let words = soc.hal.entry_size() / 4;
        let at = usize::from(handle.slot()) * words;
        let got: Vec<u32> = (0..words).map(|n| table.load(at + n)).collect();
        assert_eq!(bytes(&got), want, "{} {name}", soc.name);
        seen += 1;
    }
    assert_eq!(seen, 18);
}

#[test]
fn bridge() {
    for (soc, ib1, ib2) in [
        (&soc::MT7621, 0x2540_0000, 0x007f_f051),
        (&soc::MT7986, 0x2150_0000, 0x00f0_0501),
    ] {
        let macs = Macs {
            src: HOST_MAC,
            dst: GW_MAC,
        };
        let mut desc = flow(
            TCP,
            case("1").into_tuple(),
            case("1").into_tuple(),
            Port::plain(1),
            wan(&[]),
        );
        desc.kind = Kind::Bridged;
        desc.egress.macs = macs;
        desc.ingress.macs = Some(macs);
        assert!(desc.ingress.layers.push_inner(vlan(10)));
        let template = encode_bridge(soc, &BOARD, &desc).unwrap();
        assert_eq!((template.ib1(), template.word(20)), (ib1, ib2));
        assert_eq!(template.half(16), 10);

        let want = |name| {
            vectors()
                .find(|v| v.0.name == soc.name && v.1 == name)
                .unwrap()
                .4
        };
        assert_eq!(bytes(&template.words()[6..14]), want("8"));

        // What the engine makes for a packet of the two.
        let mut unbound = Foe::ZERO;
        unbound.set_ib1(State::Unbind.bits() | ib1::UDP.mask() | 0x21_0034);
        unbound.set_word(4, 0x0a00_0105);
        unbound.set_word(8, 0x0a00_0106);
        unbound.set_word(12, (1000 << 16) | 2000);
        let (mut entry, of) = bridged(soc, &template, &unbound).unwrap();
        entry.set_ib1(mtk_foe::age::touched(soc.hal, 0x1234, entry.ib1()));
        if soc.counts {
            entry.set_ib2(of, entry.ib2(of) | soc.hal.counted());
        }
        let size = soc.hal.entry_size();
        assert_eq!(bytes(entry.words())[..size], want("8b"), "{}", soc.name);
    }
}

trait IntoTuple {
    fn into_tuple(self) -> Tuple;
}

impl IntoTuple for FlowDesc {
    fn into_tuple(self) -> Tuple {
        match self.kind {
            Kind::Routed { tuple, .. } => tuple,
            Kind::Bridged => panic!(),
        }
    }
}

#[test]
fn refused() {
    for soc in soc::ALL {
        let err = |f: &dyn Fn(&mut FlowDesc)| {
            let mut d = case("4");
            d.egress = wan(&[]);
            f(&mut d);
            encode(soc, &BOARD, &d).unwrap_err()
        };
        let tags = |l: &[Layer]| {
            let e = wan(l);
            err(&|d| d.egress = e)
        };
        let session = Layer::Pppoe { session: 1 };
        let qinq = Layer::Vlan {
            proto: 0x88a8,
            vid: 1,
            pcp: None,
        };
        assert_eq!(tags(&[vlan(1), vlan(2), vlan(3)]), Unsupported::VlanDepth);
        assert_eq!(tags(&[vlan(1), vlan(2), session]), Unsupported::VlanDepth);
        assert_eq!(tags(&[qinq]), Unsupported::VlanProto);
        assert_eq!(tags(&[session, vlan(1)]), Unsupported::LayerOrder);
        assert_eq!(tags(&[session, session]), Unsupported::PppoeDepth);
        assert_eq!(
            err(&|d| d.egress.macs.src = [0; 6]),
            Unsupported::MacAddress
        );
        assert_eq!(
            err(&|d| d.egress.macs.dst = [0xff; 6]),
            Unsupported::MacAddress
        );
        assert_eq!(err(&|d| d.egress.port.ifindex = 9), Unsupported::EgressPort);
        assert_eq!(
            err(&|d| d.ingress.port.ifindex = 0),
            Unsupported::IngressPort
        );
        assert_eq!(err(&|d| d.marks.dscp = Some(46)), Unsupported::Dscp);
        assert_eq!(err(&|d| d.egress.mtu = 1400), Unsupported::Mtu);
        assert_eq!(err(&|d| d.kind = Kind::Bridged), Unsupported::Bridged);
        let switch = |port, proto| Via::Dsa { port, proto };
        assert_eq!(
            err(&|d| d.egress.port.via = switch(2, 1)),
            Unsupported::DsaProto
        );
        assert_eq!(
            err(&|d| d.egress.port.via = switch(8, 9)),
            Unsupported::PortNumber
        );
        // No ports.
        assert_eq!(
            err(&|d| if let Kind::Routed { tuple, .. } = &mut d.kind {
                tuple.ports = None
            }),
            Unsupported::L4Proto
        );
        let mut d = case("5");
        if let Kind::Routed { rewritten, .. } = &mut d.kind {
            rewritten.ports = Some(Ports { src: 1, dst: 2 });
        }
        assert_eq!(encode(soc, &BOARD, &d), Err(Unsupported::Nat));
    }
}

#[test]
fn register_sequences() {
    type Case = (&'static Soc, [u32; 2], &'static [(u32, u32)], u32);
    let all: [Case; 4] = [
        (&soc::MT7621, [0x0001_4fbc, 0x0002_77c0], &[], 0x403c),
        (
            &soc::MT7622,
            [0x0001_4fbc, 0x0002_77c0],
            &[(0x338, 0x4100_0000), (0x334, 1), (0x334, 3), (0x350, 1)],
            0x403c,
        ),
        (
            &soc::MT7986,
            [0x0011_4fbc, 0x000a_770e],
            &[
                (0x24c, 0xcb777),
                (0x374, 0x7f),
                (0x338, 0x4100_0000),
                (0x334, 1),
                (0x334, 3),
                (0x350, 1),
            ],
            0x0010_403c,
        ),
        (
            &soc::MT7988,
            [0x0011_4fb4, 0x000a_770e],
            &[
                (0x24c, 0xcb777),
                (0x374, 0x7f),
                (0x338, 0x4100_0000),
                (0x334, 1),
                (0x334, 3),
                (0x350, 1),
            ],
            0x0010_4034,
        ),
    ];
    for (soc, [tb_cfg, flow_cfg], tail, stopped) in all {
        let (mut ppe, regs, table) = engine(soc);
        let mut want = vec![
            (0x220, 0x4000_0000),
            (0x21c, tb_cfg),
            (0x208, u32::MAX),
            (0x320, 0x200),
            (0x320, 0),
            (0x320, 1),
            (0x204, flow_cfg),
            (0x238, 0x03e8_0003),
            (0x23c, 0x0001_000c),
            (0x240, 0x0001_0007),
            (0x22c, 0x3fff_3fff),
            (0x230, 0x0001_3fff),
            (0x228, 0x0001_001e),
            (0x200, 0x0000_020d),
            (0x248, 0),
        ];
        want.extend(tail);
        want.extend([(0x30c, 0x05ee_05ea), (0x310, 0x05f6_05f2)]);
        assert_eq!(*regs.trace.borrow(), want, "{}", soc.name);
        assert!(ppe.is_running());

        regs.trace.borrow_mut().clear();
        ppe.stop().unwrap();
        let glo = (0x200, 0x20c);
        let off = [
            (0x320, 0x201),
            (0x320, 1),
            (0x320, 0),
            (0x21c, stopped),
            glo,
            (0x204, 0),
        ];
        assert_eq!(*regs.trace.borrow(), off, "{}", soc.name);
        let words = soc.hal.entry_size() / 4;
        assert!((0..mtk_foe::ENTRIES).all(|n| table.load(n * words) == 0));
    }
}

#[test]
fn reset() {
    let (mut ppe, regs, _) = engine(&soc::MT7986);
    regs.trace.borrow_mut().clear();
    ppe.prepare_reset().unwrap();
    let tb = 0x0011_4fbc;
    let want = [
        (0x21c, tb),
        (0x230, 0x3fff),
        (0x234, 0),
        (0x230, 0x00ff_3fff),
        (0x234, u32::MAX),
        (0x21c, tb | (1 << 24)),
        (0x21c, tb | (1 << 24) | (3 << 12)),
        (0x21c, tb & !(3 << 16) | (1 << 24) | (3 << 12)),
    ];
    assert_eq!(*regs.trace.borrow(), want);
    assert!(regs.waited.get() >= 30_000);
    assert!(!ppe.is_running());

    // An engine that goes on working: an error, after a second.
    regs.busy.set(true);
    let waited = regs.waited.get();
    assert_eq!(seq::stop(&regs), Err(seq::Timeout));
    assert!((1_000_000..1_100_000).contains(&(regs.waited.get() - waited)));
    let last = regs.trace.borrow().last().copied();
    assert_eq!(last.map(|(reg, _)| reg), Some(regs::TB_CFG));
}

#[test]
fn debugfs_lines() {
    let soc = &soc::MT7986;
    let (mut ppe, regs, _) = engine(soc);
    regs.clock.set(0x1234);
    let handle = ppe.add(&encode(soc, &BOARD, &case("4")).unwrap()).unwrap();
    ppe.add(&encode(soc, &BOARD, &case("5")).unwrap()).unwrap();
    regs.counters
        .borrow_mut()
        .insert(handle.slot().into(), [3000, 2 << 16, 0, 0]);
    assert_eq!(ppe.stats(&handle).unwrap().delta.packets, 2);

    let mut all = String::new();
    ppe.dump(&mut all, true).unwrap();
    assert_eq!(
        all,
        "01cfc BND IPv6 5T orig=2001:0db8:0001:0000:0000:0000:0000:0099:40001->\
         2001:0db8:0002:0000:0000:0000:0000:0099:80 \
         eth=02:11:22:33:44:55->40:a6:b7:7c:e3:50 etype=86dd vlan=0,0 ib1=22d00034 ib2=00f08501 packets=0 bytes=0\n\
         0239c BND IPv4 5T orig=192.168.1.100:1111->1.2.3.4:443 new=203.0.113.7:1111->1.2.3.4:443 \
         eth=02:11:22:33:44:55->40:a6:b7:7c:e3:50 etype=8864 vlan=7,0 ib1=20564034 ib2=00f08501 packets=2 bytes=3000\n"
    );
    // Reading it again gives the same: no counter was read.
    let mut again = String::new();
    ppe.dump(&mut again, false).unwrap();
    assert_eq!(all, again);

    let mut line = String::new();
    let mut odd = Foe::ZERO;
    odd.set_ib1(State::Fin.bits() | soc.hal.type_mask());
    text::line(&mut line, soc.hal, 1, &odd, Default::default()).unwrap();
    assert!(line.starts_with("00001 FIN UNKNOWN orig=?->? eth="));
}
