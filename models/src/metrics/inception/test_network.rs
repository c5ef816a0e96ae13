//! The network with tensors that do not come from a file, and a look at its layers.

use super::{ExtractorPrecision, Inception, network::InceptionNetwork};
use crate::{Device, ModelError, TensorProblem, parameters::Parameters};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

impl Inception {
    /// Names and shapes of the tensors that the network asks for, sorted by name.
    pub(in crate::metrics) fn names() -> Vec<(String, Vec<i64>)> {
        let nothing = BTreeMap::new();
        let parameters = Parameters::from_memory(&nothing);
        InceptionNetwork::new(&parameters.root(tch::Device::Cpu, Kind::Float)).expect("built of zeros");
        let Err(ModelError::Tensors { problems, .. }) = parameters.finish(|_| false) else {
            panic!("no tensor is there");
        };
        let name = |problem| match problem {
            TensorProblem::Missing { name, expected } => (name, expected),
            other => panic!("{other}"),
        };
        problems.into_iter().map(name).collect()
    }

    pub(in crate::metrics) fn from_tensors(tensors: &BTreeMap<String, Tensor>, precision: ExtractorPrecision) -> Self {
        let parameters = Parameters::from_memory(tensors);
        let network = InceptionNetwork::new(&parameters.root(tch::Device::Cpu, precision.kind())).expect("built");
        parameters.finish(|_| false).expect("the tensors are those of the network");
        Self { network, device: Device::Cpu, precision, sha256: String::new() }
    }

    /// The resized images and the output of every layer, by name.
    pub(in crate::metrics) fn layers(&self, pixels: &Tensor) -> Vec<(&'static str, Tensor)> {
        let _no_grad = tch::no_grad_guard();
        let mut seen = Vec::new();
        self.network.forward(pixels, |name, output| seen.push((name, output.copy()))).expect("computed");
        seen
    }
}
