//! Keys and values of the positions that were sampled already.

use crate::ModelError;
use std::cell::Cell;
use tch::{Device, Kind, Tensor};

/// The memory of one batch, allocated once for its shape and written over by the next batch of that shape.
#[derive(Debug)]
pub(super) struct KvCache {
    /// `[layers, 2, B, H, N, D]`: keys and values.
    memory: Tensor,
    layers: Vec<LayerCache>,
}

/// The part of one block.
#[derive(Debug)]
pub(super) struct LayerCache {
    /// `[B, H, N, D]`.
    keys: Tensor,
    values: Tensor,
    filled: Cell<i64>,
}

impl KvCache {
    /// For `[layers, batch, heads, positions, channels of a head]`.
    pub(super) fn new(
        [layers, batch, heads, positions, channels]: [i64; 5],
        kind: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        let memory = Tensor::f_empty([layers, 2, batch, heads, positions, channels], (kind, device))?;
        let mut cache = Self { memory, layers: Vec::new() };
        cache.restart(batch)?;
        Ok(cache)
    }

    /// Samples that fit.
    pub(super) fn samples(&self) -> i64 {
        self.memory.size().get(2).copied().unwrap_or(0)
    }

    /// Empties the cache, for `samples` samples from here on.
    pub(super) fn restart(&mut self, samples: i64) -> Result<(), ModelError> {
        self.view(samples, 0)
    }

    /// Forgets all but the first `samples` samples. Nothing is copied.
    pub(super) fn keep_first(&mut self, samples: i64) -> Result<(), ModelError> {
        self.view(samples, self.layers.first().map_or(0, |layer| layer.filled.get()))
    }

    fn view(&mut self, samples: i64, filled: i64) -> Result<(), ModelError> {
        let layers = self.memory.size().first().copied().unwrap_or(0);
        let part = |layer: i64, which: i64| self.memory.f_select(0, layer)?.f_select(0, which)?.f_narrow(0, 0, samples);
        let views = (0..layers).map(|layer| -> Result<_, ModelError> {
            Ok(LayerCache { keys: part(layer, 0)?, values: part(layer, 1)?, filled: Cell::new(filled) })
        });
        self.layers = views.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The part of block `layer`.
    pub(super) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }
}

impl LayerCache {
    /// Adds keys and values of the next positions, `[B, H, n, D]`; returns those of all positions so far.
    pub(super) fn extend(&self, key: &Tensor, value: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
        let (_, _, tokens, _) = key.size4()?;
        let (start, end) = (self.filled.get(), self.filled.get() + tokens);
        self.keys.f_narrow(2, start, tokens)?.f_copy_(key)?;
        self.values.f_narrow(2, start, tokens)?.f_copy_(value)?;
        self.filled.set(end);
        Ok((self.keys.f_narrow(2, 0, end)?, self.values.f_narrow(2, 0, end)?))
    }
}
