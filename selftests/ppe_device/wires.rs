// SPDX-License-Identifier: GPL-2.0

//! The wires: between the guest's network cards, by way of the engine.

use crate::rpc;
use std::fs;
use std::io::{
    self,
    BufRead,
    BufReader,
    Write, //
};
use std::os::fd::OwnedFd;
use std::os::unix::net::{
    UnixListener,
    UnixStream, //
};
use std::path::Path;
use std::process::{
    Child,
    Command,
    Stdio, //
};
use std::sync::{
    Arc,
    Mutex,
    MutexGuard,
    PoisonError, //
};
use std::thread;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The engine's process, and a connection to it.
struct Engine {
    process: Child,
    stream: UnixStream,
    alive: bool,
}

impl Engine {
    fn start(folder: &Path) -> io::Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        let process = Command::new(std::env::current_exe()?)
            .arg("--engine")
            .arg(folder)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Engine {
            process,
            stream,
            alive: true,
        })
    }

    /// A question. None if there is nobody to answer.
    fn ask(&mut self, question: &[&[u8]]) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        let mut once = || {
            rpc::write(&mut self.stream, question)?;
            rpc::read(&mut self.stream, &mut answer)
        };

        if !self.alive {
            return None;
        }
        self.alive = once().is_ok();
        self.alive.then_some(answer)
    }

    fn kill(&mut self) -> io::Result<()> {
        self.alive = false;
        self.process.kill()?;
        self.process.wait().map(|_| ())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.kill();
    }
}

/// What has gone where.
#[derive(Default)]
struct Counts {
    /// Frames from cables.
    received: u64,
    /// Those that the engine has forwarded, and their bytes.
    forwarded: u64,
    bytes: u64,
    /// Those that it has left to the router, by reason.
    reasons: [u64; 32],
    dropped: u64,
    /// Frames that the router has sent.
    sent: u64,
}

struct Wires {
    engine: Mutex<Engine>,
    /// nic0 and nic1 are the router's, nic2 and nic3 what its cables lead to.
    cards: [Mutex<UnixStream>; 4],
    counts: Mutex<Counts>,
}

impl Wires {
    fn send(&self, card: usize, frame: &[u8]) {
        // A card that is gone is that of a guest that is going.
        let _ = rpc::write(&mut *lock(&self.cards[card]), &[frame]);
    }

    /// A frame that a card of the guest has sent.
    fn frame(&self, card: usize, frame: &[u8]) {
        let Some(port) = card.checked_sub(2) else {
            lock(&self.counts).sent += 1;
            return self.send(card + 2, frame);
        };
        // In one piece, or frames that follow each other would overtake each other.
        let answer = lock(&self.engine).ask(&[&[rpc::FRAME, port as u8], frame]);
        let mut counts = lock(&self.counts);
        counts.received += 1;
        match answer.as_deref() {
            Some([rpc::FORWARD, out @ 0..=1, frame @ ..]) => {
                counts.forwarded += 1;
                counts.bytes += frame.len() as u64;
                drop(counts);
                self.send(usize::from(*out) + 2, frame);
            }
            Some([rpc::DROP]) => counts.dropped += 1,
            other => {
                if let Some([rpc::TO_CPU, reason]) = other {
                    counts.reasons[usize::from(*reason) & 31] += 1;
                }
                drop(counts);
                self.send(port, frame);
            }
        }
    }

    fn command(&self, line: &str) -> String {
        match line {
            "counts" => {
                let c = lock(&self.counts);
                let mut text = format!(
                    "ok received={} sent={} dropped={} forwarded={} bytes={}",
                    c.received, c.sent, c.dropped, c.forwarded, c.bytes
                );
                for (reason, n) in c.reasons.iter().enumerate().filter(|(_, n)| **n != 0) {
                    text += &format!(" cpu.{reason:02x}={n}");
                }
                text
            }
            "die" => match lock(&self.engine).kill() {
                Ok(()) => "ok".into(),
                Err(e) => format!("error {e}"),
            },
            _ => match lock(&self.engine).ask(&[&[rpc::LINE], line.as_bytes()]) {
                Some(answer) => String::from_utf8_lossy(answer.get(1..).unwrap_or(b"")).into(),
                None => "error: the engine is gone".into(),
            },
        }
    }
}

/// Runs until the guest is gone.
pub(crate) fn run(folder: &Path) -> io::Result<()> {
    let mut engine = Engine::start(folder)?;
    let listen = |name: &str| UnixListener::bind(folder.join(name));
    let cards = [
        listen("nic0")?,
        listen("nic1")?,
        listen("nic2")?,
        listen("nic3")?,
    ];
    let control = listen("control")?;

    engine
        .ask(&[&[rpc::LINE], b"hello"])
        .ok_or_else(|| io::Error::other("the engine does not start"))?;
    fs::write(folder.join("ready"), "")?;

    // QEMU connects to all of them, in any order.
    let cards = cards
        .iter()
        .map(|c| c.accept().map(|(stream, _)| stream))
        .collect::<io::Result<Vec<_>>>()?;
    let readers = cards
        .iter()
        .map(UnixStream::try_clone)
        .collect::<io::Result<Vec<_>>>()?;
    let cards: [UnixStream; 4] = cards
        .try_into()
        .map_err(|_| io::Error::other("four cards"))?;
    let wires = Arc::new(Wires {
        engine: Mutex::new(engine),
        cards: cards.map(Mutex::new),
        counts: Mutex::default(),
    });
    for (card, mut stream) in readers.into_iter().enumerate() {
        let wires = wires.clone();
        thread::spawn(move || {
            let mut frame = Vec::new();
            while rpc::read(&mut stream, &mut frame).is_ok() {
                wires.frame(card, &frame);
            }
        });
    }

    let (mut stream, _) = control.accept()?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while lines.read_line(&mut line)? != 0 {
        let answer = wires.command(line.trim());
        stream.write_all(format!("{answer}\n").as_bytes())?;
        line.clear();
    }
    // The other threads have a share of the wires still.
    let killed = lock(&wires.engine).kill();
    killed
}
