//! Tensors of a run to files and back, bit for bit.

use super::loss_scale::STATE_PREFIX;
use crate::{ModelError, TensorProblem, weight_file::WeightFile};
use std::{collections::BTreeMap, path::Path};
use tch::Tensor;

/// Copies every tensor of `file` into the one of the same name in `targets`, in place. Nothing is changed unless all fit. The scale
/// of the loss may be on one side only: a run that is told to go on in another precision begins or drops it.
///
/// # Errors
/// When the file is missing or damaged, or its names or shapes are not those of `targets`; all that is wrong is named.
pub(super) fn restore(file: &Path, targets: &BTreeMap<String, Tensor>) -> Result<(), ModelError> {
    let weights = WeightFile::open(file)?;
    let mut problems = Vec::new();
    let may_differ = |name: &str| name.starts_with(STATE_PREFIX);
    for name in weights.names().filter(|name| !targets.contains_key(*name) && !may_differ(name)) {
        problems
            .push(TensorProblem::Unexpected { name: name.to_owned(), found: weights.shape(name).unwrap_or_default() });
    }
    for (name, target) in targets {
        let (name, expected) = (name.clone(), target.size());
        match (weights.shape(&name), weights.kind(&name)) {
            (None, _) if may_differ(&name) => {}
            (None, _) => problems.push(TensorProblem::Missing { name, expected }),
            (Some(found), _) if found != expected => problems.push(TensorProblem::Shape { name, found, expected }),
            (_, Err(found)) => problems.push(TensorProblem::Kind { name, found }),
            (_, Ok(_)) => {}
        }
    }
    if !problems.is_empty() {
        problems.sort_by(|left, right| left.name().cmp(right.name()));
        return Err(ModelError::Tensors { file: file.to_owned(), problems, notes: Vec::new() });
    }
    let _no_grad = tch::no_grad_guard();
    for (name, target) in targets.iter().filter(|(name, _)| weights.shape(name).is_some()) {
        target.detach().f_copy_(&weights.read(name)?)?;
    }
    Ok(())
}
