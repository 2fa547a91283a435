// SPDX-License-Identifier: GPL-2.0

//! The engine's process: devices for QEMU, and an answer for each frame.
//!
//! One mutex for everything of a device: a register access of the guest waits for the frame that is being looked
//! at. It is not held while anything is sent.

use crate::memory::Maps;
use crate::pci::{
    self,
    Device, //
};
use crate::registers::{
    Chip,
    FrameEngine,
    CHIPS, //
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

/// Makes a device, and a thread that serves it.
fn serve(folder: &Path, chip: Chip) -> io::Result<Arc<Shared>> {
    let shared = Arc::new(Shared(Mutex::new(State {
        fe: FrameEngine::new(chip),
        maps: Maps::default(),
    })));
    let server = Server::new(&folder.join(chip.name()), true, pci::irqs(), pci::regions())
        .map_err(io::Error::other)?;
    let mut device = Device::new(shared.clone(), chip);

    thread::spawn(move || {
        if let Err(e) = server.run(&mut device) {
            eprintln!("ppe_device: {}: {e}", chip.name());
        }
    });
    Ok(shared)
}

/// Runs until the wires are gone.
pub(crate) fn run(folder: &Path) -> io::Result<()> {
    let all = CHIPS
        .iter()
        .map(|chip| serve(folder, *chip))
        .collect::<io::Result<Vec<_>>>()?;
    let clocks = all.clone();
    thread::spawn(move || loop {
        // The driver takes a tick for a second.
        thread::sleep(Duration::from_secs(1));
        for shared in &clocks {
            let State { fe, maps } = &mut *shared.lock();
            if !fe.stopped {
                fe.tick(maps, 1);
            }
        }
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
                let verdict = all.iter().find_map(|shared| {
                    let State { fe, maps } = &mut *shared.lock();
                    fe.receive(maps, usize::from(*port), frame)
                });
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
                    Some(Verdict::Forward { .. } | Verdict::Drop) => {
                        rpc::write(&mut wires, &[&[rpc::DROP]])?;
                    }
                }
            }
            [rpc::LINE, line @ ..] => {
                let answer = command(&all, &String::from_utf8_lossy(line));
                rpc::write(&mut wires, &[&[rpc::LINE], answer.as_bytes()])?;
            }
            _ => return Err(io::Error::other("a message that nobody knows")),
        }
    }
}

/// What can be asked for by line.
fn command(all: &[Arc<Shared>], line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    if words[..] == ["hello"] {
        return "ok".into();
    }
    let Some(shared) = all.iter().find(|shared| shared.lock().fe.runs()) else {
        return match words[..] {
            ["used"] => "ok 0".into(),
            _ => "error: no engine runs".into(),
        };
    };
    let State { fe, maps } = &mut *shared.lock();

    match words[..] {
        ["used"] => format!("ok {}", fe.used(maps)),
        ["reset"] => {
            fe.reset();
            "ok".into()
        }
        [how @ ("fill" | "empty")] => {
            fe.crowd(maps, how == "fill");
            "ok".into()
        }
        ["clock", how @ ("stop" | "go")] => {
            fe.stopped = how == "stop";
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
