// Group norm with SiLU over channels-last images, and layer norm and RMS norm over rows of float32.
//
// One source for two compilers. NVRTC compiles it for a GPU, with no header at all: macros name the kinds and sizes of the one program that is
// wanted, at the end of the file. A C++ compiler compiles it for the tests, through shim/host_kernels.cpp, which says what threadIdx,
// __shared__, __syncthreads() and the other words of CUDA are there.
//
// Every sum is taken in float32 and in an order that follows from the shape of one image, or the width of one row: no atomic operations, so
// that equal inputs give equal bits, whatever the batch.

// --- kinds -------------------------------------------------------------------------------------------------------------------------------

// Kinds of 16 bits, as their bits: the headers that have them as numbers need not be there at run time.
struct Bfloat16 {
  unsigned short bits;
};

struct Float16 {
  unsigned short bits;
};

__device__ __forceinline__ unsigned bfloat16_bits(float value) {
  const unsigned bits = __float_as_uint(value);
  // To the nearest, ties to even. A NaN stays one: rounding might carry its digits over into an infinity.
  const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded;
}

#ifdef __CUDACC_RTC__
__device__ __forceinline__ float float16_value(unsigned bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<unsigned short>(bits)));
  return value;
}

__device__ __forceinline__ unsigned float16_bits(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

// One instruction each, good to 2 units in the last place; numbers below the normal ones count as 0.
__device__ __forceinline__ float fast_exponential2(float value) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(value));
  return power;
}

__device__ __forceinline__ float fast_reciprocal(float value) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(value));
  return reciprocal;
}
#endif

// Reads and writes of one kind. A thread moves 16 bytes at a time.
template <typename T>
struct Kind;

template <>
struct Kind<float> {
  static constexpr int width = 4;
  // Whether the kind shows more digits than the fast exponential and division have.
  static constexpr bool exact = true;

  static __device__ __forceinline__ void unpack(const uint4& pack, float (&values)[4]) {
    values[0] = __uint_as_float(pack.x);
    values[1] = __uint_as_float(pack.y);
    values[2] = __uint_as_float(pack.z);
    values[3] = __uint_as_float(pack.w);
  }

  static __device__ __forceinline__ uint4 pack(const float (&values)[4]) {
    return make_uint4(
        __float_as_uint(values[0]), __float_as_uint(values[1]), __float_as_uint(values[2]), __float_as_uint(values[3]));
  }

  static __device__ __forceinline__ float value(float stored) {
    return stored;
  }

  // Four neighbours, the `at`-th four of a row.
  static __device__ __forceinline__ void write_four(void* row, int at, const float (&values)[4]) {
    static_cast<uint4*>(row)[at] = pack(values);
  }
};

template <>
struct Kind<Bfloat16> {
  static constexpr int width = 8;
  static constexpr bool exact = false;

  static __device__ __forceinline__ void unpack_two(unsigned pair, float& first, float& second) {
    first = __uint_as_float(pair << 16);
    second = __uint_as_float(pair & 0xffff0000u);
  }

  static __device__ __forceinline__ unsigned pack_two(float first, float second) {
    return bfloat16_bits(first) | bfloat16_bits(second) << 16;
  }

  static __device__ __forceinline__ float value(Bfloat16 stored) {
    return __uint_as_float(static_cast<unsigned>(stored.bits) << 16);
  }

  static __device__ __forceinline__ void unpack(const uint4& pack, float (&values)[8]) {
    unpack_two(pack.x, values[0], values[1]);
    unpack_two(pack.y, values[2], values[3]);
    unpack_two(pack.z, values[4], values[5]);
    unpack_two(pack.w, values[6], values[7]);
  }

  static __device__ __forceinline__ uint4 pack(const float (&values)[8]) {
    return make_uint4(
        pack_two(values[0], values[1]),
        pack_two(values[2], values[3]),
        pack_two(values[4], values[5]),
        pack_two(values[6], values[7]));
  }

  static __device__ __forceinline__ void write_four(void* row, int at, const float (&values)[4]) {
    static_cast<uint2*>(row)[at] = make_uint2(pack_two(values[0], values[1]), pack_two(values[2], values[3]));
  }
};

template <>
struct Kind<Float16> {
  static constexpr int width = 8;
  static constexpr bool exact = false;

  static __device__ __forceinline__ void unpack_two(unsigned pair, float& first, float& second) {
    first = float16_value(pair & 0xffffu);
    second = float16_value(pair >> 16);
  }

  static __device__ __forceinline__ unsigned pack_two(float first, float second) {
    return float16_bits(first) | float16_bits(second) << 16;
  }

  static __device__ __forceinline__ float value(Float16 stored) {
    return float16_value(stored.bits);
  }

  static __device__ __forceinline__ void unpack(const uint4& pack, float (&values)[8]) {
    unpack_two(pack.x, values[0], values[1]);
    unpack_two(pack.y, values[2], values[3]);
    unpack_two(pack.z, values[4], values[5]);
    unpack_two(pack.w, values[6], values[7]);
  }

  static __device__ __forceinline__ uint4 pack(const float (&values)[8]) {
    return make_uint4(
        pack_two(values[0], values[1]),
        pack_two(values[2], values[3]),
        pack_two(values[4], values[5]),
        pack_two(values[6], values[7]));
  }

  static __device__ __forceinline__ void write_four(void* row, int at, const float (&values)[4]) {
    static_cast<uint2*>(row)[at] = make_uint2(pack_two(values[0], values[1]), pack_two(values[2], values[3]));
  }
};

template <bool EXACT>
__device__ __forceinline__ float silu(float value) {
  if (EXACT) {
    return value / (1.0f + expf(-value));
  }
  constexpr float LOG2_E = 1.44269504f;
  return value * fast_reciprocal(1.0f + fast_exponential2(-LOG2_E * value));
}

// --- group norm and SiLU -----------------------------------------------------------------------------------------------------------------

// An image is [pixels, channels] in memory. It is cut into chunks of whole pixels, and a block takes one chunk: blockIdx.x of the image
// blockIdx.y. A thread keeps to the same 16 bytes of channels, its lane, and takes every `rows`-th pixel. blockDim.x is lanes times rows,
// at most 256, and at least 129 wherever a row is no longer than that (models/src/kernels/launch.rs).

constexpr int GROUPS = 32;
constexpr int GROUP_NORM_THREADS = 256;
// Loads that a thread has under way at a time.
[[maybe_unused]] constexpr int LOADS = 4;

// A part of a group: the mean of its numbers, and the sum of the squares of their distances from it.
struct alignas(8) Moments {
  float mean;
  float squares;
};

// The sum over all threads with the same threadIdx.x % 32, for each of the 32, given to all of these threads.
__device__ __forceinline__ float sum_over_slots(float value, float (&sums)[GROUP_NORM_THREADS]) {
  const int slots = blockDim.x / GROUPS;
  __syncthreads(); // the sums of the last call have been read
  sums[threadIdx.x] = value;
  __syncthreads();
  float sum = 0.0f;
  for (int slot = 0; slot < slots; ++slot) {
    sum += sums[slot * GROUPS + threadIdx.x % GROUPS];
  }
  return sum;
}

__device__ __forceinline__ int numbers_in_row(int row, int rows, int pixels) {
  return pixels > row ? (pixels - row - 1) / rows + 1 : 0;
}

// Moments of every group in every chunk: `moments` is [images, chunks, 32].
template <typename T>
__device__ __forceinline__ void group_norm_statistics(
    const uint4* __restrict__ input, Moments* __restrict__ moments, int pixels, int channels, int chunk_pixels) {
  constexpr int WIDTH = Kind<T>::width;
  __shared__ float means[GROUP_NORM_THREADS * WIDTH]; // [rows, channels]
  __shared__ float squares[GROUP_NORM_THREADS * WIDTH];
  __shared__ float sums[GROUP_NORM_THREADS];

  const int lanes = channels / WIDTH;
  const int rows = blockDim.x / lanes;
  const int lane = threadIdx.x % lanes;
  const int row = threadIdx.x / lanes;
  const int first = blockIdx.x * chunk_pixels;
  const int end = min(first + chunk_pixels, pixels);
  const uint4* image = input + static_cast<long long>(blockIdx.y) * pixels * lanes + lane;

  // Welford's recurrence for each channel of the lane.
  float mean[WIDTH] = {};
  float square[WIDTH] = {};
  float count = 0.0f;
  for (int pixel = first + row; pixel < end; pixel += LOADS * rows) {
    uint4 packs[LOADS] = {};
#pragma unroll
    for (int load = 0; load < LOADS; ++load) {
      const int at = pixel + load * rows;
      if (at < end) {
        packs[load] = image[static_cast<long long>(at) * lanes];
      }
    }
#pragma unroll
    for (int load = 0; load < LOADS; ++load) {
      if (pixel + load * rows < end) {
        float values[WIDTH];
        Kind<T>::unpack(packs[load], values);
        count += 1.0f;
        // One step of Newton's makes the last digit right.
        const float first_share = fast_reciprocal(count);
        const float share = fmaf(fmaf(-count, first_share, 1.0f), first_share, first_share);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) {
          const float distance = values[i] - mean[i];
          mean[i] += distance * share;
          square[i] += distance * (values[i] - mean[i]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) {
    means[threadIdx.x * WIDTH + i] = mean[i];
    squares[threadIdx.x * WIDTH + i] = square[i];
  }
  __syncthreads();

  // One group's numbers lie in rows x group_channels places, which a warp's worth of threads share out: first the mean over all of them,
  // then the squares about it.
  const int group_channels = channels / GROUPS;
  const int group = threadIdx.x % GROUPS;
  const int slots = blockDim.x / GROUPS;
  const int slot = threadIdx.x / GROUPS;
  const int places = slot < slots ? rows * group_channels : 0;
  float sum = 0.0f;
  for (int place = slot; place < places; place += slots) {
    const int from_row = place / group_channels;
    const int at = from_row * channels + group * group_channels + place % group_channels;
    sum += static_cast<float>(numbers_in_row(from_row, rows, end - first)) * means[at];
  }
  const float group_mean = sum_over_slots(sum, sums) / (static_cast<float>(end - first) * static_cast<float>(group_channels));
  sum = 0.0f;
  for (int place = slot; place < places; place += slots) {
    const int from_row = place / group_channels;
    const int at = from_row * channels + group * group_channels + place % group_channels;
    const float distance = means[at] - group_mean;
    sum += squares[at] + static_cast<float>(numbers_in_row(from_row, rows, end - first)) * distance * distance;
  }
  const float group_squares = sum_over_slots(sum, sums);
  if (threadIdx.x < GROUPS) {
    const long long chunk = static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x;
    moments[chunk * GROUPS + threadIdx.x] = Moments{group_mean, group_squares};
  }
}

// The norm, its weight and bias, and SiLU, from the moments of all chunks.
//
// Images and chunks are taken from the last to the first, because the last ones are those that the statistics have left in the L2 cache.
template <typename T>
__device__ __forceinline__ void group_norm_silu(
    const uint4* __restrict__ input,
    const Moments* __restrict__ moments,
    const T* __restrict__ weight,
    const T* __restrict__ bias,
    uint4* __restrict__ output,
    int pixels,
    int channels,
    int chunk_pixels,
    float epsilon) {
  constexpr int WIDTH = Kind<T>::width;
  __shared__ float sums[GROUP_NORM_THREADS];
  __shared__ float group_means[GROUPS];
  __shared__ float group_scales[GROUPS];

  const int chunks = gridDim.x;
  const int chunk = chunks - 1 - blockIdx.x;
  const int image = gridDim.y - 1 - blockIdx.y;
  const int group_channels = channels / GROUPS;

  // Chunks have their pixels to the mean: the last one may have fewer.
  {
    const Moments* parts = moments + static_cast<long long>(image) * chunks * GROUPS;
    const int group = threadIdx.x % GROUPS;
    const int slots = blockDim.x / GROUPS;
    const int slot = threadIdx.x / GROUPS;
    const int shared_out = slot < slots ? chunks : 0;
    float sum = 0.0f;
    for (int part = slot; part < shared_out; part += slots) {
      sum += static_cast<float>(min(chunk_pixels, pixels - part * chunk_pixels)) * parts[part * GROUPS + group].mean;
    }
    const float mean = sum_over_slots(sum, sums) / static_cast<float>(pixels);
    sum = 0.0f;
    for (int part = slot; part < shared_out; part += slots) {
      const Moments found = parts[part * GROUPS + group];
      const float distance = found.mean - mean;
      const float numbers =
          static_cast<float>(min(chunk_pixels, pixels - part * chunk_pixels)) * static_cast<float>(group_channels);
      sum += found.squares + numbers * distance * distance;
    }
    const float variance = sum_over_slots(sum, sums) / (static_cast<float>(pixels) * static_cast<float>(group_channels));
    if (threadIdx.x < GROUPS) {
      group_means[threadIdx.x] = mean;
      group_scales[threadIdx.x] = 1.0f / sqrtf(variance + epsilon);
    }
    __syncthreads();
  }

  const int lanes = channels / WIDTH;
  const int rows = blockDim.x / lanes;
  const int lane = threadIdx.x % lanes;
  const int row = threadIdx.x / lanes;
  float mean[WIDTH];
  float scale[WIDTH];
  float shift[WIDTH];
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) {
    const int channel = lane * WIDTH + i;
    const int group = channel / group_channels;
    mean[i] = group_means[group];
    scale[i] = group_scales[group] * Kind<T>::value(weight[channel]);
    shift[i] = Kind<T>::value(bias[channel]);
  }

  const int first = chunk * chunk_pixels;
  const int end = min(first + chunk_pixels, pixels);
  const long long offset = static_cast<long long>(image) * pixels * lanes + lane;
  for (int pixel = first + row; pixel < end; pixel += LOADS * rows) {
    uint4 packs[LOADS] = {};
#pragma unroll
    for (int load = 0; load < LOADS; ++load) {
      const int at = pixel + load * rows;
      if (at < end) {
        packs[load] = input[offset + static_cast<long long>(at) * lanes];
      }
    }
#pragma unroll
    for (int load = 0; load < LOADS; ++load) {
      const int at = pixel + load * rows;
      if (at < end) {
        float values[WIDTH];
        Kind<T>::unpack(packs[load], values);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) {
          values[i] = silu<Kind<T>::exact>((values[i] - mean[i]) * scale[i] + shift[i]);
        }
        output[offset + static_cast<long long>(at) * lanes] = Kind<T>::pack(values);
      }
    }
  }
}

// --- layer norm and RMS norm -------------------------------------------------------------------------------------------------------------

constexpr int ROW_NORM_THREADS = 128;

// The sum over the LANES threads of a row, given to all of them. All threads of the block call it.
template <int LANES>
__device__ __forceinline__ float sum_over_row(float value, float (&sums)[ROW_NORM_THREADS / 32]) {
#pragma unroll
  for (int distance = (LANES < 32 ? LANES : 32) / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  if (LANES > 32) {
    static_assert(LANES <= 32 || LANES == ROW_NORM_THREADS, "a row is part of a warp, a warp, or the block");
    __syncthreads(); // the sums of the last call have been read
    if (threadIdx.x % 32 == 0) {
      sums[threadIdx.x / 32] = value;
    }
    __syncthreads();
    value = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
  return value;
}

// LANES threads hold one row, 4 * VECTORS numbers each, so that the row is read once. CENTRED: a layer norm, which takes the mean away and
// adds a bias; else an RMS norm. `width` is a multiple of 4, at most 4 * LANES * VECTORS. T is the kind that is written.
template <typename T, int LANES, int VECTORS, bool CENTRED>
__device__ __forceinline__ void row_norm(
    const uint4* __restrict__ input,
    const uint4* __restrict__ weight,
    const uint4* __restrict__ bias,
    unsigned char* __restrict__ output,
    long long rows,
    int width,
    float epsilon) {
  __shared__ float sums[ROW_NORM_THREADS / 32];
  constexpr int BLOCK_ROWS = ROW_NORM_THREADS / LANES;
  const int lane = threadIdx.x % LANES;
  const int fours = width / 4;
  const long long row = static_cast<long long>(blockIdx.x) * BLOCK_ROWS + threadIdx.x / LANES;
  const bool there = row < rows;
  const uint4* read = input + row * fours;

  float values[VECTORS][4];
#pragma unroll
  for (int vector = 0; vector < VECTORS; ++vector) {
    const int at = vector * LANES + lane;
    uint4 pack = make_uint4(0, 0, 0, 0);
    if (there && at < fours) {
      pack = read[at];
    }
    Kind<float>::unpack(pack, values[vector]);
  }

  float mean = 0.0f;
  if (CENTRED) {
    float sum = 0.0f;
#pragma unroll
    for (int vector = 0; vector < VECTORS; ++vector) {
      sum += (values[vector][0] + values[vector][1]) + (values[vector][2] + values[vector][3]);
    }
    mean = sum_over_row<LANES>(sum, sums) / static_cast<float>(width);
  }
  float squares = 0.0f;
#pragma unroll
  for (int vector = 0; vector < VECTORS; ++vector) {
    if (vector * LANES + lane < fours) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float distance = values[vector][i] - mean;
        squares += distance * distance;
      }
    }
  }
  const float scale = 1.0f / sqrtf(sum_over_row<LANES>(squares, sums) / static_cast<float>(width) + epsilon);

  if (!there) {
    return;
  }
  constexpr int BYTES = 16 / Kind<T>::width;
  unsigned char* written = output + row * width * BYTES;
#pragma unroll
  for (int vector = 0; vector < VECTORS; ++vector) {
    const int at = vector * LANES + lane;
    if (at < fours) {
      float weights[4];
      float shifts[4] = {};
      Kind<float>::unpack(weight[at], weights);
      if (CENTRED) {
        Kind<float>::unpack(bias[at], shifts);
      }
      float normal[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        normal[i] = (values[vector][i] - mean) * scale * weights[i] + shifts[i];
      }
      Kind<T>::write_four(written, at, normal);
    }
  }
}

// --- the program that NVRTC is asked for -------------------------------------------------------------------------------------------------

#ifdef RESTOK_GROUP_NORM // the kind
extern "C" __global__ void __launch_bounds__(GROUP_NORM_THREADS) restok_group_norm_statistics(
    const uint4* input, Moments* moments, int pixels, int channels, int chunk_pixels) {
  group_norm_statistics<RESTOK_GROUP_NORM>(input, moments, pixels, channels, chunk_pixels);
}

extern "C" __global__ void __launch_bounds__(GROUP_NORM_THREADS) restok_group_norm_silu(
    const uint4* input,
    const Moments* moments,
    const RESTOK_GROUP_NORM* weight,
    const RESTOK_GROUP_NORM* bias,
    uint4* output,
    int pixels,
    int channels,
    int chunk_pixels,
    float epsilon) {
  group_norm_silu<RESTOK_GROUP_NORM>(input, moments, weight, bias, output, pixels, channels, chunk_pixels, epsilon);
}
#endif

#ifdef RESTOK_ROW_NORM // the kind that is written, and RESTOK_LANES, RESTOK_VECTORS, RESTOK_CENTRED
extern "C" __global__ void __launch_bounds__(ROW_NORM_THREADS) restok_row_norm(
    const uint4* input,
    const uint4* weight,
    const uint4* bias,
    unsigned char* output,
    long long rows,
    int width,
    float epsilon) {
  row_norm<RESTOK_ROW_NORM, RESTOK_LANES, RESTOK_VECTORS, RESTOK_CENTRED>(
      input, weight, bias, output, rows, width, epsilon);
}
#endif
