//! Devices: one thread each, fed by one bounded queue.
//!
//! ```text
//! unit A ──batch──┐                     ┌── thread of device 0 ──codes──▶ whoever sent the batch
//! unit B ──batch──┼──▶ bounded queue ───┤
//! unit C ──batch──┘                     └── thread of device 1 ──codes──▶ whoever sent the batch
//! ```
//!
//! Whichever device is free takes the next batch, so a slow device never holds up a fast one. Each batch carries the sender of
//! its answer; the order of rows is the business of the unit that sent it. A full queue makes units wait, and with them decoding
//! and fetching; devices wait for nobody but the queue, so it always empties.

use crate::{
    EncoderFactory, PipelineError,
    telemetry::{InStage, Stage, Telemetry},
};
use schemas::{PixelBatch, TokenBatch};
use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// What a device must give back for each filled row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeShape {
    pub(crate) tokens_per_image: usize,
    pub(crate) codebook_size: usize,
}

/// The device threads and the queue in front of them.
#[derive(Debug)]
pub(crate) struct DevicePool {
    queue: DeviceQueue,
    kinds: BTreeSet<String>,
    failure: Arc<FailureSlot>,
    finished: Vec<oneshot::Receiver<()>>,
}

/// Where units put their batches.
#[derive(Clone, Debug)]
pub(crate) struct DeviceQueue {
    sender: async_channel::Sender<Request>,
    telemetry: Arc<Telemetry>,
}

/// No device is left to answer; why is in the pool's failure slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DevicesGone;

#[derive(Debug)]
struct Request {
    batch: PixelBatch,
    answer: oneshot::Sender<TokenBatch>,
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

impl DevicePool {
    /// Starts a thread for each encoder and waits until all are built.
    ///
    /// # Errors
    /// When an encoder cannot be built, or the system gives no thread.
    ///
    /// # Panics
    /// With the panic of a factory.
    pub(crate) async fn start(
        encoders: Vec<(String, EncoderFactory)>,
        queued_batches_per_device: usize,
        shape: CodeShape,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, PipelineError> {
        if encoders.is_empty() {
            return Err(PipelineError::Settings { problem: "no device to encode on: name at least one".to_owned() });
        }
        let capacity = (queued_batches_per_device * encoders.len()).max(1);
        telemetry.set_capacity(Stage::Queue, capacity);
        telemetry.set_capacity(Stage::Encode, encoders.len());
        let (sender, receiver) = async_channel::bounded(capacity);
        let failure = Arc::new(FailureSlot::default());
        let (mut ready, mut finished) = (Vec::new(), Vec::new());
        for (device, factory) in encoders {
            let (ready_sender, ready_receiver) = oneshot::channel();
            let (finished_sender, finished_receiver) = oneshot::channel();
            let worker = Worker {
                device: device.clone(),
                requests: receiver.clone(),
                shape,
                telemetry: Arc::clone(telemetry),
                failure: Arc::clone(&failure),
            };
            let span = tracing::info_span!("device", name = %device);
            std::thread::Builder::new()
                .name(format!("device-{device}"))
                .spawn(move || {
                    span.in_scope(|| worker.run_caught(factory, ready_sender));
                    drop(finished_sender);
                })
                .map_err(|error| encoder_error(&device, format!("cannot start a thread: {error}"), true))?;
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
                    let lost = || encoder_error(&device, "ended before it was ready".to_owned(), false);
                    return Err(failure.take().unwrap_or_else(lost));
                }
            }
        }
        let queue = DeviceQueue { sender, telemetry: Arc::clone(telemetry) };
        Ok(Self { queue, kinds, failure, finished })
    }

    /// Where to put batches.
    pub(crate) fn queue(&self) -> DeviceQueue {
        self.queue.clone()
    }

    /// Kinds of all devices. Any of them may encode any batch, so a file names them all.
    pub(crate) fn device_kind(&self) -> String {
        self.kinds.iter().map(String::as_str).collect::<Vec<_>>().join(" + ")
    }

    /// Why no device answers any more.
    ///
    /// # Panics
    /// With the panic of the device thread that failed first.
    pub(crate) fn failure(&self) -> PipelineError {
        let lost = || encoder_error("all", "the devices ended without saying why".to_owned(), true);
        self.failure.take().unwrap_or_else(lost)
    }

    /// Closes the queue and waits for the threads, at most `patience`; a thread that is in the middle of a batch after that
    /// is left alone and ends with the process.
    pub(crate) async fn close(self, patience: Duration) {
        self.queue.sender.close();
        let all = futures::future::join_all(self.finished);
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::info!("a device is still busy with a batch that nobody waits for");
        }
    }
}

impl DeviceQueue {
    /// Waits for room and sends a batch; the codes of its filled rows come through the receiver, which fails when the device
    /// fails.
    pub(crate) async fn submit(&self, batch: PixelBatch) -> Result<oneshot::Receiver<TokenBatch>, DevicesGone> {
        let (answer, codes) = oneshot::channel();
        let bytes = batch.pixels().len() as u64;
        let waiting = Instant::now();
        let request = Request { batch, answer, queued: self.telemetry.enter(Stage::Queue) };
        self.sender.send(request).await.map_err(|_| DevicesGone)?;
        self.telemetry.record_wait(Stage::Queue, waiting.elapsed());
        self.telemetry.record(Stage::Queue, 1, bytes, Duration::ZERO);
        Ok(codes)
    }
}

/// What a device thread owns.
struct Worker {
    device: String,
    requests: async_channel::Receiver<Request>,
    shape: CodeShape,
    telemetry: Arc<Telemetry>,
    failure: Arc<FailureSlot>,
}

impl Worker {
    fn run_caught(self, factory: EncoderFactory, ready: oneshot::Sender<String>) {
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
        factory: EncoderFactory,
        ready: &mut Option<oneshot::Sender<String>>,
        unanswered: &mut Option<oneshot::Sender<TokenBatch>>,
    ) -> Result<(), PipelineError> {
        let failed = |error: crate::EncodeError| {
            let temporary = error.temporary;
            let mut problem = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                problem = format!("{problem}: {error}");
                cause = error.source();
            }
            encoder_error(&self.device, problem, temporary)
        };
        let mut encoder = factory().map_err(failed)?;
        if let Some(ready) = ready.take() {
            // Nobody waits when another device failed to start.
            drop(ready.send(encoder.device_kind()));
        }
        loop {
            let waiting = Instant::now();
            let Ok(Request { batch, answer, queued }) = self.requests.recv_blocking() else { return Ok(()) };
            drop(queued);
            self.telemetry.record_wait(Stage::Encode, waiting.elapsed());
            // The unit was stopped meanwhile: its codes would be thrown away.
            if answer.is_closed() {
                continue;
            }
            *unanswered = Some(answer);
            let at_work = self.telemetry.enter(Stage::Encode);
            let started = Instant::now();
            let codes = encoder.encode(&batch).map_err(failed)?;
            self.check(&batch, &codes)?;
            self.telemetry.record(Stage::Encode, batch.filled() as u64, batch.pixels().len() as u64, started.elapsed());
            drop(at_work);
            if let Some(answer) = unanswered.take() {
                // The unit may have been stopped meanwhile.
                drop(answer.send(codes));
            }
        }
    }

    /// Holds an encoder to its contract: a code that cannot be right is never written.
    fn check(&self, batch: &PixelBatch, codes: &TokenBatch) -> Result<(), PipelineError> {
        let CodeShape { tokens_per_image, codebook_size } = self.shape;
        let wrong = |problem: String| Err(encoder_error(&self.device, problem, false));
        if codes.rows() != batch.filled() || codes.tokens_per_image() != tokens_per_image {
            return wrong(format!(
                "gave {} rows of {} codes for {} views of {tokens_per_image}",
                codes.rows(),
                codes.tokens_per_image(),
                batch.filled()
            ));
        }
        match codes.codes().iter().find(|&&code| code < 0 || code as usize >= codebook_size) {
            Some(code) => wrong(format!("gave code {code}, but the codebook has {codebook_size}")),
            None => Ok(()),
        }
    }
}

fn encoder_error(device: &str, problem: String, temporary: bool) -> PipelineError {
    PipelineError::Encoder { device: device.to_owned(), problem, temporary }
}
