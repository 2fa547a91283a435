// SPDX-License-Identifier: GPL-2.0

//! Against the kernel's own driver.
//!
//! Compiles the unmodified mtk_ppe.c, mtk_ppe_offload.c and mtk_ppe_debugfs.c of a kernel source
//! tree, with a header of our own in the place of the kernel's, and compares with it over random
//! flows: what is refused, every byte of entries, buckets, register writes, counters and text.
//! What differs is one of [`mtk_foe::quirks`], and is shown to.
//!
//! The source is looked for in `$NFT_OFFLOAD_KSRC` and in the cache of the test lanes. Without one
//! there is nothing to compare, and the tests pass; with `$NFT_OFFLOAD_KSRC` set they insist.

mod common;
use common::*;
use mtk_foe::encode::{bridged, encode_bridge, Image};
use mtk_foe::entry::{ib1, State};
use mtk_foe::soc::{self, Soc};
use mtk_foe::{encode, quirks, regs, slot, Foe, Memory, ENTRIES};
use nft_flow::desc::*;
use nft_flow::encap::ethertype;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void, CString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};

const EEXIST: i32 = -17;
const EINVAL: i32 = -22;
const EOPNOTSUPP: i32 = -95;

/// `struct orc_rule`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Rule {
    cookie: u64,
    in_ifindex: u32,
    out: u32,
    smac: Mac,
    dmac: Mac,
    src: [u8; 16],
    dst: [u8; 16],
    new_src: [u8; 16],
    new_dst: [u8; 16],
    sport: u16,
    dport: u16,
    new_sport: u16,
    new_dport: u16,
    family: u8,
    proto: u8,
    has_ports: u8,
    layers: u8,
    layer: [[u16; 2]; 3],
    in_vlan: u16,
    wcid: u16,
    wdma: u8,
    queue: u8,
    bss: u8,
    amsdu: u8,
}

extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(lib: *mut c_void, name: *const c_char) -> *mut c_void;
}

macro_rules! library {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)+) => {
        /// The kernel's driver. It has one state: whoever has this has it alone.
        struct Kernel {
            $($name: unsafe extern "C" fn($($type),*) $(-> $ret)?,)+
        }

        impl Kernel {
            fn load(file: &Path) -> Self {
                let file = CString::new(file.to_str().unwrap()).unwrap();
                // SAFETY: A library that was just built; it has no initialisation.
                let lib = unsafe { dlopen(file.as_ptr(), 2) };
                assert!(!lib.is_null());
                $(
                    let name = CString::new(concat!("orc_", stringify!($name))).unwrap();
                    // SAFETY: The library stays loaded.
                    let $name = unsafe { dlsym(lib, name.as_ptr()) };
                    assert!(!$name.is_null());
                )+
                // SAFETY: The signatures are those of oracle.c.
                Kernel { $($name: unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) $(-> $ret)?>($name) },)+ }
            }

            $(fn $name(&self, $($arg: $type),*) $(-> $ret)? {
                // SAFETY: Pointers are to values that live longer than the call; those who have
                // the value have the library alone.
                unsafe { (self.$name)($($arg),*) }
            })+
        }
    };
}

library! {
    fn init(soc: c_int);
    fn replace(rule: *const Rule) -> c_int;
    fn entry(cookie: u64, words: *mut u32, ppe: *mut u32, bound: *mut u32) -> c_int;
    fn destroy(cookie: u64) -> c_int;
    fn stats(cookie: u64, packets: *mut u64, bytes: *mut u64, idle: *mut u64) -> c_int;
    fn packet(ppe: c_int, slot: u32, frame: *const u8);
    fn slot(ppe: c_int, slot: u32) -> *mut u32;
    fn clock(now: u32);
    fn count(ppe: c_int, slot: u32, regs: *const u32);
    fn stop() -> c_int;
    fn prepare_reset() -> c_int;
    fn warned() -> u64;
    fn trace(out: *mut u32, max: u32, next: c_int) -> u32;
    fn text(ppe: c_int, bind: c_int, buf: *mut c_char, size: u32) -> u32;
}

impl Kernel {
    /// Register writes since the last call.
    fn writes(&self, next: u8) -> Vec<(u32, u32)> {
        let mut words = vec![0; 8192];
        let n = self.trace(words.as_mut_ptr(), 4096, next.into()) as usize;
        words[..2 * n].chunks(2).map(|w| (w[0], w[1])).collect()
    }

    fn words(&self, ppe: u8, slot: u16, soc: &Soc) -> Vec<u32> {
        let at = self.slot(ppe.into(), slot.into());
        let n = soc.hal.entry_size() / 4;
        // SAFETY: The slot is in the library's table.
        unsafe { std::slice::from_raw_parts(at, n) }.to_vec()
    }

    fn set_words(&self, ppe: u8, slot: u16, words: &[u32]) {
        let at = self.slot(ppe.into(), slot.into());
        // SAFETY: As above; nobody else looks.
        unsafe { std::slice::from_raw_parts_mut(at, words.len()) }.copy_from_slice(words);
    }

    fn dump(&self, ppe: u8, bind: bool) -> String {
        let mut buf = vec![0u8; 1 << 20];
        let n = self.text(
            ppe.into(),
            bind.into(),
            buf.as_mut_ptr().cast(),
            buf.len() as u32,
        );
        buf.truncate(n as usize);
        String::from_utf8(buf).unwrap()
    }

    fn entry_of(&self, cookie: u64) -> Option<(Foe, u8, u32, u16)> {
        let (mut words, mut ppe, mut bound) = ([0; 32], 0, 0);
        let hash = self.entry(cookie, words.as_mut_ptr(), &mut ppe, &mut bound);
        (hash >= 0).then(|| (Foe::from_words(&words), ppe as u8, bound, hash as u16))
    }
}

fn source() -> Option<PathBuf> {
    const DRIVER: &str = "drivers/net/ethernet/mediatek";
    if let Ok(dir) = std::env::var("NFT_OFFLOAD_KSRC") {
        return Some(Path::new(&dir).join(DRIVER));
    }
    let cache = std::env::var("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|_| std::env::var("HOME").map(|h| Path::new(&h).join(".cache")))
        .ok()?
        .join("nft-offload");
    let mut all: Vec<_> = std::fs::read_dir(cache)
        .ok()?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("src-"))
        })
        .map(|p| p.join(DRIVER))
        .filter(|p| p.join("mtk_ppe.c").exists())
        .collect();
    all.sort();
    all.pop()
}

/// Lines from the one that starts with `from` to the one before that which starts with `to`.
fn cut(text: &str, from: &str, to: &str) -> String {
    let start = text.lines().skip_while(|l| !l.starts_with(from));
    let part: Vec<_> = start.take_while(|l| !l.starts_with(to)).collect();
    assert!(!part.is_empty(), "no {from}");
    part.join("\n") + "\n"
}

fn build(source: &Path) -> PathBuf {
    // Asked when it runs: what another checkout has built may be used here.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let ours = Path::new(&root).join("tests/kernel");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-ppe");
    let _ = std::fs::remove_dir_all(&out);
    let read = |f: &str| std::fs::read_to_string(source.join(f)).unwrap();

    // The kernel's headers are empty: all that is needed is in shim.h.
    for file in [
        "mtk_ppe.c",
        "mtk_ppe_offload.c",
        "mtk_ppe_debugfs.c",
        "mtk_ppe.h",
    ] {
        for line in read(file).lines() {
            if let Some(name) = line
                .strip_prefix("#include <")
                .and_then(|l| l.split('>').next())
            {
                let path = out.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "").unwrap();
            }
        }
    }
    let eth = read("mtk_eth_soc.h");
    let parts = cut(&eth, "enum mtk_pse_port", "/* GMAC")
        + &cut(
            &eth,
            "static inline bool mtk_is_netsys_v1",
            "static inline bool mtk_interface_mode",
        );
    std::fs::write(out.join("mtk_eth_soc_parts.h"), parts).unwrap();

    let lib = out.join("libkernel_ppe.so");
    let mut last = String::new();
    for cc in ["cc", "gcc-14", "gcc", "clang"] {
        let done = Command::new(cc)
            .args(["-std=gnu11", "-O1", "-w", "-shared", "-fPIC", "-include"])
            .arg(ours.join("shim.h"))
            .arg(format!("-I{}", ours.display()))
            .arg(format!("-I{}", out.display()))
            .arg(format!("-I{}", source.display()))
            .arg("-o")
            .arg(&lib)
            .arg(ours.join("oracle.c"))
            .output();
        match done {
            Ok(o) if o.status.success() => return lib,
            Ok(o) => last = String::from_utf8_lossy(&o.stderr).into_owned(),
            Err(_) => {}
        }
    }
    panic!("no compiler took it: {last}");
}

/// The kernel's driver, for one test at a time; [`None`] without its source.
fn kernel() -> Option<MutexGuard<'static, Kernel>> {
    static KERNEL: OnceLock<Option<Mutex<Kernel>>> = OnceLock::new();
    let kernel = KERNEL.get_or_init(|| {
        let Some(source) = source() else {
            eprintln!("no kernel source: nothing to compare with");
            return None;
        };
        Some(Mutex::new(Kernel::load(&build(&source))))
    });
    Some(kernel.as_ref()?.lock().unwrap_or_else(|e| e.into_inner()))
}

/// The rule that nf_flow_table would hand to the kernel's driver.
fn rule(cookie: u64, desc: &FlowDesc) -> Rule {
    let mut r = Rule {
        cookie,
        in_ifindex: desc.ingress.port.ifindex,
        smac: desc.egress.macs.src,
        dmac: desc.egress.macs.dst,
        ..Default::default()
    };
    let addrs = |a: &Addrs| {
        let mut out = [[0; 16]; 2];
        match a {
            Addrs::V4 { src, dst } => {
                out[0][..4].copy_from_slice(src);
                out[1][..4].copy_from_slice(dst);
            }
            Addrs::V6 { src, dst } => out = [*src, *dst],
        }
        out
    };
    if let Kind::Routed {
        proto,
        tuple,
        rewritten,
    } = &desc.kind
    {
        r.family = if tuple.addrs.is_v6() { 6 } else { 4 };
        r.proto = *proto;
        [r.src, r.dst] = addrs(&tuple.addrs);
        [r.new_src, r.new_dst] = addrs(&rewritten.addrs);
        if let (Some(old), Some(new)) = (tuple.ports, rewritten.ports) {
            r.has_ports = 1;
            (r.sport, r.dport, r.new_sport, r.new_dport) = (old.src, old.dst, new.src, new.dst);
        }
    }
    for (to, from) in r.layer.iter_mut().zip(desc.egress.layers.iter()) {
        *to = match from {
            Layer::Vlan { proto, vid, .. } => [proto, vid],
            Layer::Pppoe { session } => [ethertype::PPPOE, session],
        };
        r.layers += 1;
    }
    if let Some(Layer::Vlan { vid, .. }) = desc.ingress.layers.iter().next() {
        r.in_vlan = vid;
    }
    r.out = match desc.egress.port.via {
        Via::Plain => desc.egress.port.ifindex,
        Via::Dsa { port, proto: 9 } => 10 + u32::from(port),
        Via::Dsa { port, .. } => 50 + u32::from(port),
        Via::Wdma(w) => {
            (r.wdma, r.queue, r.bss, r.wcid) = (w.index, w.queue, w.bss, w.wcid);
            r.amsdu = w.amsdu.into();
            30
        }
    };
    r
}

/// Any flow; mostly one that can be offloaded.
fn any_flow() -> impl Strategy<Value = FlowDesc> {
    let ports = || (any::<u16>(), any::<u16>()).prop_map(|(src, dst)| Ports { src, dst });
    let v4 = || any::<[[u8; 4]; 2]>().prop_map(|[src, dst]| Addrs::V4 { src, dst });
    let v6 = || any::<[[u8; 16]; 2]>().prop_map(|[src, dst]| Addrs::V6 { src, dst });
    let t4 = move || {
        (v4(), ports()).prop_map(|(addrs, p)| Tuple {
            addrs,
            ports: Some(p),
        })
    };
    let t6 = move || {
        (v6(), ports()).prop_map(|(addrs, p)| Tuple {
            addrs,
            ports: Some(p),
        })
    };
    let proto = || prop_oneof![Just(TCP), Just(UDP)];
    let kind = prop_oneof![
        // Any part of it may be translated.
        6 => (proto(), t4(), t4(), any::<[bool; 4]>()).prop_map(|(proto, old, new, which)| {
            let (Addrs::V4 { src: a, dst: b }, Addrs::V4 { src: c, dst: d }) = (old.addrs, new.addrs)
            else { unreachable!() };
            let (o, n) = (old.ports.unwrap(), new.ports.unwrap());
            let rewritten = Tuple {
                addrs: Addrs::V4 { src: if which[0] { c } else { a }, dst: if which[1] { d } else { b } },
                ports: Some(Ports {
                    src: if which[2] { n.src } else { o.src },
                    dst: if which[3] { n.dst } else { o.dst },
                }),
            };
            Kind::Routed { proto, tuple: old, rewritten }
        }),
        3 => (proto(), t6()).prop_map(|(proto, t)| Kind::Routed { proto, tuple: t, rewritten: t }),
        1 => (proto(), t6(), t6()).prop_map(|(proto, tuple, rewritten)| Kind::Routed { proto, tuple, rewritten }),
    ];
    let layer = || {
        prop_oneof![
            10 => (0..4096_u16).prop_map(vlan),
            4 => any::<u16>().prop_map(|session| Layer::Pppoe { session }),
            1 => (0..4096_u16).prop_map(|vid| Layer::Vlan { proto: ethertype::QINQ, vid, pcp: None }),
        ]
    };
    let layers = prop_oneof![
        4 => Just(vec![]),
        3 => prop::collection::vec(layer(), 1..4),
        2 => any::<u16>().prop_map(|session| vec![vlan(7), Layer::Pppoe { session }]),
        1 => any::<u8>().prop_map(|vid| vec![vlan(vid.into()), vlan(9)]),
    ];
    let mac = || {
        prop_oneof![
            12 => any::<Mac>().prop_map(|mut m| { m[0] &= 0xfe; m[5] |= 1; m }),
            1 => Just([0; 6]),
            1 => any::<Mac>(),
        ]
    };
    let port = prop_oneof![
        4 => (1..4_u32).prop_map(Port::plain),
        1 => Just(Port::plain(99)),
        4 => (0..9_u8).prop_map(|port| Port { ifindex: 1, via: Via::Dsa { port, proto: 9 } }),
        1 => (0..8_u8).prop_map(|port| Port { ifindex: 1, via: Via::Dsa { port, proto: 1 } }),
        4 => (0..4_u8, 0..5_u8, 0..1100_u16, any::<u8>(), any::<bool>()).prop_map(|(index, queue, wcid, bss, amsdu)| {
            let bss = if index == 0 { bss } else { bss & 0x3f };
            let wcid = if index == 1 { wcid } else { wcid & 0xff };
            Port { ifindex: 30, via: Via::Wdma(Wdma { index, queue, wcid, bss, amsdu }) }
        }),
    ];
    (kind, layers, mac(), mac(), port, 1..4_u32).prop_map(
        |(kind, layers, src, dst, port, ingress)| {
            let mut desc = flow(
                TCP,
                v4_any(),
                v4_any(),
                Port::plain(ingress),
                egress(port, Macs { src, dst }, &layers),
            );
            desc.kind = kind;
            desc
        },
    )
}

fn v4_any() -> Tuple {
    v4([0; 4], 0, [0; 4], 0)
}

/// What of a refusal of ours is a quirk: the kernel's driver takes such flows.
fn excused(soc: &Soc, desc: &FlowDesc, why: Unsupported) -> Option<&'static str> {
    match (why, desc.egress.port.via) {
        // Cut off: switch ports above 7, numbers of stations.
        (Unsupported::PortNumber, Via::Dsa { .. }) => Some("N1"),
        (Unsupported::PortNumber, Via::Wdma(w)) if soc.hal.version() == 1 || w.index < 3 => {
            Some("N1")
        }
        (Unsupported::EgressPort, Via::Plain)
            if soc.hal.version() == 1 && desc.egress.port.ifindex == 3 =>
        {
            Some("N1")
        }
        // The station in the place of a tag.
        (Unsupported::VlanDepth, Via::Wdma(_)) if desc.egress.layers.vlans() == 2 => Some("N3"),
        // It takes tags for being outside of a session, wherever they are.
        (Unsupported::LayerOrder, _) => Some("N4"),
        _ => None,
    }
}

fn errno(why: Unsupported, desc: &FlowDesc) -> i32 {
    match (why, desc.egress.port.via) {
        (Unsupported::MacAddress, _) => EINVAL,
        (Unsupported::PortNumber, Via::Wdma(_)) => EINVAL,
        _ => EOPNOTSUPP,
    }
}

/// Everything about one flow.
fn compare(
    k: &Kernel,
    soc: &'static Soc,
    ours: &mut (TestPpe, Registers, Table),
    seen: &mut BTreeMap<&'static str, u32>,
    cookie: u64,
    desc: &FlowDesc,
    clock: u32,
) -> Result<(), TestCaseError> {
    let (ppe, regs, table) = ours;
    let err = k.replace(&rule(cookie, desc));
    let image = match encode(soc, &BOARD, desc) {
        Ok(image) => image,
        Err(why) => {
            if err == 0 {
                let quirk = excused(soc, desc, why);
                prop_assert!(quirk.is_some(), "{why} but the kernel takes it");
                prop_assert!(quirks::ALL.iter().any(|q| Some(q.id) == quirk));
                *seen.entry(quirk.unwrap()).or_default() += 1;
                prop_assert_eq!(k.destroy(cookie), 0);
            } else {
                // Refused for the first of several reasons.
                let several = excused(soc, desc, why).is_some();
                prop_assert!(
                    several || err == errno(why, desc),
                    "{why}, the kernel says {err}"
                );
                *seen.entry("refused").or_default() += 1;
            }
            return Ok(());
        }
    };
    prop_assert_eq!(err, 0);
    *seen.entry("taken").or_default() += 1;
    prop_assert_eq!(k.replace(&rule(cookie, desc)), EEXIST);

    // The entry as it was made.
    let (foe, engine, _, hash) = k.entry_of(cookie).unwrap();
    let size = soc.hal.entry_size();
    prop_assert_eq!(
        &bytes(image.foe.words())[..size],
        &bytes(foe.words())[..size]
    );
    prop_assert_eq!(image.bucket, hash);
    if !matches!(desc.ingress.port.via, Via::Wdma(_)) {
        // The first generation has one engine.
        prop_assert_eq!(image.engine, engine);
    }

    // In force: ours at once, theirs when the engine has announced it in that slot.
    regs.clock.set(clock);
    k.clock(clock);
    regs.trace.borrow_mut().clear();
    let handle = ppe.add(&image).unwrap();
    prop_assert!(handle.slot() >= hash && handle.slot() < hash + u16::from(soc.ways));
    let mut announced = foe;
    announced.set_ib1(foe.ib1() & (soc.hal.type_mask() | ib1::UDP.mask()) | State::Unbind.bits());
    k.set_words(engine, handle.slot(), &announced.words()[..size / 4]);
    k.writes(engine);
    k.packet(engine.into(), handle.slot().into(), [0u8; 64].as_ptr());
    let mine = slot::read(table, soc, handle.slot());
    prop_assert_eq!(
        &mine.words()[..size / 4],
        &k.words(engine, handle.slot(), soc)[..]
    );
    prop_assert_eq!(mine.state(), State::Bind);
    // Quirk N2: we read the counter before.
    let writes = |regs: &Registers| {
        let mut all = regs.trace.borrow_mut();
        let kept: Vec<_> = all
            .drain(..)
            .filter(|(reg, _)| *reg != regs::MIB_SER_CR)
            .collect();
        kept
    };
    // Quirk N5: and clear the cache before.
    let mut all = writes(regs);
    prop_assert_eq!(
        all.drain(..2).map(|(reg, _)| reg).max(),
        Some(regs::CACHE_CTL)
    );
    prop_assert_eq!(all, k.writes(engine));

    // Counters and age.
    let counted = [cookie as u32 * 77, ((cookie as u32) << 16) | 3, 5, 0];
    regs.counters
        .borrow_mut()
        .insert(handle.slot().into(), counted);
    k.count(engine.into(), handle.slot().into(), counted.as_ptr());
    let later = clock.wrapping_add(11);
    regs.clock.set(later);
    k.clock(later);
    let (mut packets, mut octets, mut idle) = (0, 0, 0);
    prop_assert_eq!(k.stats(cookie, &mut packets, &mut octets, &mut idle), 0);
    let stats = ppe.stats(&handle).unwrap();
    prop_assert_eq!((stats.delta.packets, stats.delta.bytes), (packets, octets));
    prop_assert_eq!(u64::from(stats.idle), idle);

    if cookie % 16 == 0 {
        let mut text = String::new();
        ppe.dump(&mut text, true).unwrap();
        let theirs = k.dump(engine, true);
        // Quirk B8: swapped.
        let at = text.find("etype=").unwrap() + 6;
        let (a, b) = (
            text[at..at + 2].to_string(),
            text[at + 2..at + 4].to_string(),
        );
        text.replace_range(at..at + 4, &(b + &a));
        prop_assert_eq!(text, theirs);
        *seen.entry("B8").or_default() += 1;
    }

    // And gone.
    regs.trace.borrow_mut().clear();
    k.writes(engine);
    let slot = handle.slot();
    ppe.del(handle);
    prop_assert_eq!(k.destroy(cookie), 0);
    prop_assert_eq!(
        slot::read_ib1(table, soc, slot),
        k.words(engine, slot, soc)[0]
    );
    prop_assert_eq!(writes(regs), k.writes(engine));
    Ok(())
}

#[test]
fn flows() {
    let Some(k) = kernel() else { return };
    let mut seen = BTreeMap::new();
    for (n, soc) in soc::ALL.into_iter().enumerate() {
        k.init(n as c_int);
        let mut ours = engine(soc);
        let mut cookie = 1000;
        // The same flows every time, or others: PPE_SEED=$RANDOM.
        let mut seed = [0; 32];
        for (to, from) in seed
            .iter_mut()
            .zip(std::env::var("PPE_SEED").unwrap_or_default().bytes())
        {
            *to = from;
        }
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        for _ in 0..2000 {
            let (desc, clock) = (any_flow(), any::<u16>())
                .new_tree(&mut runner)
                .unwrap()
                .current();
            cookie += 1;
            compare(&k, soc, &mut ours, &mut seen, cookie, &desc, clock.into())
                .unwrap_or_else(|e| panic!("{}: {e}\n{desc:#?}", soc.name));
        }
    }
    println!("{seen:?}");
    assert_eq!(k.warned(), 0);
    assert!(seen["taken"] > 3000 && seen["refused"] > 500);
    for quirk in ["B8", "N1", "N3", "N4"] {
        assert!(seen[quirk] > 0, "{quirk} not seen");
    }
}

#[test]
fn sequences() {
    let Some(k) = kernel() else { return };
    for (n, soc) in soc::ALL.into_iter().enumerate() {
        k.init(n as c_int);
        let (mut ppe, regs, _) = engine(soc);
        // Quirk B5.
        let mut theirs = k.writes(0);
        if let Some(last) = theirs
            .iter_mut()
            .find(|(reg, _)| *reg == regs::MIB_CACHE_CTL)
        {
            assert_eq!(last.1, 2);
            last.1 = 1;
        }
        assert_eq!(*regs.trace.borrow(), theirs, "{}: start", soc.name);

        regs.trace.borrow_mut().clear();
        ppe.prepare_reset().unwrap();
        assert_eq!(k.prepare_reset(), 0);
        assert_eq!(*regs.trace.borrow(), k.writes(0), "{}: reset", soc.name);

        regs.trace.borrow_mut().clear();
        ppe.stop().unwrap();
        assert_eq!(k.stop(), 0);
        assert_eq!(*regs.trace.borrow(), k.writes(0), "{}: stop", soc.name);
    }
}

#[test]
fn reserved_slots() {
    let Some(k) = kernel() else { return };
    for (n, soc) in soc::ALL.into_iter().enumerate() {
        k.init(n as c_int);
        let (_, _, table) = engine(soc);
        for slot in 0..ENTRIES as u16 {
            let (ours, theirs) = (slot::read_ib1(&table, soc, slot), k.words(0, slot, soc)[0]);
            // Quirk B6.
            if soc.name == "mt7621" && slot % 128 == 115 {
                assert_eq!((ours, theirs), (ib1::STATIC.mask(), 0));
            } else {
                assert_eq!(ours, theirs, "{} {slot}", soc.name);
            }
        }
    }
}

/// Two flows of one bucket.
fn pair(soc: &'static Soc) -> [(FlowDesc, Image); 2] {
    let mut first: BTreeMap<u16, (FlowDesc, Image)> = BTreeMap::new();
    for n in 0_u16.. {
        let t = v4([10, 0, 1, 99], n, [10, 0, 2, 99], 80);
        let desc = flow(TCP, t, t, Port::plain(1), wan(&[]));
        let image = encode(soc, &BOARD, &desc).unwrap();
        let free = |w| !soc.is_reserved(usize::from(image.bucket) + w);
        if !(free(0) && free(1)) {
            continue;
        }
        if let Some(other) = first.insert(image.bucket, (desc, image)) {
            return [other, (desc, image)];
        }
    }
    unreachable!()
}

/// Quirk B1: it is there, and not here.
#[test]
fn collision() {
    let Some(k) = kernel() else { return };
    for (n, soc) in soc::ALL.into_iter().enumerate() {
        k.init(n as c_int);
        let flows = pair(soc);
        for (way, (desc, image)) in (0..).zip(&flows) {
            assert_eq!(k.replace(&rule(1 + u64::from(way), desc)), 0);
            let mut announced = image.foe;
            announced.set_ib1(State::Unbind.bits());
            let size = soc.hal.entry_size();
            k.set_words(
                image.engine,
                image.bucket + way,
                &announced.words()[..size / 4],
            );
            k.packet(
                image.engine.into(),
                (image.bucket + way).into(),
                [0u8; 64].as_ptr(),
            );
        }
        let state = |slot| State::of(k.words(flows[0].1.engine, slot, soc)[0]);
        let slot = flows[0].1.bucket;
        assert_eq!((state(slot), state(slot + 1)), (State::Bind, State::Bind));
        assert_eq!(k.entry_of(1).unwrap().2, 0xffff);
        assert_eq!(k.destroy(1), 0);
        assert_eq!(
            state(slot),
            State::Bind,
            "fixed in the kernel: quirk B1 can go"
        );

        let (mut ppe, _, table) = engine(soc);
        let first = ppe.add(&flows[0].1).unwrap();
        let second = ppe.add(&flows[1].1).unwrap();
        let slot = first.slot();
        ppe.del(first);
        assert_eq!(State::of(slot::read_ib1(&table, soc, slot)), State::Invalid);
        assert!(ppe.stats(&second).is_ok());
    }
}

/// Quirk B9: two flows that differ in where they come in are one entry to the kernel's driver.
#[test]
fn ingress_vlan() {
    let Some(k) = kernel() else { return };
    for (n, soc) in soc::ALL.into_iter().enumerate() {
        k.init(n as c_int);
        let mut desc = pair(soc)[0].0;
        assert_eq!(k.replace(&rule(1, &desc)), 0);
        assert!(desc.ingress.layers.push_inner(vlan(20)));
        assert_eq!(k.replace(&rule(2, &desc)), 0);
        assert_eq!(k.entry_of(1).unwrap().0, k.entry_of(2).unwrap().0);
    }
}

/// Bridged flows: the template, and what is made of it for a packet. Quirk B3 on the way.
#[test]
fn bridge() {
    let Some(k) = kernel() else { return };
    for (n, soc) in soc::ALL.into_iter().enumerate() {
        for (cookie, egress) in (1..).zip([wan(&[]), lan(3, &[]), wan(&[vlan(5)])]) {
            k.init(n as c_int);
            let mut desc = flow(TCP, v4_any(), v4_any(), Port::plain(1), egress);
            desc.kind = Kind::Bridged;
            desc.ingress.macs = Some(desc.egress.macs);
            assert!(desc.ingress.layers.push_inner(vlan(10)));
            let ours = encode_bridge(soc, &BOARD, &desc).unwrap();
            assert_eq!(k.replace(&rule(cookie, &desc)), 0);
            let (theirs, _, bound, _) = k.entry_of(cookie).unwrap();
            assert_eq!(ours, theirs, "{}", soc.name);
            assert_eq!(bound, 0, "fixed in the kernel: quirk B3 can go");

            let Macs { src, dst } = desc.egress.macs;
            let mut frame = [0u8; 64];
            frame[..6].copy_from_slice(&dst);
            frame[6..12].copy_from_slice(&src);
            frame[12..16].copy_from_slice(&[0x81, 0, 0xe0, 10]);
            for (udp, number) in [(true, 0), (false, 0), (true, 5), (false, 1), (false, 4)] {
                let slot = 8 * number as u16 + 4 * u16::from(udp);
                let mut unbound = Foe::ZERO;
                for n in 1..10 {
                    unbound.set_word(4 * n, 0x0101_0000 * n as u32 + 7);
                }
                let shift = soc.hal.type_mask().trailing_zeros();
                unbound.set_ib1(
                    State::Unbind.bits() | ib1::UDP.put(udp.into()) | (number << shift) | 0x55,
                );
                let words = soc.hal.entry_size() / 4;
                k.clock(0x77);
                k.set_words(0, slot, &unbound.words()[..words]);
                k.packet(0, slot.into(), frame.as_ptr());

                let (mut mine, of) = bridged(soc, &ours, &unbound).unwrap();
                mine.set_ib1(mtk_foe::age::touched(soc.hal, 0x77, mine.ib1()));
                if soc.counts {
                    mine.set_ib2(of, mine.ib2(of) | soc.hal.counted());
                }
                assert_eq!(
                    mine.words()[..words],
                    k.words(0, slot, soc)[..],
                    "{} {number}",
                    soc.name
                );
            }
        }
    }
}

/// The list says what these tests show, and no more.
#[test]
fn list_of_quirks() {
    let shown: Vec<_> = quirks::ALL
        .iter()
        .filter(|q| q.shown)
        .map(|q| q.id)
        .collect();
    assert_eq!(
        shown,
        ["B1", "B3", "B5", "B6", "B8", "B9", "N1", "N3", "N4"]
    );
    let _ = Table::load;
}
