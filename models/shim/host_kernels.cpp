// The kernels of src/kernels/normalization.cu on a processor, for the tests: what the words of CUDA mean there, and a launch.
//
// The threads of a block are coroutines that run one at a time, each until it waits for its warp or its block. Which of them goes first is the
// caller's choice, so that a barrier that is missing shows as another result in another order, at every run and not only by chance;
// threads of the system would show it seldom. Blocks run one after another. Nothing of this is linked into a program that does not call it.

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace {

struct Index {
  int x, y;
};

Index threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

struct alignas(8) uint2 {
  unsigned x, y;
};

uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}

int min(int left, int right) {
  return left < right ? left : right;
}

unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float fast_exponential2(float value) {
  return std::exp2(value);
}

float fast_reciprocal(float value) {
  return 1.0f / value;
}

float float16_value(unsigned bits) {
  const unsigned sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, digits = bits & 0x3ffu;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(digits), -24);
    return sign != 0 ? -value : value;
  }
  return __uint_as_float(sign | (exponent == 0x1f ? 0x7f800000u : (exponent + 112) << 23) | digits << 13);
}

// To the nearest, ties to even, as cvt.rn does.
unsigned float16_bits(float value) {
  const unsigned bits = __float_as_uint(value), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) {
    return 0x7fffu;
  }
  if (size >= 0x47800000u) { // 65536
    return sign | 0x7c00u;
  }
  if (size < 0x38800000u) { // below 2^-14: steps of 2^-24
    return sign | static_cast<unsigned>(std::nearbyint(std::ldexp(__uint_as_float(size), 24)));
  }
  // A carry out of the digits is one into the exponent, up to infinity.
  return sign | ((size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13);
}

// --- a block -----------------------------------------------------------------------------------------------------------------------------

enum Order { FORWARDS = 0, BACKWARDS = 1 };

// What a thread does when it stops running.
enum State : char { WAITS_FOR_WARP, WAITS_FOR_BLOCK, ENDED };

constexpr int MOST_THREADS = 256;
constexpr int WARP = 32;
constexpr std::size_t STACK = 64 << 10;

struct Block {
  ucontext_t scheduler;
  std::vector<ucontext_t> threads;
  std::vector<State> states;
  std::unique_ptr<char[]> stacks;
  void (*body)(void**);
  void** arguments;
};

Block* running;
// What each thread offers the others of its warp in a shuffle.
float offered[MOST_THREADS];

void stop(State state) {
  const int self = threadIdx.x;
  running->states[self] = state;
  swapcontext(&running->threads[self], &running->scheduler);
}

void __syncthreads() {
  stop(WAITS_FOR_BLOCK);
}

float __shfl_xor_sync(unsigned, float value, int distance) {
  const int self = threadIdx.x;
  offered[self] = value;
  stop(WAITS_FOR_WARP);
  const float taken = offered[self ^ distance];
  stop(WAITS_FOR_WARP);
  return taken;
}

void run_thread() {
  running->body(running->arguments);
  stop(ENDED);
}

// Runs the threads of a warp until they wait for the block or have ended: all of them the same, or `alike` becomes false. As on a GPU, nothing
// holds a warp back but a barrier of the block.
State run_warp(Block& block, int first, int count, Order order, bool& alike) {
  State state = WAITS_FOR_WARP;
  while (state == WAITS_FOR_WARP && alike) {
    for (int step = 0; step < count; ++step) {
      const int self = first + (order == FORWARDS ? step : count - 1 - step);
      threadIdx = {self, 0};
      swapcontext(&block.scheduler, &block.threads[self]);
      alike = alike && (step == 0 || block.states[self] == state);
      state = block.states[self];
    }
  }
  return state;
}

// False when some threads of the block ended, or waited, where others did not.
bool run_block(Block& block, Order order) {
  const int count = blockDim.x, warps = (count + WARP - 1) / WARP;
  for (int thread = 0; thread < count; ++thread) {
    auto& context = block.threads[thread];
    getcontext(&context);
    context.uc_stack.ss_sp = block.stacks.get() + STACK * thread;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, run_thread, 0);
  }
  running = &block;
  bool alike = true;
  State state = WAITS_FOR_BLOCK;
  while (state == WAITS_FOR_BLOCK && alike) {
    for (int step = 0; step < warps && alike; ++step) {
      const int first = WARP * (order == FORWARDS ? step : warps - 1 - step);
      const State reached = run_warp(block, first, min(WARP, count - first), order, alike);
      alike = alike && (step == 0 || reached == state);
      state = reached;
    }
  }
  return alike;
}

#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __shared__ static

#include "../src/kernels/normalization.cu"

// Arguments as cuLaunchKernel takes them: a pointer to each.
template <typename T>
T take(void** arguments, int index) {
  return *static_cast<T*>(arguments[index]);
}

template <typename T>
void run_statistics(void** arguments) {
  group_norm_statistics<T>(
      take<const uint4*>(arguments, 0),
      take<Moments*>(arguments, 1),
      take<int>(arguments, 2),
      take<int>(arguments, 3),
      take<int>(arguments, 4));
}

template <typename T>
void run_group_norm_silu(void** arguments) {
  group_norm_silu<T>(
      take<const uint4*>(arguments, 0),
      take<const Moments*>(arguments, 1),
      take<const T*>(arguments, 2),
      take<const T*>(arguments, 3),
      take<uint4*>(arguments, 4),
      take<int>(arguments, 5),
      take<int>(arguments, 6),
      take<int>(arguments, 7),
      take<float>(arguments, 8));
}

template <typename T, int LANES, int VECTORS, bool CENTRED>
void run_row_norm(void** arguments) {
  row_norm<T, LANES, VECTORS, CENTRED>(
      take<const uint4*>(arguments, 0),
      take<const uint4*>(arguments, 1),
      take<const uint4*>(arguments, 2),
      take<unsigned char*>(arguments, 3),
      take<long long>(arguments, 4),
      take<int>(arguments, 5),
      take<float>(arguments, 6));
}

using Body = void (*)(void**);

template <typename T, bool CENTRED>
Body row_norm_of(int lanes, int vectors) {
  switch (lanes * 100 + vectors) {
    case 1601: return run_row_norm<T, 16, 1, CENTRED>;
    case 3201: return run_row_norm<T, 32, 1, CENTRED>;
    case 3202: return run_row_norm<T, 32, 2, CENTRED>;
    case 3204: return run_row_norm<T, 32, 4, CENTRED>;
    case 3208: return run_row_norm<T, 32, 8, CENTRED>;
    case 12804: return run_row_norm<T, 128, 4, CENTRED>;
    case 12808: return run_row_norm<T, 128, 8, CENTRED>;
    default: return nullptr;
  }
}

enum Kernel { STATISTICS = 0, GROUP_NORM_SILU = 1, ROW_NORM = 2 };

template <typename T>
Body body_of(int kernel, int lanes, int vectors, bool centred) {
  switch (kernel) {
    case STATISTICS: return run_statistics<T>;
    case GROUP_NORM_SILU: return run_group_norm_silu<T>;
    case ROW_NORM: return centred ? row_norm_of<T, true>(lanes, vectors) : row_norm_of<T, false>(lanes, vectors);
    default: return nullptr;
  }
}

} // namespace

// One launch. `bits` is 32 for float32, 16 for bfloat16 and -16 for float16. Returns 0; -1 for a kernel that is not there, -2 when the threads
// of a block did not all reach the same barriers. One at a time in a process.
extern "C" __attribute__((visibility("hidden"))) int restok_host_launch(
    int kernel,
    int bits,
    int lanes,
    int vectors,
    int centred,
    int grid_x,
    int grid_y,
    int threads,
    int backwards,
    void** arguments) {
  Body body = nullptr;
  switch (bits) {
    case 32: body = body_of<float>(kernel, lanes, vectors, centred != 0); break;
    case 16: body = body_of<Bfloat16>(kernel, lanes, vectors, centred != 0); break;
    case -16: body = body_of<Float16>(kernel, lanes, vectors, centred != 0); break;
    default: break;
  }
  if (body == nullptr || threads < 1 || threads > MOST_THREADS) {
    return -1;
  }
  Block block;
  block.threads.resize(threads);
  block.states.resize(threads);
  block.stacks = std::make_unique<char[]>(STACK * threads);
  block.body = body;
  block.arguments = arguments;
  gridDim = {grid_x, grid_y};
  blockDim = {threads, 1};
  for (int y = 0; y < grid_y; ++y) {
    for (int x = 0; x < grid_x; ++x) {
      blockIdx = {x, y};
      if (!run_block(block, backwards != 0 ? BACKWARDS : FORWARDS)) {
        return -2;
      }
    }
  }
  return 0;
}

// The bits that a kernel writes for a number; `bits` as above.
extern "C" __attribute__((visibility("hidden"))) unsigned restok_host_round(int bits, float value) {
  return bits == 16 ? bfloat16_bits(value) : bits == -16 ? float16_bits(value) : __float_as_uint(value);
}

extern "C" __attribute__((visibility("hidden"))) float restok_host_float16_value(unsigned bits) {
  return float16_value(bits);
}
