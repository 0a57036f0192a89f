// CudaBackend::attention: which kernel computes what.

#include "backend/cuda/attention.hpp"

#include <algorithm>
#include <cassert>
#include <span>
#include <vector>

#include "backend/cuda/cuda_backend.hpp"

namespace mxlm {
namespace cuda {

std::vector<AttentionTile> attention_tiles(std::span<const int64_t> offsets, std::span<const int32_t> keys,
                                           int64_t queries) {
  std::vector<AttentionTile> tiles;
  for (size_t w = 0; w + 1 < offsets.size(); ++w) {
    const auto length = static_cast<int32_t>(offsets[w + 1] - offsets[w]);
    const int32_t limit = keys.empty() ? length : std::clamp(keys[w], 0, length);
    for (int32_t begin = 0; begin < length; begin += static_cast<int32_t>(queries)) {
      tiles.push_back({.first = static_cast<int32_t>(offsets[w]), .length = length, .limit = limit, .begin = begin});
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const AttentionTile& a, const AttentionTile& b) { return a.begin > b.begin; });
  return tiles;
}

namespace {

// Lengths that are computed by cuDNN: those that users choose. It makes a plan for each, which takes long; the last
// windows of documents, of any length, take our own kernel. The length alone decides, so that a window's bits do not
// depend on what it is batched with.
bool is_common_length(int64_t length) { return length >= 256 && length % 64 == 0; }

/// Windows [begin, end) of one length.
struct Run {
  size_t begin, end;
};

std::vector<Run> runs_of_equal_length(std::span<const int64_t> offsets) {
  std::vector<Run> runs;
  for (size_t w = 0; w + 1 < offsets.size(); ++w) {
    const int64_t length = offsets[w + 1] - offsets[w];
    if (!runs.empty() && offsets[runs.back().begin + 1] - offsets[runs.back().begin] == length) {
      runs.back().end = w + 1;
    } else {
      runs.push_back({w, w + 1});
    }
  }
  return runs;
}

/// Bytes of rows of scores, of all warps together.
constexpr size_t kScoreBytes = size_t{128} << 20;

}  // namespace
}  // namespace cuda

void CudaBackend::attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                            const AttentionArgs& args, std::span<Operand> outs) {
  assert(args.kv_heads > 0 && args.heads % args.kv_heads == 0 && args.scale > 0 && args.sliding_window >= 0);
  assert(args.head_dim > 0 && args.head_dim <= 256);
  assert(q.dtype() == k.dtype() && q.dtype() == v.dtype());
  assert(args.slopes.empty() || static_cast<int>(args.slopes.size()) == args.heads);
  assert(args.sinks.empty() || static_cast<int>(args.sinks.size()) == args.heads);
  const int64_t cols = int64_t{args.heads} * args.head_dim;
  const int64_t q_head = args.q_head_stride == 0 ? args.head_dim : args.q_head_stride;
  const int64_t kv_head = args.kv_head_stride == 0 ? args.head_dim : args.kv_head_stride;

  // Where the one operand is the output itself, it is written in place.
  const bool direct =
      outs.size() == 1 && !outs[0].type.spec && outs[0].type.storage == q.dtype() && cols % cuda::kRowStep == 0;
  Tensor result;
  if (direct) {
    allocate_operand(q.rows(), cols, q.dtype(), outs[0]);
  } else {
    result = empty(q.dtype(), q.rows(), cols);
  }
  const cuda::View out = cuda::view(direct ? outs[0].values : result);

  cuda::AttentionProblem problem{.q = cuda::view(q),
                                 .k = cuda::view(k),
                                 .v = cuda::view(v),
                                 .out = out,
                                 .tiles = nullptr,
                                 .tile_count = 0,
                                 .heads = args.heads,
                                 .kv_heads = args.kv_heads,
                                 .head_dim = args.head_dim,
                                 .q_head = q_head,
                                 .kv_head = kv_head,
                                 .scale = args.scale,
                                 .softcap = args.softcap,
                                 .sliding_window = args.sliding_window,
                                 .slopes = nullptr,
                                 .sinks = nullptr};
  const auto slopes = args.slopes.empty() ? std::shared_ptr<float>() : std::shared_ptr<float>(to_device(args.slopes));
  const auto sinks = args.sinks.empty() ? std::shared_ptr<float>() : std::shared_ptr<float>(to_device(args.sinks));
  problem.slopes = slopes.get();
  problem.sinks = sinks.get();
  const std::span<const int64_t> offsets = batch.offsets;
  const std::span<const int32_t> keys = batch.keys;

  if (args.qk.replaced() || args.pv.replaced() || args.arithmetic == Arithmetic::bf16_rounded) {
    const std::vector<cuda::AttentionTile> tiles = cuda::attention_tiles(offsets, keys, cuda::kQuantisedQueries);
    if (!tiles.empty()) {
      const auto device_tiles = to_device(std::span<const cuda::AttentionTile>(tiles));
      const auto device_offsets = to_device(offsets);
      problem.tiles = device_tiles.get();
      problem.tile_count = static_cast<int64_t>(tiles.size());
      cuda::QuantisedProblem quantised{.problem = problem,
                                       .qk = args.qk,
                                       .pv = args.pv,
                                       .arithmetic = args.arithmetic,
                                       .offsets = device_offsets.get(),
                                       .windows = batch.windows(),
                                       .rows = q.rows(),
                                       .longest = 0};
      for (const cuda::AttentionTile& tile : tiles) {
        quantised.longest = std::max<int64_t>(quantised.longest, tile.length);
      }
      const cuda::QuantisedScratch sizes = cuda::quantised_attention_scratch(quantised);
      const int64_t tasks = problem.tile_count * args.heads;
      const int64_t fit = std::max<int64_t>(1, static_cast<int64_t>(cuda::kScoreBytes / sizes.scores_per_warp));
      const int64_t warps = std::min({tasks, fit, int64_t{16} * multiprocessors_});
      const auto q_memory = scratch(sizes.q);
      const auto k_memory = scratch(sizes.k);
      const auto v_memory = scratch(sizes.v);
      const auto scores = scratch(sizes.scores_per_warp * static_cast<size_t>(warps));
      cuda::quantised_attention(quantised, static_cast<float*>(q_memory.get()), static_cast<float*>(k_memory.get()),
                                static_cast<float*>(v_memory.get()), static_cast<float*>(scores.get()), warps,
                                stream());
    }
  } else {
    const bool library =
        q.dtype() == DType::bf16 && args.softcap == 0 && slopes == nullptr && sinks == nullptr && keys.empty();
    std::vector<cuda::AttentionTile> tiles;
    for (const cuda::Run run : cuda::runs_of_equal_length(offsets)) {
      const int64_t first = offsets[run.begin];
      const int64_t length = offsets[run.begin + 1] - first;
      if (library && cuda::is_common_length(length)) {
        const auto at = [&](const cuda::View& view) { return view.as<BFloat16>() + first * view.stride; };
        const cuda::SdpaProblem sdpa{.windows = static_cast<int64_t>(run.end - run.begin),
                                     .length = length,
                                     .heads = args.heads,
                                     .kv_heads = args.kv_heads,
                                     .head_dim = args.head_dim,
                                     .q_row = problem.q.stride,
                                     .q_head = q_head,
                                     .k_row = problem.k.stride,
                                     .k_head = kv_head,
                                     .v_row = problem.v.stride,
                                     .v_head = kv_head,
                                     .out_row = out.stride,
                                     .scale = args.scale,
                                     .sliding_window = args.sliding_window,
                                     .q = at(problem.q),
                                     .k = at(problem.k),
                                     .v = at(problem.v),
                                     .out = at(out)};
        if (sdpa_.supports(sdpa)) {
          sdpa_.run(sdpa, memory_);
          continue;
        }
      }
      const auto own = cuda::attention_tiles(offsets.subspan(run.begin, run.end - run.begin + 1),
                                             keys.empty() ? keys : keys.subspan(run.begin, run.end - run.begin),
                                             cuda::kFlashQueries);
      tiles.insert(tiles.end(), own.begin(), own.end());
    }
    if (!tiles.empty()) {
      std::stable_sort(tiles.begin(), tiles.end(),
                       [](const cuda::AttentionTile& a, const cuda::AttentionTile& b) { return a.begin > b.begin; });
      const auto device_tiles = to_device(std::span<const cuda::AttentionTile>(tiles));
      problem.tiles = device_tiles.get();
      problem.tile_count = static_cast<int64_t>(tiles.size());
      cuda::flash_attention(problem, stream());
    }
  }
  if (!direct) operands(result, batch.offsets, outs);
}

}  // namespace mxlm
