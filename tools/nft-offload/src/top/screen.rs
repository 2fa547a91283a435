// SPDX-License-Identifier: GPL-2.0

//! `top` on a terminal: hosts, the flows of one of them, and keys.

use super::{
    flow_cells,
    gone,
    host_cells,
    model::{
        Key,
        Model,
        Order, //
    },
    Sampler,
    Wanted,
    FLOWS,
    HOSTS, //
};
use crate::{
    cli::Top,
    flow::Tier,
    show::Devices,
    Exit,
    Out, //
};
use anyhow::Result;
use ratatui::{
    crossterm::event::{
        self,
        Event,
        KeyCode,
        KeyEvent,
        KeyEventKind,
        KeyModifiers, //
    },
    layout::{
        Constraint,
        Layout, //
    },
    style::{
        Color,
        Modifier,
        Style,
        Stylize, //
    },
    text::Line,
    widgets::{
        Cell,
        Paragraph,
        Row,
        Table,
        TableState, //
    },
    DefaultTerminal,
    Frame, //
};
use signal_hook::{
    consts::{
        SIGHUP,
        SIGINT,
        SIGTERM, //
    },
    flag, //
};
use std::{
    net::IpAddr,
    sync::{
        atomic::{
            AtomicBool,
            Ordering, //
        },
        Arc, //
    },
    time::{
        Duration,
        Instant, //
    },
};

/// So often is looked whether a signal asks to end.
const PATIENCE: Duration = Duration::from_millis(250);

/// Levels of a sparkline, for a terminal that has more than ASCII, and for one that may not.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// The last values as a line of so many characters at most, the highest one being the measure.
fn sparkline(values: &[f32], width: usize, levels: &[char; 8]) -> String {
    let values = &values[values.len().saturating_sub(width)..];
    let most = values.iter().copied().fold(0.0, f32::max);

    values
        .iter()
        .map(|value| match most > 0.0 {
            // As a cast saturates, nothing is out of bounds.
            true => levels[((value / most * 7.0).ceil() as usize).min(7)],
            false => levels[0],
        })
        .collect()
}

/// Whether the locale says that there is nothing but ASCII.
fn only_ascii(get: impl Fn(&str) -> Option<String>) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(get)
        .find(|value| !value.is_empty())
        .is_some_and(|value| matches!(&value[..], "C" | "POSIX"))
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id {
    Host(IpAddr),
    Flow(Key),
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Draw,
    Quit,
}

/// What is on the screen.
struct App {
    /// Flows of this host only.
    host: Option<IpAddr>,
    /// Flows, and not hosts.
    flows: bool,
    selected: Option<Id>,
    order: Order,
    reverse: bool,
    wanted: Wanted,
    /// The words of the filter as they are typed; and whether they are being typed.
    text: String,
    typing: bool,
    paused: bool,
    help: bool,
    /// The lines that are shown, in their order.
    ids: Vec<Id>,
    /// Lines that fit.
    height: usize,
    offset: usize,
    levels: &'static [char; 8],
    colours: bool,
    devices: Devices,
}

impl App {
    fn new(args: &Top, colours: bool, levels: &'static [char; 8]) -> Self {
        Self {
            host: None,
            flows: args.flows,
            selected: None,
            order: args.sort,
            reverse: false,
            wanted: Wanted::default(),
            text: String::new(),
            typing: false,
            paused: false,
            help: false,
            ids: Vec::new(),
            height: 1,
            offset: 0,
            levels,
            colours,
            devices: Devices::default(),
        }
    }

    /// The selected line; the first one if it has gone.
    fn at(&self) -> Option<usize> {
        self.ids.iter().position(|id| Some(*id) == self.selected)
    }

    fn select(&mut self, to: usize) {
        self.selected = self
            .ids
            .get(to.min(self.ids.len().saturating_sub(1)))
            .copied();
    }

    fn filter(&mut self) {
        self.wanted.words = self.text.split_whitespace().map(str::to_owned).collect();
    }

    fn type_in(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.text.clear();
            }
            KeyCode::Backspace => {
                self.text.pop();
            }
            KeyCode::Char(c) if !c.is_control() => self.text.push(c),
            _ => {}
        }
        self.filter();
    }

    fn key(&mut self, key: KeyEvent, model: &mut Model) -> Next {
        let at = self.at().unwrap_or(0);

        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Next::Quit,
                _ => Next::Draw,
            };
        }
        if self.typing {
            self.type_in(key.code);
            return Next::Draw;
        }
        if self.help {
            self.help = false;
            return Next::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('t') => {
                self.wanted.tier = match self.wanted.tier {
                    None => Some(Tier::Software),
                    Some(Tier::Software) => Some(Tier::Hardware),
                    Some(Tier::Hardware) => Some(Tier::Partial),
                    Some(Tier::Partial) => None,
                }
            }
            KeyCode::Up | KeyCode::Char('k') => self.select(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(at + 1),
            KeyCode::PageUp => self.select(at.saturating_sub(self.height)),
            KeyCode::PageDown => self.select(at.saturating_add(self.height)),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Enter => {
                // The line that is shown as selected, which is the first one if none is yet.
                if let Some(Id::Host(host)) = self.ids.get(at).copied() {
                    self.host = Some(host);
                    self.selected = None;
                    model.watch(Some(host));
                }
            }
            KeyCode::Esc | KeyCode::Backspace => {
                if let Some(host) = self.host.take() {
                    self.selected = Some(Id::Host(host));
                    model.watch(None);
                }
            }
            _ => {}
        }
        Next::Draw
    }

    /// The lines: what each is about, its cells, and what to draw behind them.
    fn rows(&mut self, model: &Model) -> Vec<(Id, Vec<String>, Vec<f32>)> {
        let (host, wanted, devices) = (self.host, &self.wanted, &mut self.devices);
        let mut rows: Vec<_> = if self.host.is_some() || self.flows {
            let flows = model.flows(self.order, |key, flow| {
                host.is_none_or(|host| host == flow.host()) && wanted.wants(key, flow, devices)
            });

            flows
                .iter()
                .map(|(key, flow)| {
                    let cells = flow_cells(key, flow, &mut self.devices);
                    (Id::Flow(**key), cells, model.flow_history(key))
                })
                .collect()
        } else {
            let hosts = model.hosts(self.order, |key, flow| wanted.wants(key, flow, devices));

            hosts
                .iter()
                .map(|host| {
                    let history = model.history(host.addr);
                    (Id::Host(host.addr), host_cells(host), history)
                })
                .collect()
        };

        if self.reverse {
            rows.reverse();
        }
        rows
    }

    fn footer(&self) -> String {
        if self.typing {
            return format!("/{}_", self.text);
        }
        let mut all = vec![format!(
            "sort: {}{}",
            self.order.name(),
            if self.reverse { ", reversed" } else { "" }
        )];

        if let Some(host) = self.host {
            all.insert(0, format!("flows of {host} (Esc: hosts)"));
        }
        if let Some(tier) = self.wanted.tier {
            all.push(format!("tier: {}", crate::show::tier(tier)));
        }
        if !self.text.is_empty() {
            all.push(format!("filter: {}", self.text));
        }
        if self.paused {
            all.push("paused".into());
        }
        all.push("? keys".into());
        all.join("  ")
    }

    fn draw(&mut self, frame: &mut Frame<'_>, summary: &[String], model: &Model) {
        let style = |colour| match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        };
        let (good, bad) = (style(Color::Green), style(Color::Yellow));
        let [head, body, foot] = Layout::vertical([
            Constraint::Length(summary.len() as u16),
            Constraint::Min(2),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let lines: Vec<_> = summary
            .iter()
            .enumerate()
            .map(|(n, line)| match n {
                0 => Line::from(&line[..]).bold(),
                _ => Line::from(&line[..]).style(bad),
            })
            .collect();

        frame.render_widget(Paragraph::new(lines), head);
        frame.render_widget(Paragraph::new(self.footer()), foot);
        if self.help {
            frame.render_widget(Paragraph::new(crate::cli::KEYS), body);
            return;
        }
        let flows = self.host.is_some() || self.flows;
        let names = match flows {
            true => &FLOWS[..],
            false => &HOSTS[..],
        };
        let rows = self.rows(model);
        let mut widths: Vec<_> = names.iter().map(|name| name.len()).collect();

        self.ids = rows.iter().map(|(id, ..)| *id).collect();
        self.height = usize::from(body.height).saturating_sub(1).max(1);
        for (_, cells, _) in &rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        // Where there is no room for all columns the last ones are left out.
        let room = usize::from(body.width);
        let used = |widths: &[usize]| widths.iter().map(|width| width + 2).sum::<usize>();

        while widths.len() > 1 && used(&widths) > room {
            widths.pop();
        }
        let left = room.saturating_sub(used(&widths));
        let mut constraints: Vec<_> = widths
            .iter()
            .map(|width| Constraint::Length(*width as u16))
            .collect();
        let at = self.at();

        constraints.push(Constraint::Fill(1));
        // No more lines than fit are made.
        let shown = at.unwrap_or(0);
        self.offset = self
            .offset
            .clamp((shown + 1).saturating_sub(self.height), shown)
            .min(rows.len().saturating_sub(self.height));
        let mut state = TableState::new();

        state.select((!rows.is_empty()).then_some(shown - self.offset));
        let columns = widths.len();
        let names = names.iter().copied().take(columns).chain(["HISTORY"]);
        let header = Row::new(names.map(Cell::from))
            .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
        let lines =
            rows.into_iter()
                .skip(self.offset)
                .take(self.height)
                .map(|(_, cells, history)| {
                    let line = sparkline(&history, left, self.levels);
                    let cells = cells.into_iter().take(columns).map(Cell::from);

                    Row::new(cells.chain([Cell::from(line).style(good)]))
                });
        let table = Table::new(lines, constraints)
            .header(header)
            .column_spacing(2)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));

        frame.render_stateful_widget(table, body, &mut state);
    }
}

fn samples(
    terminal: &mut DefaultTerminal,
    app: &mut App,
    sampler: &mut Sampler,
    args: &Top,
    stop: &AtomicBool,
) -> Result<Exit> {
    let delay = Duration::from_secs_f64(args.delay);
    let mut left = args.count;

    loop {
        let next = Instant::now() + delay;
        let mut summary = sampler.summary();

        loop {
            terminal.draw(|frame| app.draw(frame, &summary, &sampler.model))?;
            let wait = next.saturating_duration_since(Instant::now());

            if stop.load(Ordering::Relaxed) {
                return Ok(Exit::Yes);
            }
            if wait.is_zero() && !app.paused {
                break;
            }
            let wait = match app.paused {
                true => PATIENCE,
                false => wait.min(PATIENCE),
            };
            if !event::poll(wait)? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if app.key(key, &mut sampler.model) == Next::Quit {
                        return Ok(Exit::Yes);
                    }
                }
                Event::Resize(..) => summary = sampler.summary(),
                _ => {}
            }
        }
        left = left.map(|n| n - 1);
        if left == Some(0) {
            return Ok(Exit::Yes);
        }
        if !sampler.sample()? {
            return Ok(Exit::Absent);
        }
    }
}

/// Shows samples until a key, a signal or their number ends it.
pub(super) fn run(out: &Out, mut sampler: Sampler, args: &Top) -> Result<Exit> {
    let stop = Arc::new(AtomicBool::new(false));
    let levels = match only_ascii(|name| std::env::var(name).ok()) {
        true => &ASCII,
        false => &BLOCKS,
    };
    let mut app = App::new(args, out.colours, levels);

    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&stop))?;
    }
    // What is not permitted, or not there, is said before there is a screen.
    sampler.sample()?;
    // From here on the terminal is as it was again whatever happens: a panic has a hook.
    let mut terminal = ratatui::try_init()?;
    let end = samples(&mut terminal, &mut app, &mut sampler, args, &stop);

    ratatui::restore();
    match end {
        Ok(Exit::Absent) => Ok(gone()),
        end => end,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::example,
        *, //
    };
    use crate::cli::{
        Cli,
        Command, //
    };
    use clap::Parser;
    use ratatui::{
        backend::TestBackend,
        Terminal, //
    };

    fn app() -> App {
        let cli = Cli::try_parse_from(["x", "top"]).unwrap();
        let Command::Top(args) = cli.command else {
            panic!();
        };
        let mut app = App::new(&args, false, &ASCII);

        app.devices = Devices::of(&[(2, "lan"), (3, "wan")]);
        app
    }

    /// The lines of a screen, without what is blank behind them.
    fn screen(app: &mut App, model: &Model) -> Vec<String> {
        screen_of(110, app, model)
    }

    fn screen_of(width: u16, app: &mut App, model: &Model) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 6)).unwrap();
        let summary = ["the summary".to_owned()];

        terminal
            .draw(|frame| app.draw(frame, &summary, model))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let line = |row: &[ratatui::buffer::Cell]| -> String {
            row.iter().map(ratatui::buffer::Cell::symbol).collect()
        };
        buffer
            .content()
            .chunks(width.into())
            .map(|row| line(row).trim_end().to_owned())
            .collect()
    }

    fn press(app: &mut App, model: &mut Model, codes: &[KeyCode]) -> Next {
        let mut next = Next::Draw;

        for code in codes {
            next = app.key(KeyEvent::new(*code, KeyModifiers::NONE), model);
            screen(app, model);
        }
        next
    }

    fn typed(text: &str) -> Vec<KeyCode> {
        text.chars().map(KeyCode::Char).collect()
    }

    #[test]
    fn hosts_and_their_flows() {
        let (mut app, mut model) = (app(), example());
        assert_eq!(
            screen(&mut app, &model),
            [
                "the summary",
                "HOST      RATE         DOWN         UP          BYTES    FLOWS  TIER  HISTORY",
                "10.0.0.5  100 Mbit/s   100 Mbit/s   100 kbit/s  12.5 MB  2      2 sw  _#",
                "10.0.0.6  8.00 Mbit/s  8.00 Mbit/s  0 bit/s     1.00 MB  1      1 hw  _#",
                "",
                "sort: rate  ? keys"
            ]
        );
        press(&mut app, &mut model, &[KeyCode::Enter]);
        let lines = screen(&mut app, &model);
        assert!(
            lines[2].starts_with(
                "tcp 10.0.0.5:4000 > 192.0.2.1:443  100 Mbit/s  100 Mbit/s  100 kbit/s  12.5 MB  1m00s  sw    lan > wan"
            ),
            "{lines:?}"
        );
        assert!(lines[3].starts_with("tcp 10.0.0.5:4001 > "), "{lines:?}");
        // There is room for five columns.
        let lines = screen_of(80, &mut app, &model);
        assert_eq!(
            lines[2],
            "tcp 10.0.0.5:4000 > 192.0.2.1:443  100 Mbit/s  100 Mbit/s  100 kbit/s  12.5 MB"
        );
        assert_eq!(
            lines[5],
            "flows of 10.0.0.5 (Esc: hosts)  sort: rate  ? keys"
        );
        press(&mut app, &mut model, &[KeyCode::Esc]);
        assert_eq!(app.selected, Some(Id::Host("10.0.0.5".parse().unwrap())));
        // The second one, beyond which there is none.
        press(
            &mut app,
            &mut model,
            &[KeyCode::Down, KeyCode::Down, KeyCode::Enter],
        );
        assert!(screen(&mut app, &model)[2].contains("10.0.0.6:5000"));
    }

    #[test]
    fn keys() {
        let (mut app, mut model) = (app(), example());
        press(&mut app, &mut model, &typed("sr"));
        let lines = screen(&mut app, &model);
        assert!(lines[2].starts_with("10.0.0.6"), "{lines:?}");
        assert_eq!(lines[5], "sort: down, reversed  ? keys");
        press(&mut app, &mut model, &typed("rtt"));
        let lines = screen(&mut app, &model);
        assert!(
            lines[2].starts_with("10.0.0.6") && lines[3].is_empty(),
            "{lines:?}"
        );
        assert_eq!(lines[5], "sort: down  tier: hw  ? keys");
        press(&mut app, &mut model, &typed("tt/:4001 q"));
        let lines = screen(&mut app, &model);
        assert!(lines[2].is_empty() && lines[5] == "/:4001 q_", "{lines:?}");
        press(&mut app, &mut model, &[KeyCode::Backspace, KeyCode::Enter]);
        let lines = screen(&mut app, &model);
        assert!(lines[2].starts_with("10.0.0.5  0 bit/s"), "{lines:?}");
        assert!(lines[5].contains("filter: :4001"));
        press(&mut app, &mut model, &typed("/p"));
        press(&mut app, &mut model, &[KeyCode::Esc]);
        assert_eq!(app.text, "");
        press(&mut app, &mut model, &typed("p?"));
        let lines = screen(&mut app, &model);
        assert!(
            lines[1] == "Keys:" && lines[5].contains("paused"),
            "{lines:?}"
        );
        assert_eq!(press(&mut app, &mut model, &typed("q")), Next::Draw);
        assert_eq!(press(&mut app, &mut model, &typed("q")), Next::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        app.typing = true;
        assert_eq!(app.key(interrupt, &mut model), Next::Quit);
    }

    #[test]
    fn more_lines_than_fit() {
        use super::super::model::tests::{
            flow,
            seen, //
        };

        let (mut app, mut model) = (app(), Model::default());
        let flows: Vec<_> = (1..=20)
            .map(|n| flow(&format!("10.0.0.{n}"), n, [0, 0]))
            .collect();
        model.sample(Duration::ZERO, seen(&flows), true);
        let first = |app: &mut App, model: &Model| screen(app, model)[2][..9].trim().to_owned();
        assert_eq!(first(&mut app, &model), "10.0.0.1");
        press(&mut app, &mut model, &[KeyCode::End]);
        assert_eq!(first(&mut app, &model), "10.0.0.18");
        press(&mut app, &mut model, &[KeyCode::Up, KeyCode::Up]);
        assert_eq!(first(&mut app, &model), "10.0.0.18");
        press(&mut app, &mut model, &[KeyCode::PageUp]);
        assert_eq!(first(&mut app, &model), "10.0.0.15");
        // The selected one goes; a screen without lines.
        model.sample(Duration::from_secs(1), seen(&flows[..2]), true);
        assert_eq!(first(&mut app, &model), "10.0.0.1");
        model.sample(Duration::from_secs(2), Vec::new(), true);
        assert_eq!(screen(&mut app, &model)[2], "");
        press(&mut app, &mut model, &[KeyCode::Down, KeyCode::Enter]);
        // Smaller than anything that makes sense.
        let mut terminal = Terminal::new(TestBackend::new(3, 1)).unwrap();
        terminal
            .draw(|f| app.draw(f, &[String::new()], &model))
            .unwrap();
    }

    #[test]
    fn sparklines() {
        assert_eq!(sparkline(&[], 5, &BLOCKS), "");
        assert_eq!(sparkline(&[0.0, 0.0], 5, &BLOCKS), "▁▁");
        assert_eq!(sparkline(&[0.0, 1.0, 50.0, 100.0], 5, &BLOCKS), "▁▂▅█");
        assert_eq!(sparkline(&[9.0, 1.0, 1.0], 2, &ASCII), "##");
        assert_eq!(sparkline(&[f32::MAX, 1.0], 0, &ASCII), "");
    }

    #[test]
    fn locales() {
        let of = |vars: &[(&str, &str)]| {
            only_ascii(|name| {
                let var = vars.iter().find(|(n, _)| *n == name);
                var.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(of(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(of(&[("LC_ALL", ""), ("LANG", "POSIX")]));
        assert!(!of(&[("LC_ALL", "C.UTF-8"), ("LANG", "C")]));
        // Routers have none, and terminals that know UTF-8.
        assert!(!of(&[]));
    }
}
