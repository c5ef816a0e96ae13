//! Units that an engine hands out one at a time.

use crate::run_support::*;
use pipeline::{
    EngineEvent, EngineEvents, EngineLink, Limits, PipelineError, RunReport, Storage, TokenizeRun,
    testing::{FakeEncoder, arrives},
    tokenize,
};
use schemas::{Plan, SourceLayout};
use std::{io, sync::Arc};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// The engine's side.
struct Engine {
    requests: Option<UnboundedSender<io::Result<u32>>>,
    events: UnboundedReceiver<EngineEvent>,
    run: JoinSet<Result<RunReport, PipelineError>>,
    cancel: CancellationToken,
}

impl Engine {
    fn start(plan: &Arc<Plan>, source: &Storage, output: &Storage, encoder: &FakeEncoder, limits: &Limits) -> Self {
        let (requests, units) = unbounded_channel();
        let (events, told) = unbounded_channel();
        let TokenizeRun { source, encoders, mut common } = run_of(plan, source, output, encoder);
        // A test that is over listens no more.
        let events = EngineEvents::new(move |event| drop(events.send(event)));
        common.engine = Some(EngineLink { requests: units, events });
        common.limits =
            Limits { stall_seconds: limits.stall_seconds, units_in_flight: limits.units_in_flight, ..common.limits };
        let cancel = common.cancel.clone();
        let mut running = JoinSet::new();
        running.spawn(tokenize(TokenizeRun { source, encoders, common }));
        Self { requests: Some(requests), events: told, run: running, cancel }
    }

    fn ask(&self, unit: u32) {
        self.requests.as_ref().expect("input has not ended").send(Ok(unit)).expect("the run listens");
    }

    async fn told(&mut self) -> EngineEvent {
        arrives("an event", self.events.recv()).await.expect("the run is not over")
    }

    /// Asks for a unit and waits until it is stored; whether it was stored here.
    async fn make(&mut self, unit: u32) -> bool {
        self.ask(unit);
        assert_eq!(self.told().await, EngineEvent::Begun { unit });
        match self.told().await {
            EngineEvent::Stored { unit: stored, here } if stored == unit => here.is_some(),
            other => panic!("{other:?} instead of unit {unit}"),
        }
    }

    /// Ends the input, and waits for what was not told yet and for the end.
    async fn finish(mut self) -> (Vec<EngineEvent>, Result<RunReport, PipelineError>) {
        drop(self.requests.take());
        let ended = end_of(&mut self.run).await.expect("no panic");
        let mut events = Vec::new();
        while let Some(event) = arrives("the last events", self.events.recv()).await {
            events.push(event);
        }
        (events, ended)
    }
}

struct Scene {
    source: Storage,
    plan: Arc<Plan>,
}

/// Three units.
async fn scene() -> Scene {
    let source = memory_source(&sample(14), SourceLayout::Folder).await;
    let plan = plan(&source, settings(SourceLayout::Folder)).await;
    assert_eq!(plan.units(), 3);
    Scene { source, plan }
}

#[tokio::test]
async fn units_are_made_as_they_are_asked_for_and_the_output_is_that_of_a_plain_run() {
    let Scene { source, plan } = scene().await;
    let (_, undisturbed) = memory_output();
    tokenize_with(&plan, &source, &undisturbed, &encoder()).await.expect("a plain run");
    let (_, output) = memory_output();
    let mut engine = Engine::start(&plan, &source, &output, &encoder(), &Limits::default());
    let EngineEvent::Ready { plan: hash, units, missing, at_once } = engine.told().await else {
        panic!("ready comes first")
    };
    assert_eq!((hash, units, missing), (plan.hash().to_string(), 3, vec![[0, 2]]));
    assert!(at_once > 0);
    assert!(engine.make(2).await);
    engine.ask(3);
    assert_eq!(engine.told().await, EngineEvent::Unknown { unit: 3, units: 3 });
    assert!(engine.make(0).await);
    assert!(!engine.make(2).await, "it is stored already");
    assert!(engine.make(1).await);
    let (events, ended) = engine.finish().await;
    assert_eq!(events, [EngineEvent::Ended { units_here: 3, units_left: 0, finalized: true }]);
    assert_eq!(ended.expect("it ends").units_here, 3);
    assert_eq!(contents(&output).await, contents(&undisturbed).await);
}

#[tokio::test]
async fn what_two_workers_make_is_one_output_and_the_last_to_end_finalizes_it() {
    let Scene { source, plan } = scene().await;
    let (_, output) = memory_output();
    let mut first = Engine::start(&plan, &source, &output, &encoder(), &Limits::default());
    let mut second = Engine::start(&plan, &source, &output, &encoder(), &Limits::default());
    for engine in [&mut first, &mut second] {
        assert!(matches!(engine.told().await, EngineEvent::Ready { .. }));
    }
    assert!(first.make(1).await);
    assert!(second.make(0).await);
    assert!(!second.make(1).await, "the other one has stored it");
    let (events, _) = first.finish().await;
    assert_eq!(events, [EngineEvent::Ended { units_here: 1, units_left: 1, finalized: false }]);
    assert!(second.make(2).await);
    let (events, _) = second.finish().await;
    assert_eq!(events, [EngineEvent::Ended { units_here: 2, units_left: 0, finalized: true }]);
    let (_, undisturbed) = memory_output();
    tokenize_with(&plan, &source, &undisturbed, &encoder()).await.expect("a plain run");
    assert_eq!(contents(&output).await, contents(&undisturbed).await);
}

#[tokio::test(start_paused = true)]
async fn an_engine_may_be_silent_for_longer_than_a_stall() {
    let Scene { source, plan } = scene().await;
    let (_, output) = memory_output();
    let limits = Limits { stall_seconds: 10, ..Limits::default() };
    let mut engine = Engine::start(&plan, &source, &output, &encoder(), &limits);
    assert!(matches!(engine.told().await, EngineEvent::Ready { .. }));
    tokio::time::sleep(std::time::Duration::from_secs(1_000)).await;
    assert!(engine.run.try_join_next().is_none(), "silence ended it");
}

#[tokio::test]
async fn a_stop_names_the_units_that_were_given_and_not_done() {
    let Scene { source, plan } = scene().await;
    let (_, output) = memory_output();
    let limits = Limits { units_in_flight: 1, ..Limits::default() };
    let gate = pipeline::testing::Gate::default();
    let mut engine = Engine::start(&plan, &source, &output, &encoder().block_at(0, &gate), &limits);
    assert!(matches!(engine.told().await, EngineEvent::Ready { .. }));
    for unit in [2, 0, 2] {
        engine.ask(unit);
    }
    assert_eq!(engine.told().await, EngineEvent::Begun { unit: 2 });
    engine.cancel.cancel();
    assert_eq!(engine.told().await, EngineEvent::Dropped { units: vec![0, 2] });
    gate.open();
    let (events, ended) = engine.finish().await;
    assert!(events.is_empty(), "{events:?}");
    assert!(matches!(ended, Err(PipelineError::Drained)));
}

#[tokio::test]
async fn a_stop_ends_a_run_that_waits_for_its_engine() {
    let Scene { source, plan } = scene().await;
    let (_, output) = memory_output();
    let mut engine = Engine::start(&plan, &source, &output, &encoder(), &Limits::default());
    assert!(matches!(engine.told().await, EngineEvent::Ready { .. }));
    engine.cancel.cancel();
    let ended = end_of(&mut engine.run).await.expect("no panic");
    assert!(matches!(ended, Err(PipelineError::Drained)));
}

#[tokio::test]
async fn a_failure_names_them_as_well() {
    let Scene { source, plan } = scene().await;
    let (_, output) = memory_output();
    let mut engine = Engine::start(&plan, &source, &output, &encoder().fail_at(0, true), &Limits::default());
    assert!(matches!(engine.told().await, EngineEvent::Ready { .. }));
    engine.ask(1);
    let (events, ended) = engine.finish().await;
    assert_eq!(events, [EngineEvent::Begun { unit: 1 }, EngineEvent::Dropped { units: vec![1] }]);
    assert!(ended.expect_err("the device failed").is_temporary());
}

#[tokio::test]
async fn input_that_cannot_be_read_is_no_end_of_input() {
    let Scene { source, plan } = scene().await;
    let (_, output) = memory_output();
    let mut engine = Engine::start(&plan, &source, &output, &encoder(), &Limits::default());
    assert!(matches!(engine.told().await, EngineEvent::Ready { .. }));
    let requests = engine.requests.as_ref().expect("input has not ended");
    requests.send(Err(io::Error::other("the pipe is broken"))).expect("the run listens");
    let (_, ended) = engine.finish().await;
    let error = ended.expect_err("it is told");
    assert!(error.is_temporary() && error.to_string().contains("the pipe is broken"), "{error}");
}
