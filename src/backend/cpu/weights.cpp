#include "backend/cpu/weights.hpp"

#include <algorithm>
#include <atomic>
#include <cassert>

#include "backend/cpu/quantize.hpp"
#include "backend/cpu/reference_formats.hpp"
#include "backend/cpu/rows.hpp"
#include "backend/cpu/scratch.hpp"
#include "mx/reference_format.hpp"

namespace mxlm::cpu {
namespace {

constexpr int64_t kPanelsPerTask = 4;

/// Rows of a host matrix, whose memory may have any alignment, as properly aligned float32 or bfloat16 values.
class SourceRows {
 public:
  SourceRows(Isa isa, const HostMatrix& source) : isa_(isa), source_(source) {}

  [[nodiscard]] bool bf16() const { return source_.type == DType::bf16; }

  /// `count` rows from `first` as T (BFloat16 only of a bfloat16 source), in place where possible, else in `scratch`
  /// (count * cols values). Sets the distance of rows.
  template <typename T>
  const T* rows(int64_t first, int64_t count, T* scratch, int64_t& stride) const {
    const auto element = static_cast<int64_t>(dtype_size(source_.type));
    const std::byte* data = source_.data + first * source_.stride * element;
    constexpr DType type = sizeof(T) == 2 ? DType::bf16 : DType::f32;
    if (source_.type == type && reinterpret_cast<uintptr_t>(data) % sizeof(T) == 0) {
      stride = source_.stride;
      return reinterpret_cast<const T*>(data);
    }
    for (int64_t r = 0; r < count; ++r) {
      convert_row(isa_, source_.type, data + r * source_.stride * element, type, scratch + r * source_.cols,
                  source_.cols);
    }
    stride = source_.cols;
    return scratch;
  }

 private:
  Isa isa_;
  const HostMatrix& source_;
};

void pack(Isa isa, const BFloat16* rows, int64_t count, int64_t stride, int64_t k, BFloat16* panel) {
  pack_panel_bf16(isa, rows, count, stride, k, panel);
}
void pack(Isa isa, const float* rows, int64_t count, int64_t stride, int64_t k, float* panel) {
  pack_panel_f32(isa, rows, count, stride, k, panel);
}

/// Memory of the calling thread for 16 rows of T; `slot` tells apart those in use together.
template <typename T>
T* panel_scratch(int slot, int64_t k) {
  thread_local Scratch scratch[2];
  return reinterpret_cast<T*>(scratch[slot].reserve(static_cast<size_t>(kPanel * std::max<int64_t>(k, 1)) * sizeof(T)));
}

/// Panels of type T [n, k]; `fill(row, count, panel)` makes one from `count` rows.
template <typename T, typename Fill>
std::shared_ptr<const Panels> make_panels(const WeightMaker& maker, int64_t n, int64_t k,
                                          std::vector<float> output_scales, const Fill& fill) {
  PackedPanels packed;
  packed.type = sizeof(T) == 2 ? DType::bf16 : DType::f32;
  packed.n = n;
  packed.k = k;
  const int64_t panels = packed.panels();
  const int64_t elements = packed.panel_elements();
  const size_t bytes = static_cast<size_t>(panels * elements) * sizeof(T);
  std::shared_ptr<void> memory = maker.buffers->allocate(bytes);
  T* data = static_cast<T*>(memory.get());
  maker.pool->run((panels + kPanelsPerTask - 1) / kPanelsPerTask, [&](int64_t task, int /*worker*/) {
    const int64_t end = std::min((task + 1) * kPanelsPerTask, panels);
    for (int64_t p = task * kPanelsPerTask; p < end; ++p) {
      fill(p * kPanel, std::min(kPanel, n - p * kPanel), data + p * elements);
    }
  });
  packed.data = data;
  return std::make_shared<Panels>(packed, std::move(memory), bytes, std::move(output_scales));
}

template <typename T>
std::shared_ptr<const Panels> plain_panels(const WeightMaker& maker, const HostMatrix& source) {
  const SourceRows rows(maker.isa, source);
  return make_panels<T>(maker, source.rows, source.cols, {}, [&](int64_t row, int64_t count, T* panel) {
    int64_t stride = 0;
    const T* values = rows.rows<T>(row, count, panel_scratch<T>(0, source.cols), stride);
    pack(maker.isa, values, count, stride, source.cols, panel);
  });
}

/// The float32 scales of a weight's rows (all the same where the tensor has one).
struct OuterScales {
  std::vector<OuterScale> rows;

  [[nodiscard]] std::vector<float> output_scales() const {
    std::vector<float> out;
    out.reserve(rows.size());
    for (const OuterScale& row : rows) out.push_back(row.scale);
    return out;
  }
};

constexpr int64_t kRowsPerTask = kPanelsPerTask * kPanel;

template <typename In>
OuterScales outer_scales(const WeightMaker& maker, const HostMatrix& source, const mx::Format& format) {
  OuterScales out;
  if (!mx::has_row_scales(format)) return out;
  const SourceRows rows(maker.isa, source);
  out.rows.resize(static_cast<size_t>(source.rows));
  maker.pool->run((source.rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int /*worker*/) {
    const int64_t end = std::min((task + 1) * kRowsPerTask, source.rows);
    for (int64_t r = task * kRowsPerTask; r < end; ++r) {
      int64_t stride = 0;
      const In* in = rows.rows<In>(r, 1, panel_scratch<In>(0, source.cols), stride);
      out.rows[static_cast<size_t>(r)].amax = largest_magnitude(maker.isa, in, source.cols, /*inliers=*/false);
    }
  });
  if (format.scaling == mx::Scaling::tensor || format.scaling == mx::Scaling::nvfp4) {
    uint32_t amax = 0;
    for (const OuterScale& row : out.rows) amax = std::max(amax, row.amax);
    for (OuterScale& row : out.rows) row.amax = amax;
  }
  for (OuterScale& row : out.rows) row.scale = mx::outer_scale(format, row.amax);
  return out;
}

/// Quantises row r, without its row's scale.
template <typename In, typename T>
void quantise_row(Isa isa, const mx::Format& format, const OuterScales& outer, int64_t r, const In* in, int64_t k,
                  T* out) {
  if (outer.rows.empty()) {
    quantize_decode_row(isa, format, in, k, out);
  } else {
    quantize_scaled_row(isa, format, outer.rows[static_cast<size_t>(r)], nullptr, in, k, out);
  }
}

/// True if quantised values of this row are so small that a product would take them for zeros. Quantising at most
/// halves a magnitude, so only rows that have values below 2^-124 need a look.
template <typename In>
bool quantises_to_subnormals(Isa isa, const mx::Format& format, const In* row, int64_t n) {
  if (mx::has_row_scales(format) || !has_small_values(isa, row, n)) return false;
  std::vector<float> decoded(static_cast<size_t>(n));
  quantize_decode_row(isa, format, row, n, decoded.data());
  return std::any_of(decoded.begin(), decoded.end(), [](float x) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x) & 0x7fffffffU;
    return magnitude != 0 && magnitude < 0x00800000U;
  });
}

/// Quantised panels of T from a source read as In. With T bfloat16, null if that would lose values.
template <typename In, typename T>
std::shared_ptr<const Panels> quantised_panels(const WeightMaker& maker, const HostMatrix& source,
                                               const mx::Format& format) {
  const SourceRows rows(maker.isa, source);
  const OuterScales outer = outer_scales<In>(maker, source, format);
  std::atomic<bool> lossy{false};
  const auto fill = [&](int64_t row, int64_t count, T* panel) {
    if (lossy.load(std::memory_order_relaxed)) return;
    const int64_t k = source.cols;
    int64_t stride = 0;
    const In* values = rows.rows<In>(row, count, panel_scratch<In>(0, k), stride);
    T* decoded = panel_scratch<T>(1, k);
    for (int64_t r = 0; r < count; ++r) {
      const In* in = values + r * stride;
      if (sizeof(T) == 2 && quantises_to_subnormals(maker.isa, format, in, k)) lossy = true;
      quantise_row(maker.isa, format, outer, row + r, in, k, decoded + r * k);
    }
    pack(maker.isa, decoded, count, k, k, panel);
  };
  auto panels = make_panels<T>(maker, source.rows, source.cols, outer.output_scales(), fill);
  return lossy ? nullptr : panels;
}

template <typename In>
std::shared_ptr<const Panels> quantised(const WeightMaker& maker, const HostMatrix& source, const mx::Format& format) {
  if (mx::decodes_exactly_to_bf16(format)) {
    if (auto panels = quantised_panels<In, BFloat16>(maker, source, format)) return panels;
  }
  return quantised_panels<In, float>(maker, source, format);
}

template <typename In>
void encode(const WeightMaker& maker, const HostMatrix& source, KeptCodes& kept) {
  const SourceRows rows(maker.isa, source);
  const int64_t k = source.cols;
  const int64_t code_row = code_bytes(kept.format, k);
  const int64_t scale_row = kept.block_scale_bytes();
  const OuterScales outer = outer_scales<In>(maker, source, kept.format);
  kept.output_scales = outer.output_scales();
  auto* codes = static_cast<uint8_t*>(kept.codes.get());
  auto* scales = static_cast<uint8_t*>(kept.scales.get());
  std::atomic<bool> lossy{!mx::decodes_exactly_to_bf16(kept.format)};
  maker.pool->run((source.rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int /*worker*/) {
    const int64_t end = std::min((task + 1) * kRowsPerTask, source.rows);
    for (int64_t r = task * kRowsPerTask; r < end; ++r) {
      int64_t stride = 0;
      const In* in = rows.rows<In>(r, 1, panel_scratch<In>(0, k), stride);
      uint8_t* row_codes = codes + r * code_row;
      uint8_t* row_scales = scales + r * scale_row;
      if (kept.format.scaling == mx::Scaling::block) {
        encode_row(maker.isa, kept.format, in, k, row_codes, row_scales);
      } else {
        const OuterScale scale = outer.rows.empty() ? OuterScale{} : outer.rows[static_cast<size_t>(r)];
        encode_stage_row(maker.isa, kept.format, scale, in, k, row_codes, row_scales);
      }
      if (quantises_to_subnormals(maker.isa, kept.format, in, k)) lossy = true;
    }
  });
  kept.storage = lossy ? DType::f32 : DType::bf16;
}

template <typename T>
std::shared_ptr<const Panels> decoded_panels(const WeightMaker& maker, const KeptCodes& kept) {
  const int64_t k = kept.cols;
  const int64_t code_row = code_bytes(kept.format, k);
  const int64_t scale_row = kept.block_scale_bytes();
  const auto* codes = static_cast<const uint8_t*>(kept.codes.get());
  const auto* scales = static_cast<const uint8_t*>(kept.scales.get());
  return make_panels<T>(maker, kept.rows, k, kept.output_scales, [&](int64_t row, int64_t count, T* panel) {
    T* decoded = panel_scratch<T>(1, k);
    for (int64_t r = 0; r < count; ++r) {
      const uint8_t* row_codes = codes + (row + r) * code_row;
      const uint8_t* row_scales = scales + (row + r) * scale_row;
      if (kept.format.scaling == mx::Scaling::block) {
        decode_row(maker.isa, kept.format, row_codes, row_scales, k, decoded + r * k);
      } else {
        decode_stage_row(kept.format, row_codes, row_scales, k, decoded + r * k);
      }
    }
    pack(maker.isa, decoded, count, k, k, panel);
  });
}

}  // namespace

int64_t KeptCodes::block_scale_bytes() const {
  return format.scaling == mx::Scaling::block ? scale_bytes(format, cols) : stage_scale_bytes(format, cols);
}

size_t KeptCodes::bytes() const {
  if (prepared) return prepared->bytes();
  return static_cast<size_t>(rows * (code_bytes(format, cols) + block_scale_bytes())) +
         output_scales.size() * sizeof(float);
}

std::shared_ptr<const PreparedWeight> prepare_weight(const WeightMaker& maker, const HostMatrix& source,
                                                     const OperandSpec& spec) {
  const bool bf16 = source.type == DType::bf16;
  if (!spec) {
    if (bf16) return plain_panels<BFloat16>(maker, source);
    return plain_panels<float>(maker, source);
  }
  if (bf16) return quantised<BFloat16>(maker, source, *spec);
  return quantised<float>(maker, source, *spec);
}

std::shared_ptr<const KeptWeight> keep_weight(const WeightMaker& maker, const HostMatrix& source,
                                              const OperandSpec& spec) {
  auto kept = std::make_shared<KeptCodes>();
  kept->rows = source.rows;
  kept->cols = source.cols;
  if (!spec || !mx::keeps_codes(*spec)) {
    kept->prepared = prepare_weight(maker, source, spec);
    return kept;
  }
  kept->format = *spec;
  kept->codes = maker.buffers->allocate(static_cast<size_t>(source.rows * code_bytes(*spec, source.cols)));
  kept->scales = maker.buffers->allocate(static_cast<size_t>(source.rows * kept->block_scale_bytes()));
  if (source.type == DType::bf16) {
    encode<BFloat16>(maker, source, *kept);
  } else {
    encode<float>(maker, source, *kept);
  }
  return kept;
}

std::shared_ptr<const PreparedWeight> prepare_kept(const WeightMaker& maker, const KeptCodes& kept) {
  if (kept.prepared) return kept.prepared;
  if (kept.storage == DType::bf16) return decoded_panels<BFloat16>(maker, kept);
  return decoded_panels<float>(maker, kept);
}

}  // namespace mxlm::cpu
