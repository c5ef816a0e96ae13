// What this crate needs of libtorch and tch does not offer, behind a C interface:
// the float32 precision switches, pinned memory, the CPU's instruction set, oneDNN's linear layer with its weight packed once, and memory for
// tensors on the CPU that is kept for the next tensor of the same size.
//
// Every function returns 0 and leaves its result in the last argument, or returns -1; restok_last_error() then says why.

#include "guarded.h"

#include <ATen/Context.h>
#include <ATen/Tensor.h>
#include <ATen/Version.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/CPUAllocator.h>
#include <torch/version.h>

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

// A release of tch is generated from the operators of one version; another has other signatures behind the same names.
static_assert(
    RESTOK_TORCH_VERSIONS,
    "this libtorch is not one that the tch in Cargo.lock is made for: build with `make`, or with tools/cargo.sh in the place of cargo");

// One of the few functions that every libtorch has under one name and signature.
extern "C" std::uint64_t aoti_torch_abi_version();

namespace {

// Keeps the memory of freed tensors and hands it to the next tensor of that size.
//
// glibc returns every block above 32 MiB to the system at once, and the activations of the convolutions are that large: the
// kernel then zeroes the same pages for every layer, an eighth of the time of an encoder. Batches have a fixed shape, so the
// sizes repeat exactly. What is kept never exceeds the largest sum of live tensors there has been.
//
// It stands in its place before anything allocates, and only whether it keeps is switched. oneDNN's buffers are freed through the
// allocator that is in place then, whichever they are from: put in later, this one would take what lies in front of a foreign block
// for its own header.
class KeepingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = take(bytes);
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  // Never destroyed: tensors in static variables may outlive everything else.
  static KeepingAllocator& instance() {
    static auto* allocator = new KeepingAllocator();
    return *allocator;
  }

  void keep() {
    keeping = true;
  }

  size_t live() {
    std::lock_guard<std::mutex> lock(mutex);
    return live_bytes;
  }

  // Most live bytes since the last call.
  size_t take_peak() {
    std::lock_guard<std::mutex> lock(mutex);
    return std::exchange(peak_bytes, live_bytes);
  }

 private:
  // In front of every block; its size keeps the data aligned for vector instructions.
  struct alignas(64) Header {
    size_t bytes;
    // Whether it counts as live memory: it is large, and was made since memory is kept.
    bool counted;
  };
  static constexpr size_t kept_from = 256 << 10;
  static constexpr size_t huge_page = 2 << 20;

  std::atomic<bool> keeping{false};
  std::mutex mutex;
  std::unordered_map<size_t, std::vector<void*>> kept;
  size_t kept_bytes = 0;
  size_t live_bytes = 0;
  size_t most_live_bytes = 0;
  size_t peak_bytes = 0;

  void* take(size_t bytes) {
    size_t total = bytes + sizeof(Header);
    if (total < kept_from || !keeping) {
      return fresh(total, alignof(Header), /*counted=*/false);
    }
    total = (total + kept_from - 1) / kept_from * kept_from;
    {
      std::lock_guard<std::mutex> lock(mutex);
      live_bytes += total;
      most_live_bytes = std::max(most_live_bytes, live_bytes);
      peak_bytes = std::max(peak_bytes, live_bytes);
      auto& blocks = kept[total];
      if (!blocks.empty()) {
        void* data = blocks.back();
        blocks.pop_back();
        kept_bytes -= total;
        return data;
      }
    }
    void* data = fresh(total, total < huge_page ? alignof(Header) : huge_page, /*counted=*/true);
    if (total >= huge_page) {
      madvise(header(data), total, MADV_HUGEPAGE);
    }
    return data;
  }

  static void* fresh(size_t total, size_t alignment, bool counted) {
    void* block = nullptr;
    if (posix_memalign(&block, alignment, total) != 0) {
      TORCH_CHECK(false, "out of memory: can't allocate memory of ", total, " bytes for a tensor");
    }
    return new (block) Header{total, counted} + 1;
  }

  static Header* header(void* data) {
    return static_cast<Header*>(data) - 1;
  }

  static void release(void* data) {
    if (data == nullptr) {
      return;
    }
    const size_t total = header(data)->bytes;
    auto& self = instance();
    if (header(data)->counted) {
      std::lock_guard<std::mutex> lock(self.mutex);
      self.live_bytes -= total;
      if (self.kept_bytes + total <= self.most_live_bytes) {
        self.kept[total].push_back(data);
        self.kept_bytes += total;
        return;
      }
    }
    free(header(data));
  }
};

[[maybe_unused]] const bool in_place = [] {
  c10::SetCPUAllocator(&KeepingAllocator::instance(), /*priority=*/100);
  return true;
}();

// These two operators are what torch's own compiler emits for a linear layer on a CPU. They are called by name through the
// dispatcher, because no header declares them.
at::Tensor call(const char* name, std::vector<c10::IValue> arguments) {
  auto operation = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  operation.callBoxed(arguments);
  return arguments.at(0).toTensor();
}

} // namespace

thread_local std::string restok::last_error;

EXPORTED const char* restok_last_error() {
  return restok::last_error.c_str();
}

EXPORTED const char* restok_torch_version() {
  return TORCH_VERSION;
}

// Major and minor version of the libtorch that the process runs over, as torch packs them: 2.13 is 0x020d.
EXPORTED unsigned restok_loaded_version() {
  return static_cast<unsigned>(aoti_torch_abi_version() >> 48);
}

// The same of the libtorch that this was compiled against.
EXPORTED unsigned restok_compiled_version() {
  return TORCH_VERSION_MAJOR << 8 | TORCH_VERSION_MINOR;
}

// "DEFAULT", "AVX2", "AVX512", …: static for the life of the process.
EXPORTED const char* restok_cpu_capability() {
  static const std::string capability = at::get_cpu_capability();
  return capability.c_str();
}

// float32 products and convolutions on CUDA: truly float32, or through TensorFloat-32.
EXPORTED int restok_allow_tf32(int allowed) {
  return restok::guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(allowed != 0);
    at::globalContext().setAllowTF32CuDNN(allowed != 0);
  });
}

// Keeps the memory of CPU tensors that are made from here on.
EXPORTED int restok_keep_tensor_memory() {
  return restok::guarded([] { KeepingAllocator::instance().keep(); });
}

// Bytes of large tensors on the processor now, and the most of them at a time since the last call.
EXPORTED uint64_t restok_live_tensor_bytes() {
  return KeepingAllocator::instance().live();
}

EXPORTED uint64_t restok_take_tensor_memory_peak() {
  return KeepingAllocator::instance().take_peak();
}

// A copy in pinned memory. tch's call names a device, which torch deprecates with two lines on stderr a call.
EXPORTED int restok_pinned(const at::Tensor* tensor, at::Tensor** pinned) {
  return restok::guarded([&] { *pinned = new at::Tensor(tensor->pin_memory()); });
}

// [out, in] in the layout that oneDNN likes best on this CPU. Fails where oneDNN has no fast kernel for the type.
EXPORTED int restok_pack_linear(const at::Tensor* weight, at::Tensor** packed) {
  return restok::guarded([&] {
    *packed = new at::Tensor(call("mkldnn::_reorder_linear_weight", {*weight, c10::IValue()}));
  });
}

// x W^T + b, and GELU (by erf) of it where asked for.
EXPORTED int restok_packed_linear(
    const at::Tensor* input, const at::Tensor* packed, const at::Tensor* bias, int gelu, at::Tensor** output) {
  return restok::guarded([&] {
    c10::impl::GenericList scalars(c10::OptionalType::create(c10::NumberType::get()));
    std::vector<c10::IValue> arguments;
    arguments.emplace_back(*input);
    arguments.emplace_back(*packed);
    arguments.emplace_back(bias == nullptr ? c10::IValue() : c10::IValue(*bias));
    arguments.emplace_back(std::string(gelu != 0 ? "gelu" : "none"));
    arguments.emplace_back(scalars);
    arguments.emplace_back(std::string("none"));
    *output = new at::Tensor(call("mkldnn::_linear_pointwise", std::move(arguments)));
  });
}
