#pragma once

// What is done to each value of an activation on its way into another one, in one pass.

#include "backend/cuda/powers.cuh"
#include "backend/cuda/rows.cuh"

namespace mxlm::cuda {

/// The steps of LinearEpilogue, in its order; each result is rounded to the type of the output.
struct Finish {
  Arithmetic arithmetic = Arithmetic::model_dtype;  // bf16_rounded: round, add `bias`, if there is one, and round
  Powers powers;                                    // of the values, which are float32 sums, before all else
  const float* bias = nullptr;                      // [cols]; in model_dtype the sum is in float32 and rounded once
  bool quantize = false;
  Quantizer quantizer;
  float multiplier = 1;
};

#if defined(__CUDACC__)

__device__ inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <typename A, typename T>
__global__ void __launch_bounds__(kThreads)
    finish_chunks(const __grid_constant__ Finish step, const __grid_constant__ Rows in,
                  const __grid_constant__ Rows residual, const __grid_constant__ Rows out, uint32_t first,
                  uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  const int64_t r = int64_t{first} + at.row;
  const int64_t c = at.col;
  const bool inside = at.inside && c < out.cols;
  float x[kChunk] = {};
  float more[kChunk] = {};
  float power[kChunk] = {};
  float bias[kChunk] = {};
  if (inside) {
    load_chunk<A>(in, r, c, x);
    if (residual.data != nullptr) load_chunk<T>(residual, r, c, more);
    if (step.bias != nullptr) load_values(step.bias + c, out.cols - c, aligned16(step.bias), bias);
    if (step.powers.columns != nullptr) {
      load_values(step.powers.columns + c, out.cols - c, aligned16(step.powers.columns), power);
      const float row = step.powers.rows[r];
#pragma unroll
      for (int i = 0; i < kChunk; ++i) x[i] = times_powers(x[i], row, power[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if (step.arithmetic != Arithmetic::bf16_rounded && step.bias != nullptr) x[i] += bias[i];
    x[i] = rounded<T>(x[i]);
    if (step.arithmetic != Arithmetic::bf16_rounded) continue;
    x[i] = bf(x[i]);
    if (step.bias != nullptr) x[i] = bf(x[i] + bf(bias[i]));
  }
  if (step.quantize) {
    float y[kChunk];
    quantize_chunk(step.quantizer, largest_of(x), x, y);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) x[i] = rounded<T>(y[i]);
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if (step.multiplier != 1) x[i] = rounded<T>(x[i] * step.multiplier);
    if (residual.data != nullptr) x[i] = more[i] + x[i];
  }
  if (inside) store_chunk<T>(out, r, c, x);
}

/// out = the steps on `in` (+ residual, if it has data); `out` may be either.
template <typename A, typename T>
void launch_finish(const Finish& step, const View& in, const View& residual, const View& out, cudaStream_t stream) {
  int64_t chunks = (out.cols + kChunk - 1) / kChunk;
  if (step.quantize) chunks = (chunks + step.quantizer.lanes - 1) / step.quantizer.lanes * step.quantizer.lanes;
  for_parts(out.rows, chunks, [&](uint32_t first, uint32_t count, uint32_t blocks) {
    finish_chunks<A, T><<<blocks, kThreads, 0, stream>>>(step, make_rows(in), make_rows(residual), make_rows(out),
                                                         first, count, static_cast<uint32_t>(chunks));
  });
  check_launch("adding activations");
}

#endif  // __CUDACC__

}  // namespace mxlm::cuda
