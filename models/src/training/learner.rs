//! What every training has: parameters, the optimizer that moves them, their average, and the files that a run is taken up from.

use super::{AdamWOptions, StepReport, ema::Ema, loss_scale::LossScale, optimizer::AdamW, state, tensor_lists};
use crate::{ModelError, Precision, ProcessGroup, parameters::ParameterStore, process_group::Reducer, weight_file};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tch::{Kind, Tensor};

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";
const AVERAGE_FILE: &str = "ema.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// Numbers of a learner that stay the same during a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct LearnerOptions {
    pub(super) precision: Precision,
    pub(super) optimizer: AdamWOptions,
    pub(super) max_grad_norm: f64,
    pub(super) ema_decay: f64,
}

/// One of the micro-batches that a process makes an update of.
#[derive(Clone, Copy, Debug)]
pub(super) struct MicroBatch {
    pub(super) index: usize,
    pub(super) count: usize,
}

impl MicroBatch {
    /// Its weight in the update.
    pub(super) fn fraction(self) -> f64 {
        1.0 / self.count as f64
    }

    /// Adds the gradients of `loss`, which has that weight already. With the last one of an update, all that was added is averaged over the
    /// processes of `reducer`, if there are several.
    pub(super) fn backward(self, loss: &Tensor, reducer: Option<&Reducer>) -> Result<(), ModelError> {
        match reducer.filter(|_| self.index + 1 == self.count) {
            Some(reducer) => reducer.backward(loss),
            None => Ok(loss.f_backward()?),
        }
    }
}

/// Parameters and everything that moves them.
#[derive(Debug)]
pub(super) struct Learner {
    store: ParameterStore,
    optimizer: AdamW,
    average: Ema,
    /// In float16 only.
    loss_scale: Option<LossScale>,
    max_grad_norm: f64,
    steps_done: u64,
    /// Where several processes train together.
    reducer: Option<Reducer>,
}

impl Learner {
    /// Of a store that the first building of its networks has filled.
    pub(super) fn new(store: ParameterStore, options: LearnerOptions) -> Result<Self, ModelError> {
        let trained = store.trained();
        let device = trained.first().map_or(tch::Device::Cpu, |(_, tensor)| tensor.device());
        Ok(Self {
            optimizer: AdamW::new(&trained, options.optimizer)?,
            average: Ema::new(&trained, options.ema_decay)?,
            loss_scale: (options.precision == Precision::Fp16).then(|| LossScale::new(device)).transpose()?,
            max_grad_norm: options.max_grad_norm,
            steps_done: 0,
            reducer: None,
            store,
        })
    }

    pub(super) fn store(&self) -> &ParameterStore {
        &self.store
    }

    /// Updates made so far.
    pub(super) fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// Whether gradients may overflow, and an update be left out.
    pub(super) fn may_overflow(&self) -> bool {
        self.loss_scale.is_some()
    }

    /// Names of the scalars that [`Self::update`] reports.
    pub(super) fn scalars(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.may_overflow().then_some(StepReport::OVERFLOWED).into_iter().chain(["gradient_norm"])
    }

    /// The processes that train together, if there are several.
    pub(super) fn group(&self) -> Option<&Arc<ProcessGroup>> {
        self.reducer.as_ref().map(Reducer::group)
    }

    /// From now on, gradients are averaged over the processes of `group`, from the weights, averages and optimizer state of rank 0 after
    /// `steps_done` updates.
    pub(super) fn distribute(&mut self, group: &Arc<ProcessGroup>, steps_done: u64) -> Result<(), ModelError> {
        let tensors = [self.weights(), self.average.tensors(), self.state(BTreeMap::new())];
        group.broadcast(tensors.iter().flat_map(BTreeMap::values))?;
        self.steps_done = steps_done;
        self.reducer = Some(Reducer::new(group, &self.store.trained_by_use())?);
        Ok(())
    }

    /// Whether the weights, the loss scale, and the tensors `more` are the same in all processes that train together.
    pub(super) fn is_same_everywhere(&self, more: BTreeMap<String, Tensor>) -> Result<bool, ModelError> {
        let Some(group) = self.group() else { return Ok(true) };
        let _no_grad = tch::no_grad_guard();
        let weights = self.weights();
        let scale: BTreeMap<_, _> = self.loss_scale.iter().flat_map(LossScale::state).collect();
        // Sums in float64 tell weights apart well enough, and are copied from the device at once.
        let sums = weights.values().chain(scale.values()).chain(more.values()).map(|tensor| tensor.f_sum(Kind::Double));
        let sums = Tensor::f_stack(&sums.collect::<Result<Vec<_>, _>>()?, 0)?;
        group.all_equal(&sums.f_to_device(tch::Device::Cpu)?)
    }

    /// How many processes train together.
    fn processes(&self) -> usize {
        self.group().map_or(1, |group| group.world_size())
    }

    /// Adds the gradients of a micro-batch: of its fraction of `loss`.
    pub(super) fn learn(&self, loss: &Tensor, micro_batch: MicroBatch) -> Result<(), ModelError> {
        let loss = match &self.loss_scale {
            // Divided by the processes as well, which `update` takes off: scaled gradients are as large as those of one process that makes
            // all micro-batches, and overflow at the same steps.
            Some(scale) => {
                let micro_batches = micro_batch.count * self.processes();
                scale.scaled(&loss.f_mul_scalar(1.0 / micro_batches as f64)?)?
            }
            None => loss.f_mul_scalar(micro_batch.fraction())?,
        };
        micro_batch.backward(&loss, self.reducer.as_ref())
    }

    /// Moves the parameters by the gradients that were added since the last update, and the average after them.
    pub(super) fn update(&mut self, learning_rate: f64, report: &mut StepReport) -> Result<(), ModelError> {
        let (gradients, processes) = (self.optimizer.gradients(), self.processes());
        let found_infinite = self.loss_scale.as_ref().map(|scale| scale.unscale(&gradients, processes)).transpose()?;
        if let Some(found_infinite) = &found_infinite {
            report.add(StepReport::OVERFLOWED, found_infinite, 1.0)?;
        }
        let norm = tch::no_grad(|| tensor_lists::clip(&gradients, self.max_grad_norm))?;
        report.add("gradient_norm", &norm, 1.0)?;
        self.optimizer.step(learning_rate, found_infinite.as_ref())?;
        self.optimizer.clear_gradients();
        self.steps_done += 1;
        self.average.update(self.steps_done)
    }

    /// Parameters and buffers.
    pub(super) fn weights(&self) -> BTreeMap<String, Tensor> {
        self.store.trained().into_iter().chain(self.store.buffers()).collect()
    }

    /// The average of the weights, rounded to float16 for [`Precision::Fp16`].
    pub(super) fn ema(&self, stored: Precision) -> Result<BTreeMap<String, Tensor>, ModelError> {
        let mut tensors = self.average.tensors();
        if stored == Precision::Fp16 {
            for tensor in tensors.values_mut() {
                *tensor = tensor.f_to_kind(Kind::Half)?;
            }
        }
        Ok(tensors)
    }

    /// Writes `config.json`, `model.safetensors`, `ema.safetensors` and `optimizer.safetensors`, with `more` in the last, into
    /// `folder`, which exists.
    pub(super) fn save(&self, folder: &Path, config: &str, more: BTreeMap<String, Tensor>) -> Result<(), ModelError> {
        let config_file = folder.join(CONFIG_FILE);
        std::fs::write(&config_file, config).map_err(|source| ModelError::File { file: config_file, source })?;
        weight_file::write(&folder.join(WEIGHTS_FILE), &self.weights())?;
        weight_file::write(&folder.join(AVERAGE_FILE), &self.average.tensors())?;
        weight_file::write(&folder.join(OPTIMIZER_FILE), &self.state(more))
    }

    /// Takes up what [`Self::save`] wrote after `steps_done` updates.
    pub(super) fn restore(
        &mut self,
        folder: &Path,
        steps_done: u64,
        more: BTreeMap<String, Tensor>,
    ) -> Result<(), ModelError> {
        state::restore(&folder.join(WEIGHTS_FILE), &self.weights())?;
        state::restore(&folder.join(AVERAGE_FILE), &self.average.tensors())?;
        state::restore(&folder.join(OPTIMIZER_FILE), &self.state(more))?;
        self.steps_done = steps_done;
        Ok(())
    }

    fn state(&self, more: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let mut state = self.optimizer.state("");
        state.extend(more);
        state.extend(self.loss_scale.iter().flat_map(LossScale::state));
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Device, Rendezvous, StoreServer,
        parameters::{Init, Parameters},
    };
    use std::time::Duration;

    /// In float16, of one tensor of ones.
    fn learner() -> Learner {
        let store = ParameterStore::new(1, tch::Device::Cpu);
        let parameters = Parameters::from_store(&store);
        let root = parameters.root(tch::Device::Cpu, Kind::Float);
        drop(root.tensor("weight", &[2], Init::Ones).expect("drawn"));
        parameters.finish(|_| false).expect("drawn");
        let options = LearnerOptions {
            precision: Precision::Fp16,
            optimizer: AdamWOptions { beta1: 0.9, beta2: 0.95, weight_decay: 0.0 },
            max_grad_norm: 1.0,
            ema_decay: 0.9,
        };
        Learner::new(store, options).expect("built")
    }

    /// An update of two micro-batches with these gradients; whether it was left out, the weights after it, and the scale.
    fn update(learner: &mut Learner, gradients: [f32; 2]) -> (bool, Vec<f32>, f64) {
        let mut report = StepReport::shared(learner.group());
        for (index, gradient) in gradients.into_iter().enumerate() {
            let loss = learner.store().trained()[0].1.f_mul_scalar(f64::from(gradient)).and_then(|all| all.f_sum(None));
            learner.learn(&loss.expect("a loss"), MicroBatch { index, count: 2 }).expect("gradients");
        }
        learner.update(0.1, &mut report).expect("an update");
        let overflowed = report.read().expect("read").contains(&(StepReport::OVERFLOWED, 1.0));
        let weights = Vec::<f32>::try_from(&learner.weights()["weight"]).expect("a vector");
        (overflowed, weights, learner.state(BTreeMap::new())["loss_scale.scale"].double_value(&[0]))
    }

    #[test]
    fn where_one_process_overflows_none_moves_and_all_lower_the_scale() {
        let store = StoreServer::open().expect("a store");
        let updates: Vec<_> = std::thread::scope(|threads| {
            let process = |rank| {
                let (host, port) = ("localhost".to_owned(), store.port());
                let rendezvous = Rendezvous { host, port, rank, world_size: 2, is_open: true };
                threads.spawn(move || {
                    let group = ProcessGroup::meet(&rendezvous, Device::Cpu, Duration::from_secs(120));
                    let mut learner = learner();
                    learner.distribute(&group.expect("the other"), 0).expect("the same tensor");
                    // In the second process alone, and in the first of its micro-batches, which the second one adds to.
                    let first = update(&mut learner, [if rank == 1 { f32::INFINITY } else { 1.0 }, 1.0]);
                    let second = update(&mut learner, [1.0 + rank as f32, 1.0]);
                    assert!(learner.is_same_everywhere(BTreeMap::new()).expect("compared"));
                    [first, second]
                })
            };
            let processes = [0, 1].map(process);
            processes.into_iter().map(|process| process.join().expect("no panic")).collect()
        });
        assert_eq!(updates[0], updates[1]);
        let [first, second] = &updates[0];
        assert_eq!(*first, (true, vec![1.0; 2], 32_768.0));
        assert!(!second.0 && second.1 != first.1 && second.2 == 32_768.0, "{second:?}");
    }
}
