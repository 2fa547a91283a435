// SPDX-License-Identifier: GPL-2.0

//! The atomics this crate uses: the real ones, or loom's when a model is being checked.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    fence,
    AtomicBool,
    AtomicPtr,
    AtomicU32,
    AtomicUsize,
    Ordering, //
};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    fence,
    AtomicBool,
    AtomicPtr,
    AtomicU32,
    AtomicUsize,
    Ordering, //
};
