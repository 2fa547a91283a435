// SPDX-License-Identifier: GPL-2.0

//! The engine's process: a device for QEMU, and an answer for each frame.
//!
//! One mutex for everything: a register access of the guest waits for the frame that is being looked
//! at. It is not held while anything is sent.

use crate::memory::Maps;
use crate::pci::{
    self,
    Device, //
};
use crate::registers::{
    Chip,
    FrameEngine, //
};
use crate::rpc;
use ppe_model::Verdict;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{
    Arc,
    Mutex,
    MutexGuard,
    PoisonError, //
};
use std::thread;
use std::time::Duration;
use vfio_user::Server;

/// The frame engine and the guest's memory.
pub(crate) struct State {
    pub(crate) fe: FrameEngine,
    pub(crate) maps: Maps,
}

/// The same, for several threads.
pub(crate) struct Shared(Mutex<State>);

impl Shared {
    /// Has it for itself.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until the wires are gone.
pub(crate) fn run(folder: &Path, chip: Chip) -> io::Result<()> {
    let shared = Arc::new(Shared(Mutex::new(State {
        fe: FrameEngine::new(chip),
        maps: Maps::default(),
    })));
    let server = Server::new(&folder.join("vfio"), true, pci::irqs(), pci::regions())
        .map_err(io::Error::other)?;
    let mut device = Device::new(shared.clone(), chip);
    thread::spawn(move || {
        if let Err(e) = server.run(&mut device) {
            eprintln!("ppe_device: vfio-user: {e}");
        }
    });
    let clock = shared.clone();
    thread::spawn(move || loop {
        // The driver takes a tick for a second.
        thread::sleep(Duration::from_secs(1));
        let State { fe, maps } = &mut *clock.lock();
        fe.tick(maps, 1);
    });

    let mut wires = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut message = Vec::new();
    loop {
        match rpc::read(&mut wires, &mut message) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        match &message[..] {
            [rpc::FRAME, port, frame @ ..] => {
                let verdict = {
                    let State { fe, maps } = &mut *shared.lock();
                    fe.receive(maps, usize::from(*port), frame)
                };
                match verdict {
                    None => rpc::write(&mut wires, &[&[rpc::TO_CPU, 0]])?,
                    Some(Verdict::Cpu { reason, .. }) => {
                        rpc::write(&mut wires, &[&[rpc::TO_CPU, reason as u8]])?;
                    }
                    // The ports of the switch that have a MAC behind them are 1 and 2.
                    Some(Verdict::Forward {
                        port: port @ 1..=2,
                        station: None,
                        frame,
                        ..
                    }) => rpc::write(&mut wires, &[&[rpc::FORWARD, port - 1], &frame])?,
                    Some(Verdict::Forward { .. }) => rpc::write(&mut wires, &[&[rpc::DROP]])?,
                }
            }
            [rpc::LINE, line @ ..] => {
                let answer = command(&shared, &String::from_utf8_lossy(line));
                rpc::write(&mut wires, &[&[rpc::LINE], answer.as_bytes()])?;
            }
            _ => return Err(io::Error::other("a message that nobody knows")),
        }
    }
}

/// What can be asked for by line.
fn command(shared: &Shared, line: &str) -> String {
    let State { fe, maps } = &mut *shared.lock();
    let words: Vec<_> = line.split_whitespace().collect();

    match words[..] {
        ["hello"] => "ok".into(),
        ["used"] => format!("ok {}", fe.used(maps)),
        ["reset"] => {
            fe.reset();
            "ok".into()
        }
        ["clock", n] => match n.parse() {
            Ok(n) => {
                fe.tick(maps, n);
                "ok".into()
            }
            Err(e) => format!("error {e}"),
        },
        ["register", at] => match usize::from_str_radix(at, 16) {
            Ok(at) => format!("ok {:08x}", fe.read(at)),
            Err(e) => format!("error {e}"),
        },
        _ => "error: no such command".into(),
    }
}
