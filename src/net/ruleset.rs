// SPDX-License-Identifier: GPL-2.0

//! The rules in force that look at something that changes without a commit.
//!
//! Each direction of a flow passes the rules once after a commit, and again about once a second if
//! they would come to another result by themselves: because an element of a set has timed out,
//! because it is five o'clock. Whether they could is [read](nft_flow::ruleset) from the rules by
//! the worker, when there are others; asked for are only the flows whose packets come to such a
//! rule, so many in a second, and in hardware less often.
//!
//! Rules about the number of bytes or packets of a connection are better kept to the packet. A
//! connection is not added while such a rule is about to say something else.

mod digest;

use crate::{
    ffi::{
        self,
        c,
        BhGuard,
        NetRef,
        HZ, //
    },
    net::ct::Ct, //
};
use core::{
    ptr,
    sync::atomic::{
        AtomicBool,
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::{
    ffi::{
        c_int,
        c_void, //
    },
    fmt,
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};
use nft_flow::{
    direction::Direction,
    key::L4Proto,
    ruleset::{
        self,
        Classes,
        Counter,
        Data,
        Expr,
        Findings,
        Memo,
        Name,
        Rules,
        SetInfo,
        Stop,
        Verdict,
        What, //
    }, //
};

pub(crate) use digest::digest;

/// `enum nft_registers`, include/uapi/linux/netfilter/nf_tables.h.
const NFT_REG_VERDICT: u32 = 0;
/// Expressions that are looked at before others get a chance to run.
const AT_ONCE: u32 = 64;
/// Times that reading begins anew because the ruleset has changed meanwhile.
const TRIES: u32 = 3;
/// Jiffies between two readings, at least. Longer if one takes long.
const GAP: u32 = HZ / 10;
/// A rule about bytes or packets that is further away than this does not keep a connection out, if
/// conntrack goes on counting them: it is asked for every second.
const NEAR_BYTES: u64 = 1 << 20;
const NEAR_PACKETS: u64 = 1000;

/// Returns where base chains that forwarded packets come to drop by policy, as a number to compare.
pub(crate) fn drop_policies(net: NetRef<'_>) -> u32 {
    // SAFETY: The namespace is valid while there is a reference to it.
    unsafe { c::nfo_drop_policies(net.as_ptr()) }
}

/// What a flowtable knows about the ruleset.
#[pin_data]
pub(crate) struct Watch {
    /// There was a reading.
    known: AtomicBool,
    /// Packets wait for the next one.
    wanted: AtomicBool,
    /// The ruleset that was read.
    generation: AtomicU32,
    /// [`Findings::volatile`].
    volatile: AtomicU32,
    /// The number of [`Findings::thresholds`].
    thresholds: AtomicU32,
    /// Not before that, in `jiffies`, is another one read.
    next: AtomicU32,
    #[pin]
    findings: SpinLock<Findings>,
}

impl Watch {
    /// Nothing is known.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            known: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            volatile: AtomicU32::new(0),
            thresholds: AtomicU32::new(0),
            next: AtomicU32::new(0),
            findings <- new_spinlock!(Findings::NONE, "nft_offload::ruleset"),
        })
    }

    fn locked<R>(&self, f: impl FnOnce(&mut Findings) -> R) -> R {
        let _bh = BhGuard::new();
        let mut findings = self.findings.lock();

        f(&mut findings)
    }

    /// Whether a ruleset was ever read.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// A packet has come to the rule that adds flows, in this ruleset. True if the worker is to be
    /// told.
    pub(crate) fn wants(&self, generation: u32) -> bool {
        !self.is_current(generation) && !self.wanted.swap(true, Ordering::Relaxed)
    }

    fn is_current(&self, generation: u32) -> bool {
        self.is_known() && self.generation.load(Ordering::Relaxed) == generation
    }

    /// Whether the ruleset has rules whose verdict may change without a commit.
    pub(crate) fn has_volatile(&self) -> bool {
        self.volatile.load(Ordering::Relaxed) != 0 || self.thresholds.load(Ordering::Relaxed) != 0
    }

    /// Reads the ruleset if it has changed. Returns in how many jiffies to try again, if so. Called
    /// by the worker.
    pub(crate) fn read(&self, net: NetRef<'_>, serves: [bool; 2], generation: u32) -> Option<u32> {
        if self.is_current(generation) {
            return None;
        }
        let begun = ffi::jiffies32();
        let early = self.next.load(Ordering::Relaxed).wrapping_sub(begun);
        if self.is_known() && early as i32 > 0 {
            return Some(early.min(HZ));
        }
        self.wanted.store(false, Ordering::Relaxed);

        let found = match read(net, serves, generation) {
            Ok(found) => found,
            Err(Stop::Changed) => return Some(1),
            Err(_) => {
                let mut found = Findings::NONE;
                found.note(Classes::ALL, What::TooComplex, Name::NONE);
                found
            }
        };
        let now = ffi::jiffies32();
        let took = now.wrapping_sub(begun);
        self.locked(|findings| *findings = found);
        self.volatile.store(found.volatile.0, Ordering::Relaxed);
        self.thresholds.store(found.count as u32, Ordering::Relaxed);
        self.next.store(
            now.wrapping_add(GAP.max(took.saturating_mul(8))),
            Ordering::Relaxed,
        );
        self.generation.store(generation, Ordering::Relaxed);
        self.known.store(true, Ordering::Release);
        None
    }

    /// Whether a connection may be offloaded: no rule that compares its bytes or packets is near
    /// its threshold. `counts` says that conntrack goes on counting them.
    pub(crate) fn lets(&self, ct: Ct, counts: bool) -> bool {
        if self.thresholds.load(Ordering::Relaxed) == 0 {
            return true;
        }
        match self.locked(|found| distance(found, ct)) {
            [None, None] => true,
            [bytes, packets] => {
                counts
                    && bytes.is_none_or(|n| n > NEAR_BYTES)
                    && packets.is_none_or(|n| n > NEAR_PACKETS)
            }
        }
    }

    /// Whether the rules may come to another verdict for the connection without a commit.
    pub(crate) fn is_volatile(&self, ct: Ct) -> bool {
        let class = class(ct);

        self.volatile.load(Ordering::Relaxed) & class.0 != 0
            || self.thresholds.load(Ordering::Relaxed) != 0
                && self.locked(|found| distance(found, ct)) != [None, None]
    }

    /// Shows why flows are revalidated.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.locked(|found| *found);

        match found.why {
            _ if !self.is_known() => f.write_str("unread")?,
            None => f.write_str("no")?,
            Some((what, Name::NONE)) => f.write_fmt(fmt!("yes ({})", what.text()))?,
            Some((what, name)) => {
                f.write_fmt(fmt!("yes ({} {})", what.text(), name.as_str()))?;
            }
        }
        Ok(())
    }

    /// The number of thresholds.
    pub(crate) fn thresholds(&self) -> u32 {
        self.thresholds.load(Ordering::Relaxed)
    }
}

/// Which flow a connection is.
fn class(ct: Ct) -> Classes {
    L4Proto::from_number(ct.l4proto()).map_or(Classes::NONE, |proto| {
        Classes::of(proto, ct.is_answered(), ct.is_expected())
    })
}

/// Bytes and packets to the next rule that says something else about a connection.
fn distance(found: &Findings, ct: Ct) -> [Option<u64>; 2] {
    // Without counters there is always as much: nothing.
    let Some(counters) = ct.counters() else {
        return [None, None];
    };
    let read = |packets: bool, dir: Direction| match packets {
        true => counters.get(dir).0,
        false => counters.get(dir).1,
    };

    found.distance(class(ct), |counter: Counter| match counter.dir {
        Some(0) => read(counter.packets, Direction::Original),
        Some(1) => read(counter.packets, Direction::Reply),
        _ => read(counter.packets, Direction::Original)
            .wrapping_add(read(counter.packets, Direction::Reply)),
    })
}

fn read(net: NetRef<'_>, families: [bool; 2], generation: u32) -> Result<Findings, Stop> {
    let mut tries = TRIES;

    loop {
        let found = ruleset::read(&mut Reading::new(net, families, generation)?);
        tries -= 1;
        match found {
            // Somebody has registered a hook, maybe.
            Err(Stop::Changed) if tries != 0 => (),
            found => return found,
        }
    }
}

/// A chain, valid while the generation of the reading is in force.
type Chain = *const c::nft_chain;
/// A set, as above.
type Set = *const c::nft_set;

/// A place in a chain.
struct RulePos(c::nfo_rule_pos);

impl Default for RulePos {
    fn default() -> Self {
        Self(c::nfo_rule_pos {
            rule: 0,
            expr: 0,
            begun: false,
        })
    }
}

/// An expression of which nothing is known.
fn blank() -> c::nfo_expr {
    // SAFETY: All zeroes are a valid value of each member.
    unsafe { core::mem::zeroed() }
}

/// What is remembered of a chain.
struct ChainState {
    chain: Chain,
    memo: Memo,
    wanted: Classes,
}

/// A reading of a ruleset.
struct Reading {
    rules: c::nfo_rules,
    families: [bool; 2],
    /// By address.
    chains: KVec<ChainState>,
    looked: u32,
}

impl Reading {
    fn new(net: NetRef<'_>, families: [bool; 2], generation: u32) -> Result<Self, Stop> {
        let net = net.as_ptr();
        let mut rules = c::nfo_rules {
            net,
            msg: ptr::null_mut(),
            generation,
        };

        // SAFETY: The namespace outlives its flowtables; process context.
        if unsafe { c::nfo_rules_begin(&mut rules, net, generation) } != 0 {
            return Err(Stop::NoMem);
        }
        Ok(Self {
            rules,
            families,
            chains: KVec::new(),
            looked: 0,
        })
    }

    /// What is remembered of a chain, to be changed.
    fn chain_state(&mut self, chain: Chain) -> Result<&mut ChainState, Stop> {
        let at = match self.chains.binary_search_by_key(&chain, |k| k.chain) {
            Ok(at) => at,
            Err(at) => {
                let new = ChainState {
                    chain,
                    memo: Memo::default(),
                    wanted: Classes::NONE,
                };
                self.chains.push(new, GFP_ATOMIC).map_err(|_| Stop::NoMem)?;
                self.chains[at..].rotate_right(1);
                at
            }
        };

        self.chains.get_mut(at).ok_or(Stop::NoMem)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // SAFETY: Begun by `new`.
        unsafe { c::nfo_rules_end(&mut self.rules) };
    }
}

/// The errors of the functions in ruleset.c.
fn stop(err: c_int) -> Result<c_int, Stop> {
    match err {
        0.. => Ok(err),
        e if e == EAGAIN.to_errno() => Err(Stop::Changed),
        e if e == ENOMEM.to_errno() => Err(Stop::NoMem),
        _ => Err(Stop::TooComplex),
    }
}

fn data(d: &c::nfo_data) -> Data {
    Data {
        bytes: d.bytes,
        len: d.len,
    }
}

fn verdict(e: &c::nfo_expr) -> Verdict<Chain> {
    Verdict {
        code: e.code,
        chain: (!e.chain.is_null()).then_some(e.chain),
    }
}

impl Rules for Reading {
    type Chain = Chain;
    type Set = Set;
    type RulePos = RulePos;

    fn base(&mut self, i: usize) -> Result<Option<Chain>, Stop> {
        let mut i = i as u32;

        for v6 in [false, true] {
            if !self.families[usize::from(v6)] {
                continue;
            }
            let mut chain = ptr::null();
            let mut n = 0;

            // Few: counted again each time.
            loop {
                // SAFETY: A reading that has begun; RCU is seen to there.
                stop(unsafe { c::nfo_rules_base(&self.rules, v6, n, &mut chain) })?;
                if chain.is_null() {
                    break;
                }
                if i == 0 {
                    return Ok(Some(chain));
                }
                (i, n) = (i - 1, n + 1);
            }
        }
        Ok(None)
    }

    fn next(&mut self, chain: Chain, at: &mut RulePos) -> ruleset::Next<Chain, Set> {
        let mut e = blank();

        self.looked = self.looked.wrapping_add(1);
        if self.looked % AT_ONCE == 0 {
            ffi::cond_resched();
        }
        // SAFETY: The chain is one that this reading has found.
        if stop(unsafe { c::nfo_rules_next(&self.rules, chain, &mut at.0, &mut e) })? == 0 {
            return Ok(None);
        }
        Ok(Some(match e.kind {
            c::nfo_expr_kind_NFO_EXPR_RULE => Expr::Rule,
            c::nfo_expr_kind_NFO_EXPR_VERDICT => Expr::Verdict(verdict(&e)),
            c::nfo_expr_kind_NFO_EXPR_IMMEDIATE => Expr::Immediate(e.to),
            c::nfo_expr_kind_NFO_EXPR_STORE => Expr::Store,
            c::nfo_expr_kind_NFO_EXPR_CT => Expr::Ct {
                key: e.key,
                dir: u8::try_from(e.value).ok(),
                to: e.to,
            },
            c::nfo_expr_kind_NFO_EXPR_META => Expr::Meta {
                key: e.key,
                to: e.to,
            },
            c::nfo_expr_kind_NFO_EXPR_MASK => Expr::Mask {
                from: e.from,
                to: e.to,
                mask: e.value,
            },
            c::nfo_expr_kind_NFO_EXPR_BYTEORDER => Expr::ByteOrder {
                from: e.from,
                to: e.to,
                len: e.value,
            },
            c::nfo_expr_kind_NFO_EXPR_CMP => Expr::Cmp {
                from: e.from,
                op: e.key,
                data: data(&e.data[0]),
            },
            c::nfo_expr_kind_NFO_EXPR_RANGE => Expr::Range {
                from: e.from,
                low: data(&e.data[0]),
                high: data(&e.data[1]),
            },
            c::nfo_expr_kind_NFO_EXPR_LOOKUP => Expr::Lookup {
                from: e.from,
                set: e.set,
                invert: e.flag,
                verdict: e.to == NFT_REG_VERDICT,
            },
            c::nfo_expr_kind_NFO_EXPR_UPDATE => Expr::Update {
                set: e.set,
                stateful: e.flag,
            },
            c::nfo_expr_kind_NFO_EXPR_OBJECT => Expr::Object {
                kind: e.key,
                name: Name(e.name),
            },
            c::nfo_expr_kind_NFO_EXPR_OBJECT_MAP => Expr::ObjectMap {
                kind: e.key,
                set: e.set,
            },
            c::nfo_expr_kind_NFO_EXPR_EXTENSION => Expr::Extension(Name(e.name)),
            c::nfo_expr_kind_NFO_EXPR_XT_STATE => Expr::State {
                mask: e.value,
                invert: e.flag,
            },
            _ => Expr::Other(Name(e.name)),
        }))
    }

    fn about(&mut self, set: Set) -> Result<SetInfo, Stop> {
        let mut about = c::nfo_set {
            name: [0; 32],
            moves: false,
            stateful: false,
        };

        // SAFETY: The set is one that this reading has found.
        stop(unsafe { c::nfo_rules_set(&self.rules, set, &mut about) })?;
        Ok(SetInfo {
            name: Name(about.name),
            moves: about.moves,
            stateful: about.stateful,
        })
    }

    fn find(&mut self, set: Set, key: u32, len: u8) -> ruleset::Found<Chain> {
        let mut e = blank();

        // SAFETY: As above.
        let found = unsafe { c::nfo_rules_find(&self.rules, set, key, len, &mut e) };
        if found == ENOENT.to_errno() {
            return Ok(None);
        }
        let told = e.kind == c::nfo_expr_kind_NFO_EXPR_VERDICT;
        Ok(Some((stop(found)? != 0, told.then(|| verdict(&e)))))
    }

    fn want(&mut self, chain: Chain, classes: Classes) -> Result<(), Stop> {
        let known = self.chain_state(chain)?;

        known.wanted = known.wanted.or(classes);
        Ok(())
    }

    fn want_all(&mut self, set: Set, classes: Classes) -> Result<(), Stop> {
        struct Wants<'a>(&'a mut Reading, Classes);

        /// # Safety
        ///
        /// Called by `nfo_rules_targets()` only, with what is passed to it.
        unsafe extern "C" fn want(ctx: *mut c_void, chain: Chain) -> c_int {
            // SAFETY: By the contract of this function.
            let Wants(reading, classes) = unsafe { &mut *ctx.cast::<Wants<'_>>() };

            reading
                .want(chain, *classes)
                .map_or(ENOMEM.to_errno(), |()| 0)
        }

        let rules = ptr::from_ref(&self.rules);
        let mut wants = Wants(self, classes);
        // SAFETY: As above; the callback does not touch what `rules` points to.
        let err = unsafe { c::nfo_rules_targets(rules, set, (&raw mut wants).cast(), Some(want)) };
        stop(err).map(|_| ())
    }

    fn wanted(&mut self) -> Option<(Chain, Classes)> {
        let known = self
            .chains
            .iter()
            .find(|k| !k.wanted.but(k.memo.seen).is_none())?;

        Some((known.chain, known.wanted))
    }

    fn forget(&mut self) {
        self.chains.clear();
    }

    fn memo(&mut self, chain: Chain) -> Memo {
        self.chain_state(chain).map(|k| k.memo).unwrap_or_default()
    }

    fn remember(&mut self, chain: Chain, memo: Memo) -> Result<(), Stop> {
        self.chain_state(chain)?.memo = memo;
        Ok(())
    }
}
