//! The protocol between an engine and `restok worker` (docs/worker-protocol.md): unit numbers from standard input, events to
//! standard output.

use crate::{
    output,
    settings::{SettingsError, WORKER},
};
use clap::ArgMatches;
use pipeline::{EngineEvent, EngineEvents, EngineLink, Snapshot};
use schemas::RejectReason;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, BufRead},
    sync::mpsc::RecvTimeoutError,
    thread,
    time::Duration,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Counts up when a field or an event goes or changes its meaning.
const VERSION: u32 = 1;

/// Longest wait, at the end, for an engine that does not read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Jobs whose units an engine can hand out.
const JOBS: [&str; 3] = ["tokenize", "generate", "evaluate"];

/// The command line of a worker's job, from its own: the same without the word that makes it a worker.
///
/// # Errors
/// When the job is none whose units can be handed out.
pub(crate) fn words_of_job(mut words: Vec<OsString>, matches: &ArgMatches) -> Result<Vec<OsString>, SettingsError> {
    let of_worker = matches.subcommand_matches(WORKER);
    let job: Vec<_> = of_worker.and_then(|worker| worker.get_raw("job")).into_iter().flatten().collect();
    let name = job.first().copied().unwrap_or_default();
    if !JOBS.iter().any(|known| *known == name) {
        return Err(SettingsError::invalid("worker", name.to_string_lossy(), JOBS.join(", ")));
    }
    // The last one before the job: an option in front may have such a value.
    let before = words.len().saturating_sub(job.len());
    if let Some(place) = words[..before].iter().rposition(|word| word == WORKER) {
        words.remove(place);
    }
    Ok(words)
}

/// A line to the engine.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Ready {
        protocol: u32,
        restok: &'static str,
        job: &'a str,
        plan: &'a str,
        units: u32,
        /// Both ends of each range are in it.
        missing: Vec<[u32; 2]>,
        at_once: usize,
        process_id: u32,
    },
    Begun {
        unit: u32,
    },
    Done {
        unit: u32,
        by: &'static str,
        #[serde(flatten)]
        counts: Option<Counts<'a>>,
    },
    Progress {
        images: u64,
        rejected: u64,
        units_here: u64,
        images_per_second: f64,
        limited_by: Option<&'static str>,
    },
    Refused {
        line: &'a str,
        problem: &'a str,
    },
    Ended {
        units_here: u32,
        units_left: u32,
        finalized: bool,
    },
    Drained {
        units_dropped: &'a [u32],
    },
    Failed {
        exit_code: u8,
        problem: &'a str,
        units_dropped: &'a [u32],
    },
}

#[derive(Debug, Serialize)]
struct Counts<'a> {
    images: u64,
    rejected: &'a BTreeMap<RejectReason, u64>,
    rows: u64,
    seconds: f64,
}

/// What the writer of events is told, by the run and by others.
#[derive(Debug)]
enum Message {
    Run(EngineEvent),
    Progress {
        elapsed: Duration,
        images: u64,
        rejected: u64,
        limited_by: Option<&'static str>,
    },
    /// A line that is no number.
    NoNumber(String),
    End(RunEnd),
}

/// Lets others than the run speak to the engine.
#[derive(Clone, Debug)]
pub(crate) struct Speaker(UnboundedSender<Message>);

impl Speaker {
    /// Says how far the run is.
    pub(crate) fn progress(&self, snapshot: &Snapshot) {
        self.tell(Message::Progress {
            elapsed: snapshot.elapsed,
            images: snapshot.images_listed,
            rejected: snapshot.images_rejected,
            limited_by: snapshot.limiting_stage().map(pipeline::Stage::name),
        });
    }

    fn tell(&self, message: Message) {
        // After the last event nobody listens any more.
        drop(self.0.send(message));
    }
}

/// The conversation with an engine. One thread writes: a full pipe makes nobody else wait.
#[derive(Debug)]
pub(crate) struct Conversation {
    speaker: Speaker,
    /// Lets go of its end when the last event is written.
    written: std::sync::mpsc::Receiver<()>,
}

impl Conversation {
    /// Begins one about `job`: events are written as they come, and units are read as soon as the run is ready for them.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn begin(job: &str) -> io::Result<(Self, EngineLink)> {
        let (requests, units) = unbounded_channel();
        let (sender, mut messages) = unbounded_channel();
        let speaker = Speaker(sender);
        let (alive, written) = std::sync::mpsc::channel();
        let mut writer = Writer {
            job: job.to_owned(),
            requests: Some(requests),
            speaker: speaker.clone(),
            units_here: 0,
            before: (Duration::ZERO, 0),
            dropped: Vec::new(),
            ended: (0, 0, false),
        };
        thread::Builder::new().name("engine events".to_owned()).spawn(move || {
            let _alive: std::sync::mpsc::Sender<()> = alive;
            while let Some(message) = messages.blocking_recv() {
                let is_last = matches!(message, Message::End(_));
                if let Err(error) = writer.write(message) {
                    // Units go on: what is stored is stored, and the parent's end stops the process.
                    tracing::warn!("an event could not be written: {error}");
                }
                if is_last {
                    break;
                }
            }
        })?;
        let run = speaker.clone();
        let events = EngineEvents::new(move |event| run.tell(Message::Run(event)));
        Ok((Self { speaker, written }, EngineLink { requests: units, events }))
    }

    /// Lets others speak.
    pub(crate) fn speaker(&self) -> Speaker {
        self.speaker.clone()
    }

    /// Says how the run ended, after everything that was still to be said; an engine that does not listen is not waited for.
    pub(crate) fn end(self, end: RunEnd) {
        self.speaker.tell(Message::End(end));
        if matches!(self.written.recv_timeout(PATIENCE), Err(RecvTimeoutError::Timeout)) {
            tracing::warn!("the engine does not read: its last events are lost");
        }
    }
}

/// How the run of a worker ended.
#[derive(Clone, Debug)]
pub(crate) enum RunEnd {
    /// Every unit that was given is stored.
    Done,
    /// A signal stopped it.
    Drained,
    /// An error ended it.
    Failed {
        /// What the process leaves with.
        exit_code: u8,
        /// The error with its causes.
        problem: String,
    },
}

/// Writes events, and knows what the later ones need of the earlier.
#[derive(Debug)]
struct Writer {
    job: String,
    /// Until the run is ready for units.
    requests: Option<UnboundedSender<io::Result<u32>>>,
    speaker: Speaker,
    units_here: u64,
    /// Time and images at the progress before.
    before: (Duration, u64),
    dropped: Vec<u32>,
    ended: (u32, u32, bool),
}

impl Writer {
    fn write(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Run(event) => self.write_event(event),
            // Ready comes first.
            Message::Progress { .. } if self.requests.is_some() => Ok(()),
            Message::Progress { elapsed, images, rejected, limited_by } => {
                let (time, images_before) = std::mem::replace(&mut self.before, (elapsed, images));
                let seconds = elapsed.saturating_sub(time).as_secs_f64();
                let rate = if seconds > 0.0 { (images - images_before) as f64 / seconds } else { 0.0 };
                let images_per_second = (rate * 10.0).round() / 10.0;
                print(&Event::Progress { images, rejected, units_here: self.units_here, images_per_second, limited_by })
            }
            Message::NoNumber(line) => refuse(&line, None),
            Message::End(end) => {
                let units_dropped = &self.dropped;
                let (units_here, units_left, finalized) = self.ended;
                print(&match &end {
                    RunEnd::Done => Event::Ended { units_here, units_left, finalized },
                    RunEnd::Drained => Event::Drained { units_dropped },
                    RunEnd::Failed { exit_code, problem } => {
                        Event::Failed { exit_code: *exit_code, problem, units_dropped }
                    }
                })
            }
        }
    }

    fn write_event(&mut self, event: EngineEvent) -> io::Result<()> {
        match event {
            EngineEvent::Ready { plan, units, missing, at_once } => {
                let ready = Event::Ready {
                    protocol: VERSION,
                    restok: env!("CARGO_PKG_VERSION"),
                    job: &self.job,
                    plan: &plan,
                    units,
                    missing,
                    at_once,
                    process_id: std::process::id(),
                };
                let printed = print(&ready);
                if let Some(requests) = self.requests.take() {
                    let speaker = self.speaker.clone();
                    // Ends with its input, or with the process.
                    thread::spawn(move || read(io::stdin().lock(), &requests, &speaker));
                }
                printed
            }
            EngineEvent::Begun { unit } => print(&Event::Begun { unit }),
            EngineEvent::Stored { unit, here } => {
                self.units_here += u64::from(here.is_some());
                let counts = here.as_ref().map(|here| Counts {
                    images: here.images,
                    rejected: &here.rejected,
                    rows: here.rows,
                    seconds: here.seconds,
                });
                let by = if counts.is_some() { "here" } else { "elsewhere" };
                print(&Event::Done { unit, by, counts })
            }
            EngineEvent::Unknown { unit, units } => refuse(&unit.to_string(), units.checked_sub(1)),
            EngineEvent::Dropped { units } => {
                self.dropped = units;
                Ok(())
            }
            EngineEvent::Ended { units_here, units_left, finalized } => {
                self.ended = (units_here, units_left, finalized);
                Ok(())
            }
        }
    }
}

/// Reads unit numbers until no more come.
fn read(input: impl BufRead, requests: &UnboundedSender<io::Result<u32>>, speaker: &Speaker) {
    for line in input.split(b'\n') {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                drop(requests.send(Err(error)));
                return;
            }
        };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        match line.parse() {
            Ok(unit) if requests.send(Ok(unit)).is_err() => return,
            Ok(_) => {}
            Err(_) => speaker.tell(Message::NoNumber(line.to_owned())),
        }
    }
}

/// Says that a line is no unit of a plan whose last one is `last`, where that is known.
fn refuse(line: &str, last: Option<u32>) -> io::Result<()> {
    let problem = match last {
        Some(last) => format!("expected a unit of the plan, 0 to {last}"),
        None => "expected the number of a unit of the plan".to_owned(),
    };
    print(&Event::Refused { line, problem: &problem })
}

fn print(event: &Event<'_>) -> io::Result<()> {
    let mut line = serde_json::to_string(event)?;
    line.push('\n');
    output::print(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_line_by_line_and_what_is_none_is_passed_over() {
        let (requests, mut units) = unbounded_channel();
        let (sender, mut refused) = unbounded_channel();
        read(&b"3\n 14 \nfive\n\n-1\n99999999999\n15"[..], &requests, &Speaker(sender));
        drop(requests);
        let mut read = Vec::new();
        while let Some(unit) = units.blocking_recv() {
            read.push(unit.expect("memory reads"));
        }
        assert_eq!(read, [3, 14, 15]);
        let mut lines = Vec::new();
        while let Some(Message::NoNumber(line)) = refused.blocking_recv() {
            lines.push(line);
        }
        assert_eq!(lines, ["five", "", "-1", "99999999999"]);
    }

    #[test]
    fn events_have_the_fields_of_the_protocol() {
        let rejected = BTreeMap::from([(RejectReason::Corrupt, 2)]);
        let counts = Counts { images: 8, rejected: &rejected, rows: 6, seconds: 0.5 };
        let text = |event: &Event<'_>| serde_json::to_string(event).expect("an event is JSON");
        assert_eq!(
            text(&Event::Done { unit: 4, by: "here", counts: Some(counts) }),
            r#"{"event":"done","unit":4,"by":"here","images":8,"rejected":{"corrupt":2},"rows":6,"seconds":0.5}"#
        );
        assert_eq!(
            text(&Event::Done { unit: 4, by: "elsewhere", counts: None }),
            r#"{"event":"done","unit":4,"by":"elsewhere"}"#
        );
        assert_eq!(text(&Event::Drained { units_dropped: &[1, 2] }), r#"{"event":"drained","units_dropped":[1,2]}"#);
    }
}
