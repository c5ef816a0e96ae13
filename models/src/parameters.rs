//! Where the layers get their tensors from, by the published names.
//!
//! A [`Scope`] is a folder of names: a field `proj` of a layer in scope `encoder.blocks.0.attn` asks for
//! `encoder.blocks.0.attn.proj.weight`. Problems are collected while the layers are built and told all at once.

use crate::{ModelError, TensorProblem, weight_file::WeightFile};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};
use tch::{Device, Kind, Tensor};

/// How a tensor starts when it is not loaded. As in the published `_init_weights` and constructors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Zeros,
    Ones,
    /// Normal with this standard deviation.
    Normal(f64),
    /// Even between minus and plus this bound.
    Uniform(f64),
}

impl Start {
    /// Weights of linear layers and convolutions.
    pub(crate) const WEIGHT: Self = Self::Normal(0.02);
}

/// torch's random numbers have one global state; seeding and drawing must not mix with another thread's.
static RANDOM: Mutex<()> = Mutex::new(());

enum Source<'a> {
    File(&'a WeightFile),
    Random { seed: i64, drawn: RefCell<BTreeMap<String, Tensor>> },
}

/// All tensors of a model, from a file or drawn at random.
pub(crate) struct Parameters<'a> {
    source: Source<'a>,
    asked: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<TensorProblem>>,
}

impl<'a> Parameters<'a> {
    pub(crate) fn from_file(file: &'a WeightFile) -> Self {
        Self { source: Source::File(file), asked: RefCell::default(), problems: RefCell::default() }
    }

    /// Random tensors that follow from `seed` and each tensor's name alone.
    pub(crate) fn random(seed: i64) -> Self {
        let source = Source::Random { seed, drawn: RefCell::default() };
        Self { source, asked: RefCell::default(), problems: RefCell::default() }
    }

    /// The root scope, whose layers compute on `device` in `kind`.
    pub(crate) fn root(&self, device: Device, kind: Kind) -> Scope<'_> {
        Scope { parameters: self, prefix: String::new(), device, kind }
    }

    /// To be called when all layers are built: the tensors that were drawn at random, if they were.
    ///
    /// # Errors
    /// When any tensor was missing or did not fit, or the file holds one that nobody asked for and `may_be_there` does not allow.
    pub(crate) fn finish(
        self,
        may_be_there: impl Fn(&str) -> bool,
    ) -> Result<Option<BTreeMap<String, Tensor>>, ModelError> {
        let file = match self.source {
            Source::Random { drawn, .. } => return Ok(Some(drawn.into_inner())),
            Source::File(file) => file,
        };
        let asked = self.asked.into_inner();
        let mut problems = self.problems.into_inner();
        problems.extend(file.twice.iter().map(|name| TensorProblem::Twice { name: name.clone() }));
        for name in file.names().filter(|name| !asked.contains(*name) && !may_be_there(name)) {
            let found = file.shape(name).unwrap_or_default();
            problems.push(TensorProblem::Unexpected { name: name.to_owned(), found });
        }
        if problems.is_empty() {
            return Ok(None);
        }
        problems.sort_by(|left, right| left.name().cmp(right.name()));
        Err(ModelError::Tensors { file: file.path().to_owned(), problems })
    }

    fn get(&self, name: String, shape: &[i64], start: Start) -> Result<Tensor, ModelError> {
        let found = match &self.source {
            Source::Random { seed, drawn } => {
                let tensor = draw(*seed, &name, shape, start)?;
                drawn.borrow_mut().insert(name, tensor.shallow_clone());
                return Ok(tensor);
            }
            Source::File(file) => {
                self.asked.borrow_mut().insert(name.clone());
                match (file.shape(&name), file.kind(&name)) {
                    (None, _) => Err(TensorProblem::Missing { name, expected: shape.to_vec() }),
                    (Some(found), _) if found != shape => {
                        Err(TensorProblem::Shape { name, found, expected: shape.to_vec() })
                    }
                    (_, Err(found)) => Err(TensorProblem::Kind { name, found }),
                    (_, Ok(_)) => Ok(file.read(&name)?),
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

fn draw(seed: i64, name: &str, shape: &[i64], start: Start) -> Result<Tensor, ModelError> {
    let options = (Kind::Float, Device::Cpu);
    // FNV-1a: a seed for each name, so that no tensor depends on the order in which layers are built.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let guard = RANDOM.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tch::manual_seed(seed ^ (hash >> 1) as i64);
    let tensor = match start {
        Start::Zeros => Tensor::f_zeros(shape, options)?,
        Start::Ones => Tensor::f_ones(shape, options)?,
        Start::Normal(deviation) => Tensor::f_empty(shape, options)?.f_normal_(0.0, deviation)?,
        Start::Uniform(bound) => Tensor::f_empty(shape, options)?.f_uniform_(-bound, bound)?,
    };
    drop(guard);
    Ok(tensor)
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

    /// A tensor of this folder in main memory, in float32.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64], start: Start) -> Result<Tensor, ModelError> {
        self.parameters.get(format!("{}{name}", self.prefix), shape, start)
    }

    /// A tensor of this folder on its device, in float32.
    pub(crate) fn placed(&self, name: &str, shape: &[i64], start: Start) -> Result<Tensor, ModelError> {
        Ok(self.tensor(name, shape, start)?.f_to_device(self.device)?)
    }

    /// Brings `tensor` to this scope's device and kind.
    pub(crate) fn place(&self, tensor: &Tensor) -> Result<Tensor, ModelError> {
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }
}
