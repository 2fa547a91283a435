// SPDX-License-Identifier: GPL-2.0

//! `nft-offload`: shows the flows of the module nft_offload, says why a connection is not one, and
//! takes flows down.
//!
//! It has no configuration, and asks the kernel only: the module by generic netlink
//! (`netlink/nft_offload.yaml`), conntrack and nf_tables by theirs.

mod cli;
mod conntrack;
mod doctor;
mod flow;
mod hardware;
mod kernel;
mod link;
mod mask;
mod metrics;
mod netlink;
mod nft;
mod reasons;
mod report;
mod route;
mod show;
mod status;
mod top;
mod why;

use anyhow::{
    Context,
    Result, //
};
use clap::Parser;
use cli::{
    Cli,
    Command,
    Flows,
    Sort, //
};
use conntrack::{
    Connection,
    End, //
};
use doctor::Grade;
use flow::Flow;
use kernel::Kernel;
use netlink::is_errno;
use nft::Ruleset;
use route::Routes;
use rustix::{
    fs::{
        open,
        Mode,
        OFlags, //
    },
    io::Errno,
    thread::{
        move_into_link_name_space,
        LinkNameSpaceType, //
    },
};
use serde::Serialize;
use show::{
    paint,
    Devices,
    Style, //
};
use std::{
    cmp::Reverse,
    io::{
        self,
        BufWriter,
        Write, //
    },
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
    time::Instant, //
};
use why::Known;

/// How the program ends; the numbers are in the help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    Yes = 0,
    No = 1,
    /// As clap ends, too.
    Usage = 2,
    Absent = 3,
    Forbidden = 4,
    Missing = 5,
    Failed = 6,
}

/// Says something beside the output, if anybody is there to read it.
macro_rules! say {
    ($($words:tt)*) => {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($words)*)));
    };
}
pub(crate) use say;

/// What to print: text for people, or JSON.
pub(crate) struct Out {
    json: bool,
    colours: bool,
}

impl Out {
    /// Prints a document.
    pub(crate) fn document(&self, value: &impl Serialize) -> Result<()> {
        let mut out = io::stdout().lock();

        // An error of the output as such, which main knows.
        serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
        writeln!(out)?;
        Ok(())
    }
}

/// Goes into a network namespace.
fn enter(netns: &str) -> Result<()> {
    let path = match netns.contains('/') {
        true => PathBuf::from(netns),
        false => PathBuf::from("/run/netns").join(netns),
    };
    let fd = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| path.display().to_string())?;

    move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| path.display().to_string())
}

const ABSENT: &str = "the module nft_offload is not loaded";

/// The module, which this cannot do without.
fn module() -> Result<Result<Kernel, Exit>> {
    Ok(Kernel::open()?.ok_or_else(|| {
        say!("{ABSENT}: modprobe nft_offload");
        Exit::Absent
    }))
}

macro_rules! or_exit {
    ($module:expr) => {
        match $module? {
            Ok(kernel) => kernel,
            Err(exit) => return Ok(exit),
        }
    };
}

fn flows(out: &Out, args: &Flows) -> Result<Exit> {
    let mut kernel = or_exit!(module());
    let mut filter = args.which.filter();
    let mut devices = Devices::default();
    let mut stdout = BufWriter::new(io::stdout().lock());
    let mut all = Vec::new();
    let (mut shown, begun) = (0_u64, Instant::now());
    let keep = out.json || args.sort.is_some();

    filter.l4proto = args.proto;
    filter.port = args.port;
    filter.tier = args.tier;
    let mut print = |flow: &Flow, stdout: &mut BufWriter<io::StdoutLock<'_>>| -> Result<()> {
        if args.jsonl {
            serde_json::to_writer(&mut *stdout, flow).map_err(io::Error::from)?;
            writeln!(stdout)?;
            return Ok(());
        }
        writeln!(stdout, "{}", show::flow(flow, &mut devices))?;
        if args.more {
            let (orig, reply) = (&flow.original, &flow.reply);

            writeln!(stdout, "{}", show::direction("orig", orig, &mut devices))?;
            writeln!(stdout, "{}", show::direction("reply", reply, &mut devices))?;
        }
        Ok(())
    };
    let consistent = kernel.flows(&filter, |flow| {
        shown += 1;
        match keep {
            true => all.push(flow),
            false => print(&flow, &mut stdout)?,
        }
        Ok(())
    })?;
    let took = begun.elapsed();

    match args.sort {
        Some(Sort::Bytes) => all.sort_by_key(|flow| Reverse(flow.bytes())),
        Some(Sort::Age) => all.sort_by_key(|flow| Reverse(flow.age_ms)),
        Some(Sort::Idle) => all.sort_by_key(|f| f.original.idle_ms.min(f.reply.idle_ms)),
        None => {}
    }
    if out.json {
        drop(stdout);
        out.document(&all)?;
    } else {
        for flow in &all {
            print(flow, &mut stdout)?;
        }
        if !args.jsonl {
            let plural = if shown == 1 { "" } else { "s" };
            writeln!(stdout, "{shown} flow{plural} ({} ms)", took.as_millis())?;
        }
        stdout.flush()?;
    }
    if !consistent {
        say!("the flowtables have changed meanwhile: flows may be missing, or listed twice");
    }
    Ok(Exit::Yes)
}

fn known(
    kernel: Option<&mut Kernel>,
    routes: &mut Routes,
    connection: &Connection,
) -> Result<Known> {
    let local =
        routes.is_local(connection.original.src)? || routes.is_local(connection.reply.src)?;
    let Some(kernel) = kernel else {
        return Ok(match local {
            true => Known::Local,
            false => Known::NotOurs,
        });
    };

    match kernel.flow(&connection.original) {
        Ok(flow) if !flow.table.is_empty() => Ok(Known::Flow(Box::new(flow))),
        // Of what ends here no packet can come to the rule.
        Ok(_) if local => Ok(Known::Local),
        Ok(flow) => Ok(match flow.skip {
            Some(reason) => Known::Skip(reason, flow.skip_age_ms),
            None => Known::Unseen,
        }),
        Err(e) if local && (is_errno(&e, Errno::NOENT) || is_errno(&e, Errno::SRCH)) => {
            Ok(Known::Local)
        }
        Err(e) if is_errno(&e, Errno::NOENT) => Ok(Known::Gone),
        Err(e) if is_errno(&e, Errno::SRCH) => Ok(Known::NotOurs),
        Err(e) => Err(e),
    }
}

fn why(out: &Out, one: &End, other: Option<&End>) -> Result<Exit> {
    /// More are not of interest at once.
    const MOST: usize = 20;

    let mut kernel = Kernel::open()?;
    let mut found = Vec::new();
    let mut more = 0;

    conntrack::connections(|connection| {
        if connection.is_between(one, other) {
            match found.len() < MOST {
                true => found.push(connection),
                false => more += 1,
            }
        }
    })?;
    let ruleset = Ruleset::read()?;
    let mut routes = Routes::open()?;
    let mut answers = Vec::new();

    for connection in &found {
        let known = known(kernel.as_mut(), &mut routes, connection)?;
        answers.push(why::answer(connection, &known, &ruleset));
    }
    if out.json {
        out.document(&answers)?;
    } else {
        let mut stdout = io::stdout().lock();

        for answer in &answers {
            let line = answer.line();
            let style = if answer.offloaded {
                Style::Good
            } else {
                Style::Bad
            };

            writeln!(stdout, "{}", paint(&line, style, out.colours))?;
        }
        if more != 0 {
            writeln!(stdout, "and {more} more connections")?;
        }
    }
    if found.is_empty() {
        say!("conntrack knows no such connection");
        return Ok(Exit::Missing);
    }
    if kernel.is_none() {
        say!("{ABSENT}: reasons are not known");
        return Ok(Exit::Absent);
    }
    Ok(match answers.iter().all(|answer| answer.offloaded) {
        true => Exit::Yes,
        false => Exit::No,
    })
}

fn flush(out: &Out, which: &cli::Which) -> Result<Exit> {
    let mut kernel = or_exit!(module());
    let flows = kernel.flush(&which.filter())?;

    if out.json {
        out.document(&serde_json::json!({ "flows": flows }))?;
    } else {
        let plural = if flows == 1 { "" } else { "s" };
        writeln!(
            io::stdout(),
            "{flows} flow{plural} taken down; what the ruleset still lets in is added again by its next packets"
        )?;
    }
    Ok(Exit::Yes)
}

fn doctor(out: &Out) -> Result<Exit> {
    let mut kernel = Kernel::open()?;
    let found = doctor::all(kernel.as_mut())?;

    match out.json {
        true => out.document(&found)?,
        false => io::stdout().write_all(doctor::text(&found, out.colours).as_bytes())?,
    }
    Ok(match found.iter().any(|f| f.grade == Grade::Warn) {
        true => Exit::No,
        false => Exit::Yes,
    })
}

fn metrics(out: &Out, textfile: Option<&std::path::Path>) -> Result<Exit> {
    let all = metrics::Measured::read(&mut or_exit!(module()))?;

    match textfile {
        Some(path) => metrics::replace(path, &metrics::text(&all))?,
        None if out.json => out.document(&all)?,
        None => io::stdout().write_all(metrics::text(&all).as_bytes())?,
    }
    Ok(Exit::Yes)
}

fn reasons(out: &Out, name: Option<&str>) -> Result<Exit> {
    let found = match name {
        Some(name) => reasons::named(name),
        None => reasons::all().collect(),
    };

    if out.json {
        out.document(&found)?;
    } else {
        let mut stdout = io::stdout().lock();

        for r in &found {
            let name = format!("{}.{}", r.group, r.name);
            writeln!(stdout, "{}", paint(&name, Style::Strong, out.colours))?;
            writeln!(
                stdout,
                "    {}\n    {}",
                reasons::plain(r.meaning),
                r.advice
            )?;
        }
    }
    if found.is_empty() {
        say!("there is no such reason; nft-offload reasons lists them");
        return Ok(Exit::Missing);
    }
    Ok(Exit::Yes)
}

#[cfg(feature = "generate")]
fn generate(what: &str) -> Result<Exit> {
    use clap::{
        CommandFactory,
        ValueEnum, //
    };

    let mut command = Cli::command();

    if what == "man" {
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(command.clone()).section("8");

        man.render(&mut page)?;
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let help = sub.clone().render_long_help().to_string();

            writeln!(page, ".SH \"{}\"", sub.get_name().to_uppercase())?;
            writeln!(page, "{about}\n.nf")?;
            for line in help.lines().skip(1) {
                // What begins with a dot or an apostrophe would be a request.
                writeln!(page, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"))?;
            }
            writeln!(page, ".fi")?;
        }
        io::stdout().write_all(&page)?;
        return Ok(Exit::Yes);
    }
    let shell = clap_complete::Shell::from_str(what, true)
        .map_err(|_| anyhow::anyhow!("man, or the name of a shell"))?;

    let mut script = Vec::new();

    clap_complete::generate(shell, &mut command, "nft-offload", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Yes)
}

fn run(cli: &Cli) -> Result<Exit> {
    let out = Out {
        json: cli.json,
        colours: show::colours(),
    };

    if let Some(netns) = &cli.netns {
        enter(netns)?;
    }
    match &cli.command {
        Command::Status { interval } => status::status(&out, *interval),
        Command::Flows(args) => flows(&out, args),
        Command::Why { one, other } => why(&out, one, other.as_ref()),
        Command::Flush(which) => flush(&out, which),
        Command::Top(args) => top::top(&out, args),
        Command::Report { mask } => report::report(&out, *mask),
        Command::Doctor => doctor(&out),
        Command::Metrics { textfile } => metrics(&out, textfile.as_deref()),
        Command::Reasons { name } => reasons(&out, name.as_deref()),
        #[cfg(feature = "generate")]
        Command::Generate { what } => generate(what),
    }
}

/// Whether an error, or a cause of it, is this error of the system.
fn is_system(error: &anyhow::Error, errno: Errno) -> bool {
    error.chain().any(|cause| {
        let io = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        let rustix = cause.downcast_ref::<Errno>().map(|e| e.raw_os_error());

        io.or(rustix) == Some(errno.raw_os_error())
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();

    let exit = run(&cli).unwrap_or_else(|e| {
        // Whoever reads the output has seen enough.
        if is_system(&e, Errno::PIPE) {
            return Exit::Yes;
        }
        if is_errno(&e, Errno::PERM) {
            say!(
                "not permitted: this needs CAP_NET_ADMIN in the network namespace (be root there)"
            );
            return Exit::Forbidden;
        }
        // A file, or a namespace to go into: no capability that is known here would do.
        if is_system(&e, Errno::PERM) || is_system(&e, Errno::ACCESS) {
            say!("{e:#}");
            return Exit::Forbidden;
        }
        if is_errno(&e, Errno::NOENT) || is_errno(&e, Errno::NODEV) {
            say!("{e}");
            return Exit::Missing;
        }
        say!("{e:#}");
        Exit::Failed
    });

    ExitCode::from(exit as u8)
}
