// SPDX-License-Identifier: GPL-2.0

//! MediaTek's packet processing engines outside of a guest: PCI devices that QEMU reaches by
//! vfio-user, in front of the guest's network cards. There is one for each generation; the one that
//! the guest has started looks at the frames.
//!
//! ```text
//!                   guest
//!      nic2    nic0       nic1    nic3          nic0, nic1: of the router that the guest is
//!       |        |  driver  |       |           nic2, nic3: what its cables lead to
//!   ----|--------|----|-----|-------|----
//!       |        |  engine  |       |
//!       +--------+----------+-------+           this program: wires ([`wires`]), and the engine
//!                                               in a process of its own ([`engine`])
//! ```
//!
//! A frame from a cable is shown to the engine first, which forwards it by the table in the guest's
//! memory, or leaves it to the router's card. What the router sends goes to the cable. An engine
//! whose process has ended leaves everything to the router.

mod engine;
mod memory;
mod pci;
mod registers;
mod rpc;
mod wires;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: ppe_device [--engine] FOLDER
FOLDER gets the sockets: mt7622, mt7986, mt7988 (vfio-user), nic0 to nic3 (QEMU's stream), control
(lines), and the file ready once they are there. --engine: the inner process, with the wires on
standard input.";

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args().skip(1).collect();
    let inner = args.first().is_some_and(|a| a == "--engine");
    if inner {
        args.remove(0);
    }
    let [folder] = &args[..] else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let folder = PathBuf::from(folder);
    let done = if inner {
        engine::run(&folder)
    } else {
        wires::run(&folder)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ppe_device: {e}");
            ExitCode::FAILURE
        }
    }
}
