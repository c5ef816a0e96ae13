// For measuring: torch's own profiler without Python, and the peaks of the caching allocator. Nothing here runs in a job.

#include "guarded.h"

#include <ATen/DeviceAccelerator.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Sum {
  uint64_t nanoseconds = 0;
  uint64_t calls = 0;
};

using Sums = std::map<std::string, Sum>;

struct Span {
  uint64_t start;
  uint64_t end;
  std::string name;
};

// Time of each operator without that of the operators it calls: the spans of one thread are nested.
void add_own_times(std::vector<Span>& spans, Sums& sums) {
  std::sort(spans.begin(), spans.end(), [](const Span& left, const Span& right) {
    return left.start != right.start ? left.start < right.start : left.end > right.end;
  });
  std::vector<const Span*> open;
  for (const auto& span : spans) {
    while (!open.empty() && open.back()->end <= span.start) {
      open.pop_back();
    }
    const uint64_t length = span.end - span.start;
    auto& own = sums[span.name];
    own.nanoseconds += length;
    own.calls += 1;
    if (!open.empty()) {
      auto& outer = sums[open.back()->name].nanoseconds;
      outer -= std::min(outer, length);
    }
    open.push_back(&span);
  }
}

// Time in which at least one of the spans ran: streams may overlap.
uint64_t covered(std::vector<std::pair<uint64_t, uint64_t>>& spans) {
  std::sort(spans.begin(), spans.end());
  uint64_t sum = 0;
  uint64_t until = 0;
  for (const auto& [start, end] : spans) {
    const uint64_t from = std::max(start, until);
    if (end > from) {
      sum += end - from;
      until = end;
    }
  }
  return sum;
}

} // namespace

// Events of the processor, and those of a CUDA device where `cuda` is not 0.
EXPORTED int restok_profile_start(int cuda) {
  return restok::guarded([&] {
    namespace impl = torch::profiler::impl;
    std::set<impl::ActivityType> activities{impl::ActivityType::CPU};
    if (cuda != 0) {
      activities.insert(impl::ActivityType::CUDA);
    }
    const impl::ProfilerConfig config(impl::ProfilerState::KINETO);
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(
        config, activities, {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION});
  });
}

// Ends it. `row` is called once for each kernel (`on_device` 1) and operator (0) with its name, nanoseconds and calls; the name lives
// until it returns. `busy` and `whole`: nanoseconds in which a kernel ran, and those from the first kernel's start to the last one's end.
// Writes Chrome's trace format to `trace` unless it is null.
EXPORTED int restok_profile_stop(
    const char* trace,
    void* context,
    void (*row)(void* context, int on_device, const char* name, uint64_t nanoseconds, uint64_t calls),
    uint64_t* busy,
    uint64_t* whole) {
  return restok::guarded([&] {
    const auto result = torch::autograd::profiler::disableProfiler();
    Sums kernels;
    std::map<uint64_t, std::vector<Span>> operators;
    std::vector<std::pair<uint64_t, uint64_t>> spans;
    for (const auto& event : result->events()) {
      const uint64_t start = event.startNs();
      const uint64_t length = event.durationNs();
      if (event.deviceType() == c10::DeviceType::CPU) {
        operators[event.startThreadId()].push_back({start, start + length, event.name()});
        continue;
      }
      auto& sum = kernels[event.name()];
      sum.nanoseconds += length;
      sum.calls += 1;
      spans.emplace_back(start, start + length);
    }
    Sums own;
    for (auto& [thread, calls] : operators) {
      add_own_times(calls, own);
    }
    *busy = covered(spans);
    uint64_t last = 0;
    for (const auto& span : spans) {
      last = std::max(last, span.second);
    }
    *whole = spans.empty() ? 0 : last - spans.front().first;
    for (const auto& [name, sum] : kernels) {
      row(context, 1, name.c_str(), sum.nanoseconds, sum.calls);
    }
    for (const auto& [name, sum] : own) {
      row(context, 0, name.c_str(), sum.nanoseconds, sum.calls);
    }
    if (trace != nullptr) {
      result->save(trace);
    }
  });
}

// Most bytes of tensors, and most bytes that the allocator held for them, on a CUDA device since the last call; what is not in use is
// given back first, so that the next peak is the next work's own.
EXPORTED int restok_memory_peaks(int device, int64_t* allocated, int64_t* reserved) {
  return restok::guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    const auto stats = at::accelerator::getDeviceStats(index);
    *allocated = stats.allocated_bytes[0].peak;
    *reserved = stats.reserved_bytes[0].peak;
    at::accelerator::emptyCache();
    at::accelerator::resetPeakStats(index);
  });
}
