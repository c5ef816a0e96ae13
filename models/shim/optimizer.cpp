// Operators over lists of tensors, which tch leaves out: one call for a whole model, no wait for the device in any of them.

#include "guarded.h"

#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>
#include <ATen/TensorOperators.h>

#include <optional>
#include <vector>

namespace {

std::vector<at::Tensor> list(const at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> result;
  result.reserve(count);
  for (size_t index = 0; index < count; ++index) {
    result.push_back(*tensors[index]);
  }
  return result;
}

} // namespace

// One step of AdamW. `step` counts from 1 and is one tensor for all; where `found_infinite` is given and not 0, nothing moves.
EXPORTED int restok_fused_adamw(
    const at::Tensor* const* parameters,
    const at::Tensor* const* gradients,
    const at::Tensor* const* first_moments,
    const at::Tensor* const* second_moments,
    size_t count,
    const at::Tensor* step,
    double learning_rate,
    double beta1,
    double beta2,
    double weight_decay,
    double epsilon,
    const at::Tensor* found_infinite) {
  return restok::guarded([&] {
    const std::vector<at::Tensor> steps(count, *step);
    at::_fused_adamw_(
        list(parameters, count),
        list(gradients, count),
        list(first_moments, count),
        list(second_moments, count),
        /*max_exp_avg_sqs=*/{},
        steps,
        learning_rate,
        beta1,
        beta2,
        weight_decay,
        epsilon,
        /*amsgrad=*/false,
        /*maximize=*/false,
        /*grad_scale=*/std::nullopt,
        found_infinite == nullptr ? std::nullopt : std::optional<at::Tensor>(*found_infinite));
  });
}

// Scales all gradients so that their norm together is at most `largest`; the norm they had is the result.
EXPORTED int restok_clip_gradients(const at::Tensor* const* gradients, size_t count, double largest, at::Tensor** norm) {
  return restok::guarded([&] {
    const auto tensors = list(gradients, count);
    const auto total = at::stack(at::_foreach_norm(tensors)).norm();
    at::_foreach_mul_(tensors, (largest / (total + 1e-6)).clamp_max(1.0));
    *norm = new at::Tensor(total);
  });
}

// average += weight (value - average), tensor by tensor.
EXPORTED int restok_lerp(
    const at::Tensor* const* averages, const at::Tensor* const* values, size_t count, double weight) {
  return restok::guarded([&] { at::_foreach_lerp_(list(averages, count), list(values, count), weight); });
}

// Divides gradients by the scale of the loss and sets `found_infinite` to 1 if any of them is no finite number.
EXPORTED int restok_unscale(
    const at::Tensor* const* gradients, size_t count, const at::Tensor* found_infinite, const at::Tensor* inverse_scale) {
  return restok::guarded([&] {
    at::Tensor found = *found_infinite;
    at::_amp_foreach_non_finite_check_and_unscale_(list(gradients, count), found, *inverse_scale);
  });
}

// Halves the scale after an overflow, doubles it after `interval` steps without.
EXPORTED int restok_update_scale(
    const at::Tensor* scale, const at::Tensor* steps_without, const at::Tensor* found_infinite, int64_t interval) {
  return restok::guarded([&] {
    at::Tensor changed = *scale;
    at::Tensor counted = *steps_without;
    at::_amp_update_scale_(changed, counted, *found_infinite, /*growth=*/2.0, /*backoff=*/0.5, interval);
  });
}
