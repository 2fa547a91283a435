// SPDX-License-Identifier: GPL-2.0

//! The packet path as machine code: no panic in it, and nothing out of line but what is cold.
//!
//! In the kernel a panic is a BUG, and overflow checks are on.

#![cfg(all(not(loom), not(miri)))]

use std::{
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};

/// What the hook does with a packet, as a function of its own.
const HOT: &str = r#"
#![no_std]
use nft_flow::{
    key::{Key, Key4, Key6, IngressId, Seed},
    parse::{self, Miss, Parse},
    reason::{MissReason, TeardownReason},
    rewrite::{apply, apply_any, Csum, Rewrite4, Rewrite6},
    state::FlowState,
    table::{Item, Table},
    window::{Window, MaxEnd},
};

pub struct Flow<K, R> {
    key: K,
    hash: u32,
    state: FlowState,
    max_end: MaxEnd,
    window: Window,
    rewrite: R,
}

// SAFETY: Neither changes.
unsafe impl<K: Key, R> Item for Flow<K, R> {
    type Key = K;
    fn key(&self) -> &K {
        &self.key
    }
    fn hash(&self) -> u32 {
        self.hash
    }
}

#[no_mangle]
pub extern "C" fn hot4(
    hdr: &mut [u8],
    len: usize,
    ingress: IngressId,
    seed: &Seed,
    table: &Table<Flow<Key4, Rewrite4>>,
    csum: Csum,
) -> Result<(), Miss> {
    let packet = parse::ipv4(hdr, len, ingress)?;
    if packet.tcp_flags & parse::tcp::CONTROL != 0 {
        return Err(MissReason::TcpFlags.into());
    }
    // SAFETY: Not run.
    let Some(flow) = (unsafe { table.lookup(packet.key.hash(seed), &packet.key) }) else {
        return Err(MissReason::NoEntry.into());
    };
    if !flow.state.is_live() {
        return Err(MissReason::FlowDead.into());
    }
    if !flow.max_end.follow(packet.seq, packet.seq_end())
        && !flow.window.contains(flow.max_end.end(), packet.seq_end())
    {
        return Err(MissReason::TcpWindow.into());
    }
    apply(hdr, packet.proto, &flow.rewrite, csum)
}

#[no_mangle]
pub extern "C" fn hot6(
    hdr: &mut [u8],
    len: usize,
    ingress: IngressId,
    seed: &Seed,
    table: &Table<Flow<Key6, Rewrite6>>,
    csum: Csum,
) -> Result<(), Miss> {
    let packet = parse::ipv6(hdr, len, ingress)?;
    if packet.tcp_flags & parse::tcp::CONTROL != 0 {
        return Err(MissReason::TcpFlags.into());
    }
    // SAFETY: Not run.
    let Some(flow) = (unsafe { table.lookup(packet.key.hash(seed), &packet.key) }) else {
        return Err(MissReason::NoEntry.into());
    };
    if !flow.state.is_live() {
        return Err(MissReason::FlowDead.into());
    }
    if !flow.max_end.follow(packet.seq, packet.seq_end())
        && !flow.window.contains(flow.max_end.end(), packet.seq_end())
    {
        return Err(MissReason::TcpWindow.into());
    }
    apply(hdr, packet.proto, &flow.rewrite, csum)
}

#[no_mangle]
pub extern "C" fn any_hot4(
    hdr: &mut [u8],
    len: usize,
    ingress: IngressId,
    rewrite: &Rewrite4,
    csum: Csum,
) -> Result<(), Miss> {
    let packet = Key4::parse_any(hdr, len, ingress, |_| None)?;
    if packet.sctp_control {
        return Err(MissReason::SctpChunk.into());
    }
    apply_any(hdr, &packet, rewrite, csum)
}

#[no_mangle]
pub extern "C" fn any_hot6(
    hdr: &mut [u8],
    len: usize,
    ingress: IngressId,
    rewrite: &Rewrite6,
    csum: Csum,
) -> Result<(), Miss> {
    let packet = Key6::parse_any(hdr, len, ingress, |_| None)?;
    if packet.sctp_control {
        return Err(MissReason::SctpChunk.into());
    }
    apply_any(hdr, &packet, rewrite, csum)
}

#[no_mangle]
pub extern "C" fn big_hot4(hdr: &[u8], len: usize, ingress: IngressId) -> Result<u32, Miss> {
    parse::big_ipv4(hdr, len, ingress).map(|packet| packet.seq_end())
}

#[no_mangle]
pub extern "C" fn big_hot6(hdr: &[u8], len: usize, ingress: IngressId) -> Result<u32, Miss> {
    parse::big_ipv6(hdr, len, ingress).map(|packet| packet.seq_end())
}

#[no_mangle]
pub extern "C" fn cold(state: &FlowState) -> bool {
    state.set_dead(TeardownReason::Rst)
}
"#;

fn rustc(arguments: &[&str]) {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    // As the kernel's top Makefile has it.
    let flags = "--edition=2021 -Copt-level=2 -Cpanic=abort -Coverflow-checks=y \
                 -Cdebug-assertions=n -Ccodegen-units=1 -Csymbol-mangling-version=v0 \
                 -Cembed-bitcode=n -Awarnings";
    let output = Command::new(rustc)
        .args(flags.split_whitespace())
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
}

fn assembly(dir: &Path) -> String {
    let path = |name: &str| -> PathBuf { dir.join(name) };
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let lib = text(path("libnft_flow.rlib"));
    let (source, out) = (text(path("hot.rs")), text(path("hot.s")));
    // Asked when it runs: what another checkout has built may be used here.
    let root = format!(
        "{}/lib.rs",
        std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests")
    );

    std::fs::write(&source, HOT).unwrap();
    rustc(&[
        "--crate-type=rlib",
        "--crate-name=nft_flow",
        "-o",
        &lib,
        &root,
    ]);
    let with = format!("nft_flow={lib}");
    rustc(&[
        "--crate-type=rlib",
        "--emit=asm",
        "--extern",
        &with,
        "-o",
        &out,
        &source,
    ]);
    std::fs::read_to_string(out).unwrap()
}

#[test]
fn packet_path_has_no_panic() {
    // Checkouts may share the target folder.
    let name = format!("no_panic-{}", std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let assembly = assembly(&dir);
    let functions = [
        "hot4", "hot6", "any_hot4", "any_hot6", "big_hot4", "big_hot6",
    ];
    assert!(functions
        .iter()
        .all(|name| assembly.contains(&format!("\n{name}:"))));

    for line in assembly.lines() {
        assert!(
            !line.contains("panic"),
            "the packet path can panic: {line}\nsee {}",
            dir.join("hot.s").display()
        );
        // Whatever is called is one of the crate's own cold functions, or copies memory.
        let mut words = line.split_whitespace();
        if let Some("call" | "callq" | "bl" | "blr") = words.next() {
            let callee = words.next().unwrap_or_default();
            assert!(
                callee.contains("8nft_flow"),
                "the packet path calls {callee}"
            );
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
