//! Where the layers get their tensors from, by the published names.
//!
//! A [`Scope`] is a folder of names: a field `proj` of a layer in scope `encoder.blocks.0.attn` asks for
//! `encoder.blocks.0.attn.proj.weight`. Problems are collected while the layers are built and told all at once.

use crate::{ModelError, TensorProblem, checkpoint_kind, weight_file::WeightFile};
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    sync::Mutex,
};
use tch::{Device, Kind, Tensor};

/// How a tensor is initialized when it is not loaded. As in the published `_init_weights` and constructors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    Zeros,
    Ones,
    /// Normal with this standard deviation.
    Normal(f64),
    /// Even between minus and plus this bound.
    Uniform(f64),
}

impl Init {
    /// Weights of linear layers and convolutions.
    pub(crate) const WEIGHT: Self = Self::Normal(0.02);
}

/// torch's random numbers have one global state; seeding and drawing must not mix with another thread's.
static RANDOM: Mutex<()> = Mutex::new(());

enum Source<'a> {
    File {
        file: &'a WeightFile,
        /// What stands in front of every name, known from the first that is asked for; empty as published.
        prefix: OnceCell<String>,
    },
    Random {
        seed: i64,
        drawn: RefCell<BTreeMap<String, Tensor>>,
    },
    /// Tensors in memory, to be computed with and not trained.
    Memory(&'a BTreeMap<String, Tensor>),
    Store {
        store: &'a ParameterStore,
        /// Whether gradients flow into the trained tensors.
        gradients: bool,
    },
}

/// All tensors of a model, from a file or drawn at random.
pub(crate) struct Parameters<'a> {
    source: Source<'a>,
    /// Names and shapes.
    asked: RefCell<BTreeMap<String, Vec<i64>>>,
    problems: RefCell<Vec<TensorProblem>>,
}

impl<'a> Parameters<'a> {
    pub(crate) fn from_file(file: &'a WeightFile) -> Self {
        Self {
            source: Source::File { file, prefix: OnceCell::new() },
            asked: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    /// Random tensors that follow from `seed` and each tensor's name alone.
    pub(crate) fn random(seed: i64) -> Self {
        let source = Source::Random { seed, drawn: RefCell::default() };
        Self { source, asked: RefCell::default(), problems: RefCell::default() }
    }

    /// Tensors in memory under their published names, for inference.
    pub(crate) fn from_memory(tensors: &'a BTreeMap<String, Tensor>) -> Self {
        Self { source: Source::Memory(tensors), asked: RefCell::default(), problems: RefCell::default() }
    }

    /// The tensors of a training run.
    pub(crate) fn from_store(store: &'a ParameterStore) -> Self {
        let source = Source::Store { store, gradients: true };
        Self { source, asked: RefCell::default(), problems: RefCell::default() }
    }

    /// The tensors of a training run as they are: gradients flow through what is built of them, not into them.
    pub(crate) fn held_fixed(store: &'a ParameterStore) -> Self {
        let source = Source::Store { store, gradients: false };
        Self { source, asked: RefCell::default(), problems: RefCell::default() }
    }

    /// The root scope, whose layers compute on `device` in `kind`.
    pub(crate) fn root(&self, device: Device, kind: Kind) -> Scope<'_> {
        Scope { parameters: self, prefix: String::new(), device, kind }
    }

    /// To be called when all layers are built: the tensors that were drawn at random, if they were.
    ///
    /// # Errors
    /// When any tensor was missing, did not fit or has non-finite values, or the file holds one that nobody asked for and `may_be_there` does
    /// not allow.
    pub(crate) fn finish(
        self,
        may_be_there: impl Fn(&str) -> bool,
    ) -> Result<Option<BTreeMap<String, Tensor>>, ModelError> {
        let asked = self.asked.into_inner();
        let mut problems = self.problems.into_inner();
        // `plain`: the name without the prefix of all names, `None` where it lacks that.
        let mut unexpected = |name: &str, plain: Option<&str>, found: Vec<i64>| {
            if !plain.is_some_and(|plain| asked.contains_key(plain) || may_be_there(plain)) {
                problems.push(TensorProblem::Unexpected { name: plain.unwrap_or(name).to_owned(), found });
            }
        };
        let mut notes = Vec::new();
        let file = match self.source {
            Source::Random { drawn, .. } => return Ok(Some(drawn.into_inner())),
            Source::File { file, prefix } => {
                let prefix = prefix.into_inner().unwrap_or_default();
                for name in file.names() {
                    unexpected(name, name.strip_prefix(prefix.as_str()), file.shape(name).unwrap_or_default());
                }
                problems.extend(file.twice.iter().map(|name| TensorProblem::Twice { name: name.clone() }));
                if !problems.is_empty() {
                    notes = checkpoint_kind::notes(file, &prefix, &asked, &problems);
                } else if !prefix.is_empty() {
                    tracing::warn!(
                        "{}: all names begin with {prefix}, which a wrapper or an export put there; without it they are exactly this model's",
                        file.path().display()
                    );
                }
                file.path().to_owned()
            }
            Source::Memory(tensors) => {
                tensors.iter().for_each(|(name, tensor)| unexpected(name, Some(name), tensor.size()));
                PathBuf::from("tensors in memory")
            }
            Source::Store { store, .. } => {
                store.sealed.set(true);
                PathBuf::from("parameters in training")
            }
        };
        if problems.is_empty() {
            return Ok(None);
        }
        problems.sort_by(|left, right| left.name().cmp(right.name()));
        Err(ModelError::Tensors { file, problems, notes })
    }

    fn get(&self, name: String, shape: &[i64], init: Init) -> Result<Tensor, ModelError> {
        let fits = |name: String, tensor: Option<&Tensor>| match tensor {
            None => Err(TensorProblem::Missing { name, expected: shape.to_vec() }),
            Some(tensor) if tensor.size() != shape => {
                Err(TensorProblem::Shape { name, found: tensor.size(), expected: shape.to_vec() })
            }
            Some(tensor) => Ok(tensor.shallow_clone()),
        };
        let found = match &self.source {
            Source::Memory(tensors) => {
                self.asked.borrow_mut().insert(name.clone(), shape.to_vec());
                let tensor = tensors.get(&name).map(|tensor| tensor.f_to_kind(Kind::Float)).transpose()?;
                fits(name, tensor.as_ref())
            }
            Source::Store { store, gradients } => {
                store.draw_if_new(Role::Trained, &name, shape, init)?;
                let tensor = fits(name.clone(), store.trained.borrow().get(&name));
                if *gradients { tensor } else { tensor.map(|tensor| tensor.detach()) }
            }
            Source::Random { seed, drawn } => {
                let tensor = draw(*seed, &name, shape, init)?;
                drawn.borrow_mut().insert(name, tensor.shallow_clone());
                return Ok(tensor);
            }
            Source::File { file, prefix } => {
                self.asked.borrow_mut().insert(name.clone(), shape.to_vec());
                let stored = format!("{}{name}", prefix.get_or_init(|| checkpoint_kind::prefix(file.names(), &name)));
                match (file.shape(&stored), file.kind(&stored)) {
                    (None, _) => Err(TensorProblem::Missing { name, expected: shape.to_vec() }),
                    (Some(found), _) if found != shape => {
                        Err(TensorProblem::Shape { name, found, expected: shape.to_vec() })
                    }
                    (_, Err(found)) => Err(TensorProblem::Kind { name, found }),
                    (_, Ok(_)) => finite(name, file.read(&stored)?)?,
                }
            }
        };
        found.or_else(|problem| {
            // The layers go on being built, so that all problems are found; `finish` then refuses the whole.
            self.problems.borrow_mut().push(problem);
            Ok(Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?)
        })
    }
}

/// `tensor`, unless some of its float32 values are non-finite: one of them makes all that is computed from it none, or black
/// pictures.
fn finite(name: String, tensor: Tensor) -> Result<Result<Tensor, TensorProblem>, ModelError> {
    // One pass that allocates nothing: what is no number stays none in any sum. A sum of finite numbers may be infinite too.
    if tensor.f_sum(Kind::Float)?.f_double_value(&[])?.is_finite() {
        return Ok(Ok(tensor));
    }
    let count = |found: Tensor| -> Result<u64, ModelError> { Ok(found.f_sum(Kind::Int64)?.f_int64_value(&[])? as u64) };
    let (nan, infinite) = (count(tensor.f_isnan()?)?, count(tensor.f_isinf()?)?);
    Ok(match nan + infinite {
        0 => Ok(tensor),
        _ => Err(TensorProblem::NotFinite { name, nan, infinite, values: tensor.numel() as u64 }),
    })
}

/// What a tensor of a training run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Gradients flow into it and the optimizer moves it.
    Trained,
    /// Kept and saved with the rest, but moved by the network itself.
    Buffer,
}

/// The tensors that a training run owns, by their published names. Networks are built anew from them at every step, so that a
/// layer is written once for training and for inference: as a function of its parameters.
///
/// It grows while the networks are built for the first time, each tensor drawn from the seed and its name; from then on a name
/// that nobody knows is an error.
pub(crate) struct ParameterStore {
    seed: i64,
    device: Device,
    sealed: Cell<bool>,
    trained: RefCell<BTreeMap<String, Tensor>>,
    /// Names of those, in the order in which the network asked for them first.
    order: RefCell<Vec<String>>,
    buffers: RefCell<BTreeMap<String, Tensor>>,
    /// What follows from sizes alone and is computed once: index tables, masks, rotary factors.
    constants: RefCell<BTreeMap<String, Tensor>>,
}

impl ParameterStore {
    /// An empty store, which the first building of its networks fills.
    pub(crate) fn new(seed: i64, device: Device) -> Self {
        Self {
            seed,
            device,
            sealed: Cell::new(false),
            trained: RefCell::default(),
            order: RefCell::default(),
            buffers: RefCell::default(),
            constants: RefCell::default(),
        }
    }

    /// The tensors that are trained, sorted by name.
    pub(crate) fn trained(&self) -> Vec<(String, Tensor)> {
        Self::list(&self.trained)
    }

    /// The same in the order in which the network asked for them first, which is about that in which it uses them.
    pub(crate) fn trained_by_use(&self) -> Vec<Tensor> {
        let trained = self.trained.borrow();
        self.order.borrow().iter().filter_map(|name| trained.get(name)).map(Tensor::shallow_clone).collect()
    }

    /// The tensors that are kept but not trained, sorted by name.
    pub(crate) fn buffers(&self) -> Vec<(String, Tensor)> {
        Self::list(&self.buffers)
    }

    fn list(tensors: &RefCell<BTreeMap<String, Tensor>>) -> Vec<(String, Tensor)> {
        tensors.borrow().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn draw_if_new(&self, role: Role, name: &str, shape: &[i64], init: Init) -> Result<(), ModelError> {
        let mut tensors = match role {
            Role::Trained => &self.trained,
            Role::Buffer => &self.buffers,
        }
        .borrow_mut();
        if self.sealed.get() || tensors.contains_key(name) {
            return Ok(());
        }
        let tensor =
            tch::no_grad(|| draw(self.seed, name, shape, init)?.f_to_device(self.device).map_err(ModelError::from))?;
        if role == Role::Trained {
            self.order.borrow_mut().push(name.to_owned());
        }
        tensors.insert(name.to_owned(), tensor.f_set_requires_grad(role == Role::Trained)?);
        Ok(())
    }
}

impl std::fmt::Debug for ParameterStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (trained, buffers) = (self.trained.borrow().len(), self.buffers.borrow().len());
        write!(formatter, "ParameterStore({trained} trained, {buffers} buffers)")
    }
}

fn draw(seed: i64, name: &str, shape: &[i64], init: Init) -> Result<Tensor, ModelError> {
    let options = (Kind::Float, Device::Cpu);
    // FNV-1a: a seed for each name, so that no tensor depends on the order in which layers are built.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let guard = RANDOM.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tch::manual_seed(seed ^ (hash >> 1) as i64);
    let tensor = match init {
        Init::Zeros => Tensor::f_zeros(shape, options)?,
        Init::Ones => Tensor::f_ones(shape, options)?,
        Init::Normal(deviation) => Tensor::f_empty(shape, options)?.f_normal_(0.0, deviation)?,
        Init::Uniform(bound) => Tensor::f_empty(shape, options)?.f_uniform_(-bound, bound)?,
    };
    drop(guard);
    Ok(tensor)
}

/// Runs `body` with torch's generators started from `seed`, while nobody else draws: what `body` draws on a device follows from
/// the seed alone, and no generator's state needs to be kept. `body` must not build parameters, which draw under the same lock.
pub(crate) fn with_random_numbers<T>(seed: u64, body: impl FnOnce() -> T) -> T {
    let guard = RANDOM.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tch::manual_seed(seed as i64);
    let result = body();
    drop(guard);
    result
}

/// A folder of names, and where its layers compute.
#[derive(Clone)]
pub(crate) struct Scope<'a> {
    parameters: &'a Parameters<'a>,
    prefix: String,
    pub(crate) device: Device,
    pub(crate) kind: Kind,
}

impl Scope<'_> {
    /// The folder `name` in this folder.
    pub(crate) fn sub(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The same folder, with layers that compute in `kind`.
    pub(crate) fn in_kind(&self, kind: Kind) -> Self {
        Self { kind, ..self.clone() }
    }

    /// A tensor of this folder in float32: in main memory as it is loaded or drawn, on its device in training.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor, ModelError> {
        self.parameters.get(format!("{}{name}", self.prefix), shape, init)
    }

    /// Whether the tensors of this scope belong to a training run: built of them is a network of one step.
    pub(crate) fn trainable(&self) -> bool {
        matches!(self.parameters.source, Source::Store { .. })
    }

    /// A tensor of this folder that is saved with the others and not trained: float32, on the device, the same storage at every
    /// building, so that a network may change it in place. Outside training nobody may ask for one.
    pub(crate) fn buffer(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor, ModelError> {
        let name = format!("{}{name}", self.prefix);
        let Source::Store { store, .. } = &self.parameters.source else {
            return self.parameters.get(name, shape, init);
        };
        store.draw_if_new(Role::Buffer, &name, shape, init)?;
        let found = store.buffers.borrow().get(&name).map(Tensor::shallow_clone);
        found.ok_or_else(|| {
            let problem = TensorProblem::Missing { name, expected: shape.to_vec() };
            let file = PathBuf::from("parameters in training");
            ModelError::Tensors { file, problems: vec![problem], notes: Vec::new() }
        })
    }

    /// A tensor that follows from sizes alone, from `build`; in training it is built once and kept.
    pub(crate) fn constant(
        &self,
        name: impl std::fmt::Display,
        build: impl FnOnce() -> Result<Tensor, ModelError>,
    ) -> Result<Tensor, ModelError> {
        let Source::Store { store, .. } = &self.parameters.source else {
            return build();
        };
        let name = format!("{}{name}", self.prefix);
        if let Some(constant) = store.constants.borrow().get(&name) {
            return Ok(constant.shallow_clone());
        }
        let constant = tch::no_grad(build)?;
        store.constants.borrow_mut().insert(name, constant.shallow_clone());
        Ok(constant)
    }

    /// A tensor of this folder on its device, in float32.
    pub(crate) fn placed(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor, ModelError> {
        Ok(self.tensor(name, shape, init)?.f_to_device(self.device)?)
    }

    /// Brings `tensor` to this scope's device and kind.
    pub(crate) fn place(&self, tensor: &Tensor) -> Result<Tensor, ModelError> {
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }
}
