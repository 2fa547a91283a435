// SPDX-License-Identifier: GPL-2.0

use super::*;
use std::collections::HashMap;

type E = Expr<usize, usize>;

/// What a set of the tests maps its keys to.
#[derive(Clone, Default)]
struct Set {
    moves: bool,
    stateful: bool,
    elements: Vec<(u32, Option<Verdict<usize>>)>,
    /// Of a type whose keys we cannot make.
    opaque: bool,
}

/// The first chain is a base chain. Rules are lists of expressions.
#[derive(Default)]
struct Fake {
    chains: Vec<Vec<Vec<E>>>,
    sets: Vec<Set>,
    memos: HashMap<usize, Memo>,
    wanted: HashMap<usize, Classes>,
}

impl Rules for Fake {
    type Chain = usize;
    type Set = usize;
    type RulePos = usize;

    fn base(&mut self, i: usize) -> Result<Option<usize>, Stop> {
        Ok((i == 0).then_some(0))
    }

    fn next(&mut self, chain: usize, at: &mut usize) -> Result<Option<E>, Stop> {
        let all: Vec<E> = self.chains[chain]
            .iter()
            .flat_map(|rule| [E::Rule].into_iter().chain(rule.iter().copied()))
            .collect();
        let expr = all.get(*at).copied();
        *at += 1;
        Ok(expr)
    }

    fn about(&mut self, set: usize) -> Result<SetInfo, Stop> {
        Ok(SetInfo {
            name: name("s"),
            moves: self.sets[set].moves,
            stateful: self.sets[set].stateful,
        })
    }

    fn find(&mut self, set: usize, key: u32, _: u8) -> Found<usize> {
        let set = &self.sets[set];
        let found = set.elements.iter().find(|(k, _)| *k == key);

        Ok((!set.opaque).then(|| (found.is_some(), found.and_then(|(_, v)| *v))))
    }

    fn want(&mut self, chain: usize, classes: Classes) -> Result<(), Stop> {
        let wanted = self.wanted.entry(chain).or_default();
        *wanted = wanted.or(classes);
        Ok(())
    }

    fn want_all(&mut self, set: usize, classes: Classes) -> Result<(), Stop> {
        let mut chains = vec![];
        for (_, verdict) in &self.sets[set].elements {
            if let Some(chain) = verdict.and_then(|v| v.chain) {
                chains.push(chain);
            }
        }
        chains.into_iter().try_for_each(|c| self.want(c, classes))
    }

    fn wanted(&mut self) -> Option<(usize, Classes)> {
        let memos = &self.memos;
        self.wanted
            .iter()
            .find(|(c, w)| {
                !w.but(memos.get(c).copied().unwrap_or_default().seen)
                    .is_none()
            })
            .map(|(c, w)| (*c, *w))
    }

    fn forget(&mut self) {
        self.memos.clear();
        self.wanted.clear();
    }

    fn memo(&mut self, chain: usize) -> Memo {
        self.memos.get(&chain).copied().unwrap_or_default()
    }

    fn remember(&mut self, chain: usize, memo: Memo) -> Result<(), Stop> {
        self.memos.insert(chain, memo);
        Ok(())
    }
}

fn name(s: &str) -> Name {
    let mut bytes = [0; 32];
    bytes[..s.len()].copy_from_slice(s.as_bytes());
    Name(bytes)
}
fn other(s: &str) -> E {
    E::Other(name(s))
}
fn to(code: i32, chain: usize) -> Option<Verdict<usize>> {
    let chain = (code == JUMP || code == GOTO).then_some(chain);
    Some(Verdict { code, chain })
}
fn verdict(code: i32, chain: usize) -> E {
    E::Verdict(to(code, chain).unwrap())
}
const ACCEPT: i32 = 1;
const STATE: E = E::Ct {
    key: 0,
    dir: None,
    to: 1,
};
const L4: E = E::Meta { key: 16, to: 1 };
const LOAD: E = E::Meta { key: 6, to: 1 };
fn word(v: u32) -> Data {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&v.to_ne_bytes());
    Data { bytes, len: 4 }
}
fn byte(v: u8) -> Data {
    let mut bytes = [0; 8];
    bytes[0] = v;
    Data { bytes, len: 1 }
}
fn cmp(op: u32, data: Data) -> E {
    E::Cmp { from: 1, op, data }
}
fn mask(mask: u32) -> E {
    E::Mask {
        from: 1,
        to: 1,
        mask,
    }
}
/// `ct state ...`
fn state_is(bits: u32) -> Vec<E> {
    vec![STATE, mask(bits), cmp(CMP_NEQ, word(0))]
}
fn proto_is(n: u8) -> Vec<E> {
    vec![L4, cmp(CMP_EQ, byte(n))]
}
fn lookup(set: usize, verdict: bool) -> E {
    E::Lookup {
        from: 1,
        set,
        invert: false,
        verdict,
    }
}
/// With a rule in front that adds all flows.
fn found(mut chains: Vec<Vec<Vec<E>>>, sets: Vec<Set>) -> Findings {
    chains[0].insert(0, vec![other("flow_offload")]);
    found_of(chains, sets)
}
fn found_of(chains: Vec<Vec<Vec<E>>>, sets: Vec<Set>) -> Findings {
    let mut fake = Fake {
        chains,
        sets,
        ..Default::default()
    };
    read(&mut fake).unwrap()
}
fn volatile(chains: Vec<Vec<Vec<E>>>, sets: Vec<Set>) -> Classes {
    found(chains, sets).volatile
}
fn rule(parts: &[&[E]]) -> Vec<E> {
    parts.concat()
}
const TCP: Classes = Classes::of(L4Proto::Tcp, true, false);
const UNANSWERED_UDP: Classes = Classes::of(L4Proto::Udp, false, false);
const ANSWERED: Classes = Classes(0xff);

#[test]
fn nothing_moves() {
    let chains = vec![vec![
        rule(&[&[LOAD, cmp(CMP_EQ, word(7)), other("counter")]]),
        rule(&[&[other("payload"), lookup(0, false), verdict(ACCEPT, 0)]]),
        rule(&[&proto_is(6), &[other("flow_offload")]]),
    ]];
    let f = found(chains, vec![Set::default()]);
    assert_eq!((f.volatile, f.why, f.count), (Classes::NONE, None, 0));
}

#[test]
fn everything_that_moves() {
    for (expr, what) in [
        (other("limit"), What::Limit),
        (other("quota"), What::Quota),
        (other("connlimit"), What::Connections),
        (other("numgen"), What::Random),
        (E::Meta { key: 30, to: 1 }, What::Time),
        (E::Meta { key: 31, to: 1 }, What::Time),
        (E::Meta { key: 32, to: 1 }, What::Time),
        (E::Meta { key: 24, to: 1 }, What::Random),
        (
            E::Ct {
                key: 16,
                dir: None,
                to: 1,
            },
            What::Average,
        ),
        (lookup(0, false), What::Set),
        (lookup(1, false), What::SetState),
        (
            E::Update {
                set: 0,
                stateful: false,
            },
            What::Set,
        ),
        (
            E::Update {
                set: 2,
                stateful: true,
            },
            What::SetState,
        ),
        (
            E::Object {
                kind: 2,
                name: name("q"),
            },
            What::Quota,
        ),
        (E::ObjectMap { kind: 4, set: 2 }, What::Limit),
        (E::Extension(name("connbytes")), What::Extension),
        (E::Extension(name("time")), What::Extension),
    ] {
        let sets = vec![
            Set {
                moves: true,
                ..Default::default()
            },
            Set {
                stateful: true,
                ..Default::default()
            },
            Set::default(),
        ];
        let f = found(vec![vec![vec![LOAD, expr, verdict(ACCEPT, 0)]]], sets);
        assert_eq!(f.volatile, Classes::ALL, "{expr:?}");
        assert_eq!(f.why.unwrap().0, what, "{expr:?}");
    }
    for expr in [
        E::Object {
            kind: 1,
            name: name("c"),
        },
        E::ObjectMap { kind: 3, set: 0 },
        E::Update {
            set: 0,
            stateful: false,
        },
        E::Extension(name("tcp")),
    ] {
        assert_eq!(
            volatile(vec![vec![vec![expr]]], vec![Set::default()]),
            Classes::NONE
        );
    }
}

#[test]
fn established_has_left() {
    let limit = vec![other("limit"), verdict(ACCEPT, 0)];
    for accept in [
        state_is(ESTABLISHED | RELATED),
        vec![STATE, cmp(CMP_EQ, word(ESTABLISHED))],
        vec![STATE, lookup(0, false)],
        vec![E::State {
            mask: ESTABLISHED | RELATED,
            invert: false,
        }],
        vec![E::State {
            mask: NEW | 1,
            invert: true,
        }],
    ] {
        let set = Set {
            elements: vec![(ESTABLISHED, None), (RELATED, None)],
            ..Default::default()
        };
        let first = rule(&[&accept, &[other("counter"), verdict(ACCEPT, 0)]]);
        let f = volatile(vec![vec![first, limit.clone()]], vec![set]);
        assert!(f.and(TCP).is_none(), "{accept:?} {f:?}");
        assert_eq!(f.and(UNANSWERED_UDP), UNANSWERED_UDP, "{accept:?}");
    }
    // Not for sure.
    for accept in [
        rule(&[&state_is(ESTABLISHED), &[LOAD, cmp(CMP_EQ, word(3))]]),
        state_is(NEW),
        vec![STATE, mask(6), cmp(CMP_EQ, word(4))],
        vec![E::Extension(name("conntrack"))],
    ] {
        let first = rule(&[&accept, &[verdict(ACCEPT, 0)]]);
        let f = volatile(vec![vec![first, limit.clone()]], vec![]);
        assert_eq!(f.and(TCP), TCP, "{accept:?}");
    }
}

#[test]
fn states_one_by_one() {
    let accept = |bits| rule(&[&state_is(bits), &[verdict(ACCEPT, 0)]]);
    let chain = |bits: &[u32]| {
        let rules = bits.iter().map(|&b| accept(b));
        vec![rules.chain([vec![other("limit")]]).collect()]
    };
    assert_eq!(
        volatile(chain(&[ESTABLISHED | RELATED, NEW]), vec![]),
        Classes::NONE
    );
    let f = volatile(chain(&[ESTABLISHED, NEW]), vec![]);
    assert_eq!(f, Classes::in_states([false, false, true]));
    assert_eq!(f.and(Classes::of(L4Proto::Tcp, false, true)).0, 1 << 17);
}

#[test]
fn registers_are_used_again() {
    // [ct state][bits][cmp][other into the same register][cmp]
    let first = rule(&[
        &state_is(ESTABLISHED),
        &[other("payload"), cmp(CMP_NEQ, word(0)), verdict(ACCEPT, 0)],
    ]);
    let f = volatile(vec![vec![first, vec![other("limit")]]], vec![]);
    assert_eq!(f, Classes::ALL);
}

#[test]
fn protocols_are_told_apart() {
    let icmp = Classes::with(L4Proto::Icmpv6);
    let f = volatile(
        vec![vec![rule(&[&proto_is(58), &[other("limit")]])]],
        vec![],
    );
    assert_eq!(f, icmp);
    let f = volatile(
        vec![vec![vec![L4, cmp(CMP_NEQ, byte(58)), other("limit")]]],
        vec![],
    );
    assert_eq!(f, Classes::ALL.but(icmp));
    let set = Set {
        elements: vec![(6, None), (58, None)],
        ..Default::default()
    };
    let f = volatile(
        vec![vec![vec![L4, lookup(0, false), other("limit")]]],
        vec![set],
    );
    assert_eq!(f, icmp.or(Classes::with(L4Proto::Tcp)));
}

#[test]
fn only_flows_that_are_added() {
    let limit = |n| rule(&[&proto_is(n), &[other("limit")]]);
    let chains = |n| {
        vec![vec![
            rule(&[&proto_is(6), &[other("flow_offload")]]),
            limit(n),
        ]]
    };
    assert_eq!(found_of(chains(58), vec![]).volatile, Classes::NONE);
    assert_eq!(found_of(chains(58), vec![]).why, None);
    assert_eq!(
        found_of(chains(6), vec![]).volatile,
        Classes::with(L4Proto::Tcp)
    );
    // Answers come later.
    let new = rule(&[&state_is(NEW), &[other("flow_offload")]]);
    let f = found_of(vec![vec![new, vec![other("limit")]]], vec![]);
    assert_eq!(f.volatile, Classes::in_states([true, true, false]));
    let established = rule(&[&state_is(ESTABLISHED), &[other("flow_offload")]]);
    let f = found_of(vec![vec![established, vec![other("limit")]]], vec![]);
    assert_eq!(f.volatile, ANSWERED);
}

/// The forward chain of firewall4, and what it leads to.
#[test]
fn firewall4() {
    let states = Set {
        elements: vec![(ESTABLISHED, to(ACCEPT, 0)), (RELATED, to(ACCEPT, 0))],
        ..Default::default()
    };
    let iif = |v| vec![LOAD, cmp(CMP_EQ, word(v))];
    let forward = |v| {
        vec![
            rule(&[&proto_is(6), &[other("flow_offload")]]),
            v,
            rule(&[&iif(1), &[verdict(JUMP, 1)]]),
            rule(&[&iif(2), &[verdict(JUMP, 2)]]),
        ]
    };
    let lan = vec![vec![verdict(ACCEPT, 0)]];
    let wan = vec![
        rule(&[
            &proto_is(58),
            &[other("limit"), other("counter"), verdict(ACCEPT, 0)],
        ]),
        rule(&[&iif(3), &[other("limit"), verdict(ACCEPT, 0)]]),
    ];
    let f = volatile(
        vec![
            forward(vec![STATE, lookup(0, true)]),
            lan.clone(),
            wan.clone(),
        ],
        vec![states],
    );
    assert!(f.and(ANSWERED).is_none(), "{f:?}");
    assert_eq!(f.and(UNANSWERED_UDP), UNANSWERED_UDP);
    // Without that rule.
    let f = volatile(vec![forward(vec![]), lan, wan], vec![]);
    assert_eq!(f, Classes::ALL);
}

#[test]
fn chains_return() {
    let limit = || vec![other("limit")];
    let accept = || vec![rule(&[&state_is(ESTABLISHED), &[verdict(ACCEPT, 0)]])];
    let jump = |code| vec![vec![verdict(code, 1)], limit()];
    // What is accepted there does not come back.
    for code in [JUMP, GOTO] {
        let f = volatile(vec![jump(code), accept()], vec![]);
        assert!(f.and(TCP).is_none());
    }
    // After "goto" nothing does.
    assert_eq!(volatile(vec![jump(GOTO), vec![]], vec![]), Classes::NONE);
    assert_eq!(volatile(vec![jump(JUMP), vec![]], vec![]), Classes::ALL);
    let back = vec![vec![verdict(RETURN, 0)], limit()];
    assert_eq!(
        volatile(vec![vec![vec![verdict(JUMP, 1)]], back], vec![]),
        Classes::NONE
    );
    // "return" by those who are established, and "accept" for the rest.
    let some = vec![
        rule(&[&state_is(ESTABLISHED), &[verdict(RETURN, 0)]]),
        vec![verdict(ACCEPT, 0)],
    ];
    let f = volatile(vec![jump(JUMP), some], vec![]);
    assert_eq!(f, ANSWERED);
    // A "goto" in a chain that was jumped to returns to where it was jumped from.
    let chains = vec![
        jump(JUMP),
        vec![vec![verdict(GOTO, 2)], vec![verdict(ACCEPT, 0)]],
        vec![],
    ];
    assert_eq!(volatile(chains, vec![]), Classes::ALL);
    // Deep: many chains, each jumping to the next.
    for n in 1..30 {
        let deep = (0..n).map(|i| vec![vec![verdict(JUMP, i + 1)]]);
        let chains: Vec<Vec<Vec<E>>> = deep.chain([vec![limit()]]).collect();
        assert_eq!(volatile(chains.clone(), vec![]), Classes::ALL, "{n}");
        let mut quiet = chains;
        quiet[n] = vec![];
        assert_eq!(volatile(quiet, vec![]), Classes::NONE, "{n}");
    }
}

#[test]
fn maps_lead_everywhere() {
    let map = Set {
        elements: vec![(1, to(JUMP, 1)), (2, to(ACCEPT, 0)), (3, to(GOTO, 2))],
        ..Default::default()
    };
    for moving in [1, 2] {
        let mut chains = vec![vec![vec![LOAD, lookup(0, true)]], vec![], vec![]];
        chains[moving] = vec![vec![other("quota")]];
        assert_eq!(volatile(chains, vec![map.clone()]), Classes::ALL);
    }
    // By protocol: only its own chain.
    let map = Set {
        elements: vec![(6, to(JUMP, 1)), (17, to(JUMP, 2))],
        ..Default::default()
    };
    let chains = vec![
        vec![vec![L4, lookup(0, true)]],
        vec![],
        vec![vec![other("quota")]],
    ];
    assert_eq!(
        volatile(chains.clone(), vec![map.clone()]),
        Classes::with(L4Proto::Udp)
    );
    // Of a kind that we cannot look into: all of them.
    let opaque = Set {
        opaque: true,
        ..map
    };
    assert_eq!(volatile(chains, vec![opaque]), Classes::ALL);
}

const BYTES: E = E::Ct {
    key: 15,
    dir: Some(0),
    to: 1,
};
const SWAP: E = E::ByteOrder {
    from: 1,
    to: 1,
    len: 8,
};
fn number(n: u64) -> Data {
    Data {
        bytes: n.to_be_bytes(),
        len: 8,
    }
}

#[test]
fn thresholds() {
    let chains = vec![vec![
        vec![BYTES, SWAP, cmp(2, number(100_000)), other("mark")],
        vec![
            BYTES,
            SWAP,
            E::Range {
                from: 1,
                low: number(5000),
                high: number(6000),
            },
        ],
        vec![
            E::Ct {
                key: 14,
                dir: None,
                to: 9,
            },
            E::Cmp {
                from: 9,
                op: CMP_EQ,
                data: Data {
                    bytes: 77u64.to_ne_bytes(),
                    len: 8,
                },
            },
        ],
        rule(&[&proto_is(17), &[BYTES, SWAP, cmp(4, number(1 << 40))]]),
    ]];
    let f = found(chains, vec![]);
    assert!(f.volatile.is_none());
    let values: Vec<u64> = f.thresholds().iter().map(|t| t.value).collect();
    assert_eq!(values, [100_000, 5000, 6000, 77, 1 << 40]);
    let at = |class, bytes: u64, packets: u64| {
        f.distance(class, |c| {
            assert_eq!(c.dir, if c.packets { None } else { Some(0) });
            if c.packets {
                packets
            } else {
                bytes
            }
        })
    };
    assert_eq!(at(TCP, 0, 0), [Some(5001), Some(78)]);
    assert_eq!(at(TCP, 5000, 77), [Some(1), Some(1)]);
    assert_eq!(at(TCP, 6001, 78), [Some(94_000), None]);
    assert_eq!(at(TCP, 100_001, 78), [None, None]);
    assert_eq!(
        at(UNANSWERED_UDP, 100_001, 78),
        [Some((1 << 40) - 100_000), None]
    );
}

#[test]
fn counts_that_cannot_be_read() {
    for rest in [
        vec![lookup(0, false)],
        vec![mask(0xff), cmp(CMP_EQ, word(1))],
        vec![other("payload"), lookup(0, false)],
        vec![cmp(CMP_EQ, word(5))],
        vec![lookup(0, true)],
        vec![],
    ] {
        let f = found(vec![vec![rule(&[&[BYTES], &rest])]], vec![Set::default()]);
        assert_eq!(f.volatile, Classes::ALL, "{rest:?}");
        assert_eq!(f.why.unwrap().0, What::Count, "{rest:?}");
    }
    // More than are kept.
    let many = (0..=MAX_THRESHOLDS as u64)
        .map(|n| vec![BYTES, SWAP, cmp(2, number(n))])
        .collect();
    let f = found(vec![many], vec![]);
    assert_eq!((f.count, f.volatile), (MAX_THRESHOLDS, Classes::ALL));
}
