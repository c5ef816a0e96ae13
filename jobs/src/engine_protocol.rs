//! The protocol between an engine and `restok worker` (docs/worker-protocol.md): unit numbers from standard input, events to
//! standard output.

use crate::{
    output,
    settings::{SettingsError, WORKER},
};
use clap::ArgMatches;
use pipeline::{EngineEvent, EngineLink, Snapshot};
use schemas::RejectReason;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, BufRead},
    thread::{self, JoinHandle},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Counts up when a field or an event goes or changes its meaning.
const VERSION: u32 = 1;

/// Jobs whose units an engine can hand out.
const JOBS: [&str; 3] = ["tokenize", "generate", "evaluate"];

/// The command line of a worker's job, from its own: the same without the word that makes it a worker.
///
/// # Errors
/// When the job is none whose units can be handed out.
pub(crate) fn words_of_job(mut words: Vec<OsString>, matches: &ArgMatches) -> Result<Vec<OsString>, SettingsError> {
    let of_worker = matches.subcommand_matches(WORKER);
    let job = of_worker.and_then(|worker| worker.get_raw("job")).and_then(|mut words| words.next()).unwrap_or_default();
    if !JOBS.iter().any(|known| *known == job) {
        return Err(SettingsError::invalid("worker", job.to_string_lossy(), JOBS.join(", ")));
    }
    if let Some(place) = words.iter().position(|word| word == WORKER) {
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
        units_done: u64,
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
    },
}

#[derive(Debug, Serialize)]
struct Counts<'a> {
    images: u64,
    rejected: &'a BTreeMap<RejectReason, u64>,
    rows: u64,
    seconds: f64,
}

/// What is known when no more events come.
#[derive(Debug, Default)]
struct Last {
    dropped: Vec<u32>,
    units_here: u32,
    units_left: u32,
    finalized: bool,
}

/// The conversation with an engine.
#[derive(Debug)]
pub(crate) struct Conversation {
    link: EngineLink,
    writer: JoinHandle<Last>,
}

impl Conversation {
    /// Begins one about `job`: events are written as they come, and units are read as soon as the run is ready for them.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn begin(job: &str) -> io::Result<Self> {
        let (requests, units) = unbounded_channel();
        let (events, told) = unbounded_channel();
        let job = job.to_owned();
        let writer =
            thread::Builder::new().name("engine events".to_owned()).spawn(move || write(&job, told, requests))?;
        Ok(Self { link: EngineLink { requests: units, events }, writer })
    }

    /// What the run is given, and what ends the conversation after it.
    pub(crate) fn divide(self) -> (EngineLink, Ending) {
        (self.link, Ending(self.writer))
    }
}

/// The end of a conversation.
#[derive(Debug)]
pub(crate) struct Ending(JoinHandle<Last>);

impl Ending {
    /// Says how the run ended, after everything that was still to be said.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn say(self, ended: &RunEnd) -> io::Result<()> {
        let Last { dropped, units_here, units_left, finalized } =
            self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        print(&match ended {
            RunEnd::Done => Event::Ended { units_here, units_left, finalized },
            RunEnd::Drained => Event::Drained { units_dropped: &dropped },
            RunEnd::Failed { exit_code, problem } => Event::Failed { exit_code: *exit_code, problem },
        })
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

/// Writes events until the run lets go of its end. Gives the reader of units their sender when the run is ready for them.
fn write(job: &str, mut told: UnboundedReceiver<EngineEvent>, requests: UnboundedSender<u32>) -> Last {
    let (mut last, mut requests) = (Last::default(), Some(requests));
    while let Some(event) = told.blocking_recv() {
        let printed = match event {
            EngineEvent::Ready { plan, units, missing, at_once } => {
                let (restok, missing) = (env!("CARGO_PKG_VERSION"), ranges(&missing));
                let process_id = std::process::id();
                let ready =
                    Event::Ready { protocol: VERSION, restok, job, plan: &plan, units, missing, at_once, process_id };
                let printed = print(&ready);
                if let Some(requests) = requests.take() {
                    // Ends with its input, or with the process.
                    thread::spawn(move || read(io::stdin().lock(), &requests));
                }
                printed
            }
            EngineEvent::Begun { unit } => print(&Event::Begun { unit }),
            EngineEvent::Stored { unit, here } => {
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
                last.dropped = units;
                Ok(())
            }
            EngineEvent::Ended { units_here, units_left, finalized } => {
                last = Last { units_here, units_left, finalized, ..last };
                Ok(())
            }
        };
        if let Err(error) = printed {
            // Units go on: what is stored is stored, and the parent's end stops the process.
            tracing::warn!("an event could not be written: {error}");
        }
    }
    last
}

/// Reads unit numbers until no more come.
fn read(input: impl BufRead, requests: &UnboundedSender<u32>) {
    for line in input.split(b'\n') {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!("standard input cannot be read, as if it had ended: {error}");
                return;
            }
        };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        match line.parse() {
            Ok(unit) if requests.send(unit).is_err() => return,
            Ok(_) => {}
            Err(_) => drop(refuse(line, None)),
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

/// Says how far the run is; `images_per_second` lately.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn say_progress(snapshot: &Snapshot, units_done: u64, images_per_second: f64) -> io::Result<()> {
    print(&Event::Progress {
        images: snapshot.images_listed,
        rejected: snapshot.images_rejected,
        units_done,
        images_per_second: (images_per_second * 10.0).round() / 10.0,
        limited_by: snapshot.limiting_stage().map(pipeline::Stage::name),
    })
}

fn print(event: &Event<'_>) -> io::Result<()> {
    let mut line = serde_json::to_string(event)?;
    line.push('\n');
    output::print(&line)
}

/// Ascending numbers as ranges.
fn ranges(numbers: &[u32]) -> Vec<[u32; 2]> {
    let neighbours = numbers.chunk_by(|one, next| one + 1 == *next);
    neighbours.filter_map(|range| Some([*range.first()?, *range.last()?])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [[0, 2], [5, 5], [7, 8]]);
        assert!(ranges(&[]).is_empty());
    }

    #[test]
    fn units_are_read_line_by_line_and_what_is_none_is_passed_over() {
        let (requests, mut units) = unbounded_channel();
        read(&b"3\n 14 \nfive\n\n-1\n99999999999\n15"[..], &requests);
        drop(requests);
        let mut read = Vec::new();
        while let Some(unit) = units.blocking_recv() {
            read.push(unit);
        }
        assert_eq!(read, [3, 14, 15]);
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
