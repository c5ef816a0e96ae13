// torch's own process groups behind a C interface: the store where processes meet, collective operations through Gloo or NCCL, and the reducer
// of DistributedDataParallel, which averages the gradients that backward has finished while it computes others.
//
// libtorch has all of it compiled in; its headers of Gloo's group name a few types of gloo, which gloo_declarations/ declares.

#define USE_DISTRIBUTED
#define USE_C10D_GLOO

#include "guarded.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <torch/version.h>

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

using StorePointer = c10::intrusive_ptr<c10d::Store>;
using BackendPointer = c10::intrusive_ptr<c10d::Backend>;
using std::chrono::milliseconds;

struct Group {
  StorePointer store;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  BackendPointer backend;
};

// Hears warnings and says nothing.
struct Unheard final : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

// Gradients that are sent at once, as in DistributedDataParallel.
constexpr int64_t BUCKET_BYTES = 25 << 20;

// Gloo has no way to give up: closing its connections ends what others wait for, at once.
struct GlooConnections : c10d::ProcessGroupGloo {
  static void close(c10d::ProcessGroupGloo& group) {
    for (auto& context : group.*(&GlooConnections::contexts_)) {
      context->closeConnections();
    }
  }
};

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t index = 0; index < count; index++) {
    // Gloo reduces memory from the first element on and knows no strides: of a tensor with gaps it would change other numbers.
    TORCH_CHECK(tensors[index]->is_non_overlapping_and_dense(), "a tensor with gaps in a collective operation");
    all.push_back(*tensors[index]);
  }
  return all;
}

void* symbol(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  TORCH_CHECK(found, "libtorch_cuda has no ", name, ": it is not loaded, or of another version");
  return found;
}

// Of this thread, by a function of c10's CUDA half, which libtorch_cuda brings along.
void set_current_device(int device) {
  reinterpret_cast<void (*)(c10::DeviceIndex, bool)>(symbol("_ZN3c104cuda10set_deviceEab"))(static_cast<c10::DeviceIndex>(device), false);
}

// NCCL's group without NCCL's and CUDA's headers, which users lack: its two constructors are exported by libtorch_cuda, and all else goes
// through the virtual functions of Backend. Memory is more than either object takes (0x480 and 0x100 bytes in 2.13).
BackendPointer nccl(const StorePointer& store, int rank, int size, milliseconds timeout, int device) {
  auto make_options = reinterpret_cast<void (*)(void*, bool)>(symbol("_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb"));
  using OptionsPointer = c10::intrusive_ptr<c10d::Backend::Options>;
  auto make_group = reinterpret_cast<void (*)(void*, StorePointer*, int, int, OptionsPointer*)>(
      symbol("_ZN4c10d16ProcessGroupNCCLC1EN3c1013intrusive_ptrINS_5StoreENS1_6detail34intrusive_target_default_null_typeIS3_EEEEii"
             "NS2_INS0_7OptionsENS5_IS8_EEEE"));
  constexpr size_t OPTIONS_BYTES = 4096, GROUP_BYTES = 16384;
  void* options_memory = ::operator new(OPTIONS_BYTES);
  std::memset(options_memory, 0, OPTIONS_BYTES);
  make_options(options_memory, false);
  auto options = OptionsPointer::unsafe_steal_from_new(static_cast<c10d::Backend::Options*>(options_memory));
  options->timeout = timeout;
  void* group_memory = ::operator new(GROUP_BYTES);
  std::memset(group_memory, 0, GROUP_BYTES);
  // Passed by reference behind the scenes, as the ABI has it for types with a destructor.
  StorePointer store_argument = store;
  OptionsPointer options_argument = options;
  try {
    make_group(group_memory, &store_argument, rank, size, &options_argument);
  } catch (...) {
    ::operator delete(group_memory);
    throw;
  }
  auto backend = BackendPointer::unsafe_steal_from_new(static_cast<c10d::Backend*>(group_memory));
  backend->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
  return backend;
}

} // namespace

// The store where processes meet. The server is the one that the others find at `host` and `port`; with port 0 it chooses one.
EXPORTED int restok_store_open(const char* host, uint16_t port, int is_server, int64_t timeout_ms, void** store) {
  return restok::guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server != 0;
    options.multiTenant = options.isServer;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    *store = StorePointer(c10::make_intrusive<c10d::TCPStore>(host, options)).release();
  });
}

EXPORTED uint16_t restok_store_port(void* store) {
  return static_cast<c10d::TCPStore*>(store)->getPort();
}

EXPORTED int restok_store_set(void* store, const char* key, const uint8_t* value, size_t bytes) {
  return restok::guarded([&] { static_cast<c10d::Store*>(store)->set(key, std::vector<uint8_t>(value, value + bytes)); });
}

// The key must be there. The result is freed by restok_bytes_free.
EXPORTED int restok_store_get(void* store, const char* key, void** value, const uint8_t** bytes, size_t* count) {
  return restok::guarded([&] {
    auto found = std::make_unique<std::vector<uint8_t>>(static_cast<c10d::Store*>(store)->get(key));
    *bytes = found->data();
    *count = found->size();
    *value = found.release();
  });
}

EXPORTED void restok_bytes_free(void* value) {
  delete static_cast<std::vector<uint8_t>*>(value);
}

EXPORTED int restok_store_has(void* store, const char* key, int* has) {
  return restok::guarded([&] { *has = static_cast<c10d::Store*>(store)->check({key}) ? 1 : 0; });
}

EXPORTED void restok_store_free(void* store) {
  StorePointer::reclaim(static_cast<c10d::Store*>(store));
}

// A group over the store, which it keeps a reference to: through NCCL on `cuda_device`, through Gloo where that is -1.
EXPORTED int restok_group_open(
    void* store, const char* prefix, int rank, int size, int64_t timeout_ms, int cuda_device, void** result) {
  return restok::guarded([&] {
    auto own = std::make_unique<Group>();
    auto base = StorePointer::unsafe_reclaim_from_nonowning(static_cast<c10d::Store*>(store));
    own->store = c10::make_intrusive<c10d::PrefixStore>(prefix, base);
    own->group = c10::make_intrusive<c10d::ProcessGroup>(own->store, rank, size);
    if (cuda_device >= 0) {
      own->backend = nccl(own->store, rank, size, milliseconds(timeout_ms), cuda_device);
      own->group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, own->backend);
      own->group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
    } else {
      auto options = c10d::ProcessGroupGloo::Options::create_default(milliseconds(timeout_ms));
      own->backend = c10::make_intrusive<c10d::ProcessGroupGloo>(own->store, rank, size, options);
      own->group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, own->backend);
      own->group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    }
    *result = own.release();
  });
}

// Makes a CUDA device the current one of this thread.
EXPORTED int restok_set_current_device(int cuda_device) {
  return restok::guarded([&] { set_current_device(cuda_device); });
}

EXPORTED void restok_group_free(void* group) {
  delete static_cast<Group*>(group);
}

// Gives up what is under way, so that other processes do not wait for this one.
EXPORTED int restok_group_abort(void* group) {
  return restok::guarded([&] {
    auto* backend = static_cast<Group*>(group)->backend.get();
    if (auto* gloo = dynamic_cast<c10d::ProcessGroupGloo*>(backend)) {
      GlooConnections::close(*gloo);
    } else {
      backend->abort();
    }
  });
}

// Sums, or the largest of each number, over all processes, in place.
EXPORTED int restok_group_all_reduce(void* group, at::Tensor* tensor, int largest) {
  return restok::guarded([&] {
    c10d::AllreduceOptions options;
    options.reduceOp = largest != 0 ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    auto tensors = list(&tensor, 1);
    static_cast<Group*>(group)->backend->allreduce(tensors, options)->wait();
  });
}

// Gives every process the tensors of `root`, in place.
EXPORTED int restok_group_broadcast(void* group, at::Tensor* const* tensors, size_t count, int root) {
  return restok::guarded([&] {
    c10d::broadcast_coalesced(static_cast<Group*>(group)->group, list(tensors, count), BUCKET_BYTES, root);
  });
}

// The reducer of gradients of `parameters`, the same on all processes in the order in which they are used. Which of them get no gradient in a
// step is read off the graph.
EXPORTED int restok_reducer_open(void* group, at::Tensor* const* parameters, size_t count, void** reducer) {
  return restok::guarded([&] {
    auto tensors = list(parameters, count);
    const std::vector<bool> sparse(count, false);
    const auto assigned = c10d::compute_bucket_assignment_by_size(tensors, {static_cast<size_t>(BUCKET_BYTES)}, sparse);
    auto buckets = std::get<0>(assigned);
    // Backward comes to the last layers first.
    std::reverse(buckets.begin(), buckets.end());
    const auto& own = static_cast<Group*>(group)->group;
    c10d::verify_params_across_processes(own, tensors, std::nullopt);
    auto made = std::make_shared<c10d::Reducer>(
        tensors,
        buckets,
        own,
        sparse,
        BUCKET_BYTES,
        /*find_unused_parameters=*/true,
        /*gradient_as_bucket_view=*/false,
        std::unordered_map<size_t, std::string>{},
        BUCKET_BYTES,
        /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false
#if TORCH_VERSION_MINOR >= 11
        ,
        std::vector<int64_t>{}
#endif
    );
    *reducer = new std::shared_ptr<c10d::Reducer>(std::move(made));
  });
}

// Before the backward whose gradients are averaged, those that earlier ones have added among them.
EXPORTED int restok_reducer_prepare(void* reducer, at::Tensor* loss) {
  return restok::guarded([&] {
    // That every parameter is used is no news for whoever trains, and every process would say it.
    Unheard unheard;
    const c10::WarningUtils::WarningHandlerGuard guard(&unheard);
    auto& own = **static_cast<std::shared_ptr<c10d::Reducer>*>(reducer);
    own.prepare_for_forward();
    own.rebuild_buckets();
    own.prepare_for_backward({*loss});
  });
}

EXPORTED void restok_reducer_free(void* reducer) {
  delete static_cast<std::shared_ptr<c10d::Reducer>*>(reducer);
}
