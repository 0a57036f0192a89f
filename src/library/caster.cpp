#include "library/caster.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <string>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "mx/reference_format.hpp"
#include "variants/variant.hpp"

namespace mxlm {
namespace {

constexpr int64_t kBatch = int64_t{8} << 20;  // values of a batch, which is quantised before it goes to the sink
constexpr int64_t kLong = int64_t{1} << 16;   // values of a piece of a long row

/// Converts `n` stored values, at any alignment, to float32.
void widen(DType type, const std::byte* bytes, int64_t n, float* out) {
  const auto count = static_cast<size_t>(n);
  const auto each = [&]<typename T>(T, auto convert) {
    for (size_t i = 0; i < count; ++i) {
      T x;
      std::memcpy(&x, bytes + i * sizeof(T), sizeof(T));
      out[i] = convert(x);
    }
  };
  switch (type) {
    case DType::f64:
      return each(double{}, [](double x) { return static_cast<float>(x); });
    case DType::f16:
      return each(uint16_t{}, [](uint16_t x) { return half_to_float(x); });
    case DType::bf16:
      return each(uint16_t{}, [](uint16_t x) { return to_float(BFloat16{x}); });
    default:
      if (count > 0) std::memcpy(out, bytes, count * sizeof(float));
  }
}

/// Converts float32 values to half or bfloat16, rounded to nearest even.
void narrow(DType type, const float* values, int64_t n, std::byte* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t bits = type == DType::f16 ? to_half(values[i]) : to_bfloat16(values[i]).bits;
    std::memcpy(out + i * 2, &bits, 2);
  }
}

}  // namespace

bool is_floating(DType type) {
  return type == DType::f64 || type == DType::f32 || type == DType::f16 || type == DType::bf16;
}

uint16_t to_half(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000U, magnitude = bits & 0x7fffffffU;
  uint32_t half = 0;
  if (magnitude > 0x7f800000U) {
    half = 0x7e00U;
  } else if (magnitude >= 0x477ff000U) {  // 65520, half a step above the largest half
    half = 0x7c00U;
  } else if (magnitude < 0x38800000U) {
    // Below 2^-14 a half has steps of 2^-24, like a float32 between 0.5 and 1. Therefore adding 0.5 rounds correctly.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
  } else {
    half = (magnitude - 0x38000000U + 0xfffU + ((magnitude >> 13) & 1U)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

Pieces::Pieces(int64_t r, int64_t c, const mx::Format& format) : rows(r), cols(c) {
  length = std::max<int64_t>(cols, 1);
  if (format.block_size != 0) length = std::min(length, cpu::round_up(kLong, int64_t{8} * format.block_size));
  per_row = (cols + length - 1) / length;
}

int64_t Pieces::column(int64_t piece) const { return std::min(piece % per_row * length, cols); }

int64_t Pieces::begin(int64_t piece) const { return piece / per_row * cols + column(piece); }

Caster::Caster(std::string_view spec, int threads)
    : spec_(spec),
      format_(parse_block_format(spec)),
      isa_(cpu::detect_isa()),
      pool_(threads > 0 ? threads : default_thread_count()) {
  if (format_.scaling == mx::Scaling::int8_outliers) {
    fail_usage(
        "{} is a way to multiply that treats outliers of activations separately, and not the format of one tensor; "
        "the format of its weights is int8_row.",
        quote(spec_));
  }
}

void Caster::require_packable() const {
  if (format_.scaling != mx::Scaling::block) {
    fail_usage("--packed stores codes with one E8M0 scale a block, and {} has no such scales; leave one of them out.",
               quote(spec_));
  }
  if (format_.block_size == 0) {
    fail_usage("--packed needs blocks of a fixed size, and {} has one block a row (block=0); leave one of them out.",
               quote(spec_));
  }
  if (format_.scale_bits != 8) {
    fail_usage("--packed stores scales of 8 bits, and {} has scale_bits={}; leave one of them out.", quote(spec_),
               format_.scale_bits);
  }
}

int64_t Caster::batch_values(const Pieces& pieces) {
  return std::max<int64_t>(kBatch / pieces.length, 1) * pieces.length;
}

template <typename Body, typename Done>
void Caster::for_pieces(const StoredRows& in, const Pieces& pieces, const Body& body, const Done& done) {
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool_.threads()));
  const int64_t batch = batch_values(pieces) / pieces.length;
  for (int64_t first = 0; first < pieces.count(); first += batch) {
    throw_if_interrupted();
    const int64_t count = std::min(batch, pieces.count() - first);
    pool_.run(count, [&](int64_t task, int worker) {
      const int64_t piece = first + task;
      const int64_t n = std::min(pieces.length, pieces.cols - pieces.column(piece));
      auto& values = scratch[static_cast<size_t>(worker)];
      values.resize(static_cast<size_t>(pieces.length));
      widen(in.type, in.data + static_cast<size_t>(pieces.begin(piece)) * dtype_size(in.type), n, values.data());
      body(first, piece, n, values.data());
    });
    done(first, count);
  }
}

/// Finds the scale of the whole tensor if the format has one.
void Caster::find_tensor_scale(const StoredRows& in) {
  tensor_scale_ = {};
  if (!mx::needs_whole_tensor(format_)) return;
  std::atomic<uint32_t> amax{0};
  for_pieces(
      in, Pieces(in.rows, in.cols, format_),
      [&](int64_t /*first*/, int64_t /*piece*/, int64_t n, const float* values) {
        const uint32_t own = cpu::largest_magnitude(isa_, values, n, /*inliers=*/false);
        for (uint32_t seen = amax; seen < own && !amax.compare_exchange_weak(seen, own);) {
        }
      },
      [](int64_t /*first*/, int64_t /*count*/) {});
  tensor_scale_ = {mx::outer_scale(format_, amax), amax};
}

/// Quantises and decodes n values of a row; a part of a row is allowed if the format has the same result for it.
void Caster::quantize(const float* values, int64_t n, float* out) const {
  if (!mx::has_row_scales(format_)) return cpu::quantize_decode_row(isa_, format_, values, n, out);
  cpu::OuterScale scale = tensor_scale_;
  if (!mx::needs_whole_tensor(format_)) {
    scale.amax = cpu::largest_magnitude(isa_, values, n, /*inliers=*/false);
    scale.scale = mx::outer_scale(format_, scale.amax);
  }
  cpu::quantize_scaled_row(isa_, format_, scale, nullptr, values, n, out);
  for (int64_t i = 0; i < n; ++i) out[i] *= scale.scale;
}

void Caster::decode(const StoredRows& in, DType out_type, std::byte* out) {
  find_tensor_scale(in);
  const Pieces pieces(in.rows, in.cols, format_);
  const bool in_place = out_type == DType::f32 && reinterpret_cast<uintptr_t>(out) % alignof(float) == 0;
  for_pieces(
      in, pieces,
      [&](int64_t /*first*/, int64_t piece, int64_t n, float* values) {
        std::byte* to = out + static_cast<size_t>(pieces.begin(piece)) * dtype_size(out_type);
        if (in_place) return quantize(values, n, reinterpret_cast<float*>(to));
        quantize(values, n, values);
        if (out_type == DType::f32) {
          std::memcpy(to, values, static_cast<size_t>(n) * sizeof(float));
        } else {
          narrow(out_type, values, n, to);
        }
      },
      [](int64_t /*first*/, int64_t /*count*/) {});
}

void Caster::decode(const StoredRows& in, const std::function<void(std::span<const float>)>& sink) {
  find_tensor_scale(in);
  const Pieces pieces(in.rows, in.cols, format_);
  std::vector<float> out(static_cast<size_t>(std::min(batch_values(pieces), pieces.rows * pieces.cols)));
  for_pieces(
      in, pieces,
      [&](int64_t first, int64_t piece, int64_t n, const float* values) {
        quantize(values, n, out.data() + (pieces.begin(piece) - pieces.begin(first)));
      },
      [&](int64_t first, int64_t count) {
        sink(std::span(out.data(), static_cast<size_t>(pieces.begin(first + count) - pieces.begin(first))));
      });
}

std::vector<uint8_t> Caster::pack(const StoredRows& in, const std::function<void(std::span<const uint8_t>)>& sink) {
  const Pieces pieces(in.rows, in.cols, format_);
  const int64_t row_codes = cpu::code_bytes(format_, pieces.cols);
  const int64_t row_scales = cpu::scale_bytes(format_, pieces.cols);
  std::vector<uint8_t> scales(static_cast<size_t>(pieces.rows * row_scales));
  const auto begin = [&](int64_t piece) {
    return piece / pieces.per_row * row_codes + cpu::code_bytes(format_, pieces.column(piece));
  };
  const int64_t most = batch_values(pieces) / pieces.length * cpu::code_bytes(format_, pieces.length);
  std::vector<uint8_t> codes(static_cast<size_t>(std::min(most, pieces.rows * row_codes)));
  for_pieces(
      in, pieces,
      [&](int64_t first, int64_t piece, int64_t n, const float* values) {
        uint8_t* code = codes.data() + (begin(piece) - begin(first));
        uint8_t* scale =
            scales.data() + (piece / pieces.per_row * row_scales + cpu::scale_bytes(format_, pieces.column(piece)));
        cpu::encode_row(isa_, format_, values, n, code, scale);
      },
      [&](int64_t first, int64_t count) {
        sink(std::span(codes.data(), static_cast<size_t>(begin(first + count) - begin(first))));
      });
  return scales;
}

}  // namespace mxlm
