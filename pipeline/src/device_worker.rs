//! Devices: one thread each, fed by one bounded queue. A run has a pool of them for each network.
//!
//! ```text
//! unit A ──batch──┐                     ┌── thread of device 0 ──answer──▶ whoever sent the batch
//! unit B ──batch──┼──▶ bounded queue ───┤
//! unit C ──batch──┘                     └── thread of device 1 ──answer──▶ whoever sent the batch
//! ```
//!
//! Whichever device is free takes the next batch, so a slow device never holds up a fast one. Each batch carries the sender of
//! its answer; the order of rows is the business of the unit that sent it. A full queue makes units wait, and with them decoding
//! and fetching; devices wait for nobody but the queue, so it always empties.

use crate::{
    DeviceError, NetworkFactory, PipelineError,
    telemetry::{InStage, Stage, Telemetry},
};
use schemas::{PixelBatch, SampleBatch, ScoredBatch, TokenBatch, TokenizerIdentity};
use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// What is counted of a batch.
pub(crate) trait Batch: Send + 'static {
    /// Rows that mean something.
    fn filled(&self) -> usize;
    /// Size in memory.
    fn bytes(&self) -> usize;
}

impl Batch for PixelBatch {
    fn filled(&self) -> usize {
        self.filled()
    }

    fn bytes(&self) -> usize {
        self.pixels().len()
    }
}

impl Batch for SampleBatch {
    fn filled(&self) -> usize {
        self.filled()
    }

    fn bytes(&self) -> usize {
        self.filled() * size_of::<u64>()
    }
}

impl Batch for TokenBatch {
    fn filled(&self) -> usize {
        self.rows()
    }

    fn bytes(&self) -> usize {
        size_of_val(self.codes())
    }
}

/// What is wrong with an answer; an answer that cannot be right is never written.
pub(crate) type Check<I, O> = Arc<dyn Fn(&I, &O) -> Result<(), String> + Send + Sync>;

/// Codes: one row of them, each below the codebook's size, for each filled row of the batch.
pub(crate) fn codes_check<I: Batch>(tokenizer: &TokenizerIdentity) -> Check<I, TokenBatch> {
    let (tokens_per_image, codebook_size) = (tokenizer.levels.tokens_per_image(), tokenizer.codebook_size);
    Arc::new(move |batch, codes| {
        if codes.rows() != batch.filled() || codes.tokens_per_image() != tokens_per_image {
            return Err(format!(
                "gave {} rows of {} codes for {} rows of {tokens_per_image}",
                codes.rows(),
                codes.tokens_per_image(),
                batch.filled(),
            ));
        }
        match codes.codes().iter().find(|&&code| code < 0 || code as usize >= codebook_size) {
            Some(code) => Err(format!("gave code {code}, but the codebook has {codebook_size}")),
            None => Ok(()),
        }
    })
}

/// Pictures: one of `side` by `side` pixels for each row of the batch.
pub(crate) fn pictures_check(side: usize) -> Check<TokenBatch, PixelBatch> {
    Arc::new(move |batch, pictures| {
        let found = (pictures.filled(), pictures.height(), pictures.width());
        if found == (batch.rows(), side, side) {
            return Ok(());
        }
        let (rows, height, width) = found;
        Err(format!("gave {rows} pictures of {width}x{height} for {} rows of side {side}", batch.rows()))
    })
}

/// Scores: all of what is said, for each filled row of the batch.
pub(crate) fn scores_check() -> Check<PixelBatch, ScoredBatch> {
    Arc::new(|batch, scored| scored.check(batch.filled()).map_err(|error| error.to_string()))
}

/// The devices of a run, of one kind or of several.
pub(crate) trait Devices {
    /// How many devices units wait for.
    fn count(&self) -> usize;

    /// Why no device answers any more, if one of them failed.
    ///
    /// # Panics
    /// With the panic of the device thread that failed first.
    fn try_failure(&self) -> Option<PipelineError>;

    /// Closes the queues and waits for the threads, at most `patience`; a thread that is in the middle of a batch after that
    /// is left alone and ends with the process.
    fn close(self, patience: Duration) -> impl Future<Output = ()> + Send;

    /// Why no device answers any more.
    ///
    /// # Panics
    /// As [`Self::try_failure`].
    fn failure(&self) -> PipelineError {
        let lost = || device_error("all", "the devices ended without saying why".to_owned(), true);
        self.try_failure().unwrap_or_else(lost)
    }
}

/// The device threads and the queue in front of them.
#[derive(Debug)]
pub(crate) struct DevicePool<I, O> {
    queue: DeviceQueue<I, O>,
    kinds: BTreeSet<String>,
    failure: Arc<FailureSlot>,
    finished: Vec<oneshot::Receiver<()>>,
}

/// Where units put their batches.
#[derive(Debug)]
pub(crate) struct DeviceQueue<I, O> {
    sender: async_channel::Sender<Request<I, O>>,
    telemetry: Arc<Telemetry>,
}

impl<I, O> Clone for DeviceQueue<I, O> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), telemetry: Arc::clone(&self.telemetry) }
    }
}

/// No device is left to answer; why is in the pool's failure slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DevicesGone;

#[derive(Debug)]
struct Request<I, O> {
    batch: I,
    answer: oneshot::Sender<O>,
    queued: InStage,
}

/// How the first device failed; later failures are its consequences.
#[derive(Debug, Default)]
struct FailureSlot(Mutex<Option<DeviceFailure>>);

enum DeviceFailure {
    Error(PipelineError),
    Panic(Box<dyn Any + Send>),
}

impl std::fmt::Debug for DeviceFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error(error) => formatter.debug_tuple("Error").field(error).finish(),
            Self::Panic(_) => formatter.write_str("Panic"),
        }
    }
}

impl FailureSlot {
    fn put(&self, failure: DeviceFailure) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// The failure as an error.
    ///
    /// # Panics
    /// With the device thread's panic, if that is how it failed.
    fn take(&self) -> Option<PipelineError> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take()? {
            DeviceFailure::Error(error) => Some(error),
            DeviceFailure::Panic(panic) => resume_unwind(panic),
        }
    }
}

impl<I: Batch, O: Send + 'static> DevicePool<I, O> {
    /// Starts a thread for each network and waits until all are built. `stage` is what they do.
    ///
    /// # Errors
    /// When a network cannot be built, or the system gives no thread.
    ///
    /// # Panics
    /// With the panic of a factory.
    pub(crate) async fn start(
        networks: Vec<(String, NetworkFactory<I, O>)>,
        stage: Stage,
        queued_batches_per_device: usize,
        check: Check<I, O>,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, PipelineError> {
        if networks.is_empty() {
            return Err(PipelineError::Settings { problem: format!("no device to {stage} on: name at least one") });
        }
        let capacity = (queued_batches_per_device * networks.len()).max(1);
        telemetry.add_capacity(Stage::Queue, capacity);
        telemetry.set_capacity(stage, networks.len());
        let (sender, receiver) = async_channel::bounded(capacity);
        let failure = Arc::new(FailureSlot::default());
        let (mut ready, mut finished) = (Vec::new(), Vec::new());
        for (device, factory) in networks {
            let (ready_sender, ready_receiver) = oneshot::channel();
            let (finished_sender, finished_receiver) = oneshot::channel();
            let worker = Worker {
                device: device.clone(),
                requests: receiver.clone(),
                stage,
                check: Arc::clone(&check),
                telemetry: Arc::clone(telemetry),
                failure: Arc::clone(&failure),
            };
            let span = tracing::info_span!("device", name = %device);
            std::thread::Builder::new()
                .name(format!("{stage}-{device}"))
                .spawn(move || {
                    span.in_scope(|| worker.run_caught(factory, ready_sender));
                    drop(finished_sender);
                })
                .map_err(|error| device_error(&device, format!("cannot start a thread: {error}"), true))?;
            ready.push((device, ready_receiver));
            finished.push(finished_receiver);
        }
        let mut kinds = BTreeSet::new();
        for (device, ready) in ready {
            match ready.await {
                Ok(kind) => {
                    tracing::info!(%device, %kind, "device ready");
                    kinds.insert(kind);
                }
                Err(_) => {
                    let lost = || device_error(&device, "ended before it was ready".to_owned(), false);
                    return Err(failure.take().unwrap_or_else(lost));
                }
            }
        }
        let queue = DeviceQueue { sender, telemetry: Arc::clone(telemetry) };
        Ok(Self { queue, kinds, failure, finished })
    }

    /// Where to put batches.
    pub(crate) fn queue(&self) -> DeviceQueue<I, O> {
        self.queue.clone()
    }

    /// Kinds of all devices. Any of them may encode any batch, so a file names them all.
    pub(crate) fn device_kind(&self) -> String {
        self.kinds.iter().map(String::as_str).collect::<Vec<_>>().join(" + ")
    }
}

impl<I: Batch, O: Send + 'static> Devices for DevicePool<I, O> {
    fn count(&self) -> usize {
        self.finished.len()
    }

    fn try_failure(&self) -> Option<PipelineError> {
        self.failure.take()
    }

    async fn close(self, patience: Duration) {
        self.queue.sender.close();
        let all = futures::future::join_all(self.finished);
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::info!("a device is still busy with a batch that nobody waits for");
        }
    }
}

impl<I: Batch, O> DeviceQueue<I, O> {
    /// Waits for room and sends a batch; the answer for its filled rows comes through the receiver, which fails when the device
    /// fails.
    pub(crate) async fn submit(&self, batch: I) -> Result<oneshot::Receiver<O>, DevicesGone> {
        let (answer, answered) = oneshot::channel();
        let bytes = batch.bytes() as u64;
        let waiting = Instant::now();
        let request = Request { batch, answer, queued: self.telemetry.enter(Stage::Queue) };
        self.sender.send(request).await.map_err(|_| DevicesGone)?;
        self.telemetry.record_wait(Stage::Queue, waiting.elapsed());
        self.telemetry.record(Stage::Queue, 1, bytes, Duration::ZERO);
        Ok(answered)
    }
}

/// What a device thread owns.
struct Worker<I, O> {
    device: String,
    requests: async_channel::Receiver<Request<I, O>>,
    stage: Stage,
    check: Check<I, O>,
    telemetry: Arc<Telemetry>,
    failure: Arc<FailureSlot>,
}

impl<I: Batch, O> Worker<I, O> {
    fn run_caught(self, factory: NetworkFactory<I, O>, ready: oneshot::Sender<String>) {
        let requests = self.requests.clone();
        let failure = Arc::clone(&self.failure);
        // The failure must be in its slot before anybody learns that an answer will not come, so `ready` and the answers are
        // only dropped after that.
        let mut ready = Some(ready);
        let mut unanswered = None;
        let result = catch_unwind(AssertUnwindSafe(|| self.run(factory, &mut ready, &mut unanswered)));
        match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => failure.put(DeviceFailure::Error(error)),
            Err(panic) => failure.put(DeviceFailure::Panic(panic)),
        }
        // One lost device ends the run: closing makes every unit notice at its next batch, and draining frees those whose
        // batches wait in the queue.
        requests.close();
        while requests.try_recv().is_ok() {}
        drop((ready, unanswered));
    }

    fn run(
        self,
        factory: NetworkFactory<I, O>,
        ready: &mut Option<oneshot::Sender<String>>,
        unanswered: &mut Option<oneshot::Sender<O>>,
    ) -> Result<(), PipelineError> {
        let failed = |error: DeviceError| {
            let temporary = error.temporary;
            let mut problem = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                problem = format!("{problem}: {error}");
                cause = error.source();
            }
            device_error(&self.device, problem, temporary)
        };
        let mut network = factory().map_err(failed)?;
        if let Some(ready) = ready.take() {
            // Nobody waits when another device failed to start.
            drop(ready.send(network.device_kind()));
        }
        loop {
            let waiting = Instant::now();
            let Ok(Request { batch, answer, queued }) = self.requests.recv_blocking() else { return Ok(()) };
            drop(queued);
            self.telemetry.record_wait(self.stage, waiting.elapsed());
            // The unit was stopped meanwhile: its answer would be thrown away.
            if answer.is_closed() {
                continue;
            }
            *unanswered = Some(answer);
            let at_work = self.telemetry.enter(self.stage);
            let started = Instant::now();
            let output = network.run(&batch).map_err(failed)?;
            (self.check)(&batch, &output).map_err(|problem| device_error(&self.device, problem, false))?;
            self.telemetry.record(self.stage, batch.filled() as u64, batch.bytes() as u64, started.elapsed());
            drop(at_work);
            if let Some(answer) = unanswered.take() {
                // The unit may have been stopped meanwhile.
                drop(answer.send(output));
            }
        }
    }
}

fn device_error(device: &str, problem: String, temporary: bool) -> PipelineError {
    PipelineError::Encoder { device: device.to_owned(), problem, temporary }
}
