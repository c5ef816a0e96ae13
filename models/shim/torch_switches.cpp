// What this crate needs of libtorch and tch 0.26 does not offer, behind a C interface:
// the float32 precision switches, the CPU's instruction set, oneDNN's linear layer with its weight packed once, and memory for
// tensors on the CPU that is kept for the next tensor of the same size.
//
// Every function returns 0 and leaves its result in the last argument, or returns -1; restok_last_error() then says why.

#include "guarded.h"

#include <ATen/Context.h>
#include <ATen/Tensor.h>
#include <ATen/Version.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/CPUAllocator.h>
#include <torch/headeronly/version.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

// tch 0.26 is generated from the operators of 2.13; another version has other signatures behind the same names.
static_assert(
    TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 13,
    "restok needs libtorch 2.13: run `make setup`, or point LIBTORCH at an install of that version");

namespace {

// Keeps the memory of freed tensors and hands it to the next tensor of that size.
//
// glibc returns every block above 32 MiB to the system at once, and the activations of the convolutions are that large: the
// kernel then zeroes the same pages for every layer, an eighth of the time of an encoder. Batches have a fixed shape, so the
// sizes repeat exactly. What is kept never exceeds the largest sum of live tensors there has been.
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

 private:
  // In front of every block; its size keeps the data aligned for vector instructions.
  struct alignas(64) Header {
    size_t bytes;
  };
  static constexpr size_t kept_from = 256 << 10;
  static constexpr size_t huge_page = 2 << 20;

  std::mutex mutex;
  std::unordered_map<size_t, std::vector<void*>> kept;
  size_t kept_bytes = 0;
  size_t live_bytes = 0;
  size_t most_live_bytes = 0;

  void* take(size_t bytes) {
    size_t total = bytes + sizeof(Header);
    if (total < kept_from) {
      return fresh(total, alignof(Header));
    }
    total = (total + kept_from - 1) / kept_from * kept_from;
    {
      std::lock_guard<std::mutex> lock(mutex);
      live_bytes += total;
      most_live_bytes = std::max(most_live_bytes, live_bytes);
      auto& blocks = kept[total];
      if (!blocks.empty()) {
        void* data = blocks.back();
        blocks.pop_back();
        kept_bytes -= total;
        return data;
      }
    }
    void* data = fresh(total, total < huge_page ? alignof(Header) : huge_page);
    if (total >= huge_page) {
      madvise(header(data), total, MADV_HUGEPAGE);
    }
    return data;
  }

  static void* fresh(size_t total, size_t alignment) {
    void* block = nullptr;
    if (posix_memalign(&block, alignment, total) != 0) {
      TORCH_CHECK(false, "out of memory: can't allocate memory of ", total, " bytes for a tensor");
    }
    return new (block) Header{total} + 1;
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
    if (total >= kept_from) {
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

// Takes memory of CPU tensors from KeepingAllocator from here on. Tensors made before keep their own way of being freed.
EXPORTED int restok_keep_tensor_memory() {
  return restok::guarded([] { c10::SetCPUAllocator(&KeepingAllocator::instance(), /*priority=*/100); });
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
