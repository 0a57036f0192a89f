// mxlm cast: quantise the tensors of a safetensors file.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/cpu/quantize.hpp"
#include "backend/cpu/stages.hpp"
#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/parallel.hpp"
#include "base/quote.hpp"
#include "cli/commands.hpp"
#include "eval/variant.hpp"
#include "io/safetensors.hpp"
#include "mx/stage.hpp"

namespace mxlm::cli {
namespace {

struct CastOptions {
  std::string input, output, format;
  bool packed = false;
  int threads = 0;
};

bool is_floating(DType type) {
  return type == DType::f64 || type == DType::f32 || type == DType::f16 || type == DType::bf16;
}

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
      std::memcpy(out, bytes, count * sizeof(float));
  }
}

/// A tensor as rows along its last axis, in pieces that threads take: whole rows, or parts of a long row that hold
/// whole blocks and whole bytes of codes.
struct Pieces {
  int64_t rows = 1, cols = 1, length = 1, per_row = 1;

  Pieces(const std::vector<int64_t>& shape, const mx::BlockFormat& format) {
    for (size_t i = 0; i < shape.size(); ++i) (i + 1 < shape.size() ? rows : cols) *= shape[i];
    constexpr int64_t kLong = 1 << 16;
    length = std::max<int64_t>(cols, 1);
    if (format.block_size != 0) length = std::min(length, cpu::round_up(kLong, int64_t{8} * format.block_size));
    per_row = (cols + length - 1) / length;
  }
  [[nodiscard]] int64_t count() const { return rows * per_row; }
};

class Caster {
 public:
  explicit Caster(const CastOptions& options)
      : options_(options),
        format_(parse_block_format(options.format)),
        isa_(cpu::detect_isa()),
        pool_(options.threads > 0 ? options.threads : default_thread_count()) {
    if (format_.scaling == mx::Scaling::int8_outliers) {
      fail_usage(
          "{} is a way to multiply, which takes outliers of activations apart, and no format of one tensor; its "
          "weights are int8_row.",
          quote(options.format));
    }
    if (!options.packed) return;
    if (format_.scaling != mx::Scaling::block) {
      fail_usage("--packed stores codes with one E8M0 scale a block, which {} has not; leave one of them out.",
                 quote(options.format));
    }
    if (format_.block_size == 0) {
      fail_usage("--packed needs blocks of a fixed size, and {} has one block a row (block=0); leave one of them out.",
                 quote(options.format));
    }
    if (format_.scale_bits != 8) {
      fail_usage("--packed stores scales of 8 bits, and {} has scale_bits={}; leave one of them out.",
                 quote(options.format), format_.scale_bits);
    }
  }

  void run() {
    const Checkpoint input = Checkpoint::from_file(FileView::map(options_.input));
    SafetensorsWriter writer(options_.output, declare(input));
    for (const auto& [name, tensor] : input.tensors()) {
      if (!is_floating(tensor.type)) {
        writer.append({tensor.data(), tensor.size});
      } else if (options_.packed) {
        pack(tensor, writer);
      } else {
        tensor_scale_ = tensor_scale(tensor);
        decode(tensor, writer);
      }
      tensor.file.release(tensor.offset, tensor.size);
    }
    writer.finish();
  }

 private:
  static constexpr int64_t kBatch = int64_t{8} << 20;  // values worked on before they are written

  [[nodiscard]] std::vector<SafetensorsWriter::Declared> declare(const Checkpoint& input) const {
    std::vector<SafetensorsWriter::Declared> all;
    for (const auto& [name, tensor] : input.tensors()) {
      if (!is_floating(tensor.type)) {
        all.push_back({name, tensor.type, tensor.shape});
      } else if (!options_.packed) {
        all.push_back({name, DType::f32, tensor.shape});
      } else {
        const Pieces pieces(tensor.shape, format_);
        std::vector<int64_t> shape = tensor.shape;
        if (shape.empty()) shape.push_back(1);
        shape.back() = cpu::code_bytes(format_, pieces.cols);
        const std::string scale_name = name + ".scale";
        if (input.find(scale_name) != nullptr) {
          fail("{} already holds a tensor {}, which the scales of {} would be called; rename one of them.",
               quote(options_.input), quote(scale_name), quote(name));
        }
        all.push_back({name, DType::u8, shape});
        all.push_back({scale_name, DType::u8, {pieces.rows, cpu::scale_bytes(format_, pieces.cols)}});
      }
    }
    return all;
  }

  /// Runs body(first piece of the batch, row, first column, columns, values as float32) for every piece, in parallel,
  /// in batches; after each batch, done(its first piece, pieces in it).
  template <typename Body, typename Done>
  void for_pieces(const TensorEntry& tensor, const Pieces& pieces, const Body& body, const Done& done) {
    std::vector<std::vector<float>> scratch(static_cast<size_t>(pool_.threads()));
    const int64_t batch = std::max<int64_t>(kBatch / pieces.length, 1);
    for (int64_t first = 0; first < pieces.count(); first += batch) {
      throw_if_interrupted();
      const int64_t count = std::min(batch, pieces.count() - first);
      pool_.run(count, [&](int64_t task, int worker) {
        const int64_t row = (first + task) / pieces.per_row;
        const int64_t column = (first + task) % pieces.per_row * pieces.length;
        const int64_t n = std::min(pieces.length, pieces.cols - column);
        auto& values = scratch[static_cast<size_t>(worker)];
        values.resize(static_cast<size_t>(pieces.length));
        const auto at = static_cast<size_t>(row * pieces.cols + column) * dtype_size(tensor.type);
        widen(tensor.type, tensor.data() + at, n, values.data());
        body(first, row, column, n, values.data());
      });
      done(first, count);
    }
  }

  /// The scale that all of a tensor shares, in formats that have one.
  cpu::OuterScale tensor_scale(const TensorEntry& tensor) {
    cpu::OuterScale scale;
    if (!mx::needs_whole_tensor(format_)) return scale;
    std::atomic<uint32_t> amax{0};
    for_pieces(
        tensor, Pieces(tensor.shape, format_),
        [&](int64_t /*first*/, int64_t /*row*/, int64_t /*column*/, int64_t n, const float* values) {
          const uint32_t own = cpu::largest_magnitude(isa_, values, n, /*inliers=*/false);
          for (uint32_t seen = amax; seen < own && !amax.compare_exchange_weak(seen, own);) {
          }
        },
        [](int64_t /*first*/, int64_t /*count*/) {});
    return {mx::outer_scale(format_, amax), amax};
  }

  /// Quantises and decodes n values: a row, or a part of one where that makes no difference.
  void quantize(const float* values, int64_t n, float* out) {
    if (!mx::has_row_scales(format_)) return cpu::quantize_decode_row(isa_, format_, values, n, out);
    cpu::OuterScale scale = tensor_scale_;
    if (!mx::needs_whole_tensor(format_)) {
      scale.amax = cpu::largest_magnitude(isa_, values, n, /*inliers=*/false);
      scale.scale = mx::outer_scale(format_, scale.amax);
    }
    cpu::quantize_scaled_row(isa_, format_, scale, nullptr, values, n, out);
    for (int64_t i = 0; i < n; ++i) out[i] *= scale.scale;
  }

  void decode(const TensorEntry& tensor, SafetensorsWriter& writer) {
    const Pieces pieces(tensor.shape, format_);
    // Pieces follow one another without gaps, so a batch is one run of values.
    const auto begin = [&](int64_t piece) {
      return piece / pieces.per_row * pieces.cols + std::min(piece % pieces.per_row * pieces.length, pieces.cols);
    };
    std::vector<float> out;
    const int64_t most = std::max<int64_t>(kBatch / pieces.length, 1) * pieces.length;
    out.resize(static_cast<size_t>(std::min(most, pieces.rows * pieces.cols)));
    for_pieces(
        tensor, pieces,
        [&](int64_t first, int64_t row, int64_t column, int64_t n, const float* values) {
          float* to = out.data() + (row * pieces.cols + column - begin(first));
          quantize(values, n, to);
        },
        [&](int64_t first, int64_t count) {
          const auto size = static_cast<size_t>(begin(first + count) - begin(first));
          writer.append(std::as_bytes(std::span(out.data(), size)));
        });
  }

  void pack(const TensorEntry& tensor, SafetensorsWriter& writer) {
    const Pieces pieces(tensor.shape, format_);
    const int64_t row_codes = cpu::code_bytes(format_, pieces.cols);
    const int64_t row_scales = cpu::scale_bytes(format_, pieces.cols);
    std::vector<uint8_t> scales(static_cast<size_t>(pieces.rows * row_scales));
    const auto begin = [&](int64_t piece) {
      const int64_t column = std::min(piece % pieces.per_row * pieces.length, pieces.cols);
      return piece / pieces.per_row * row_codes + cpu::code_bytes(format_, column);
    };
    const int64_t most = std::max<int64_t>(kBatch / pieces.length, 1) * cpu::code_bytes(format_, pieces.length);
    std::vector<uint8_t> codes(static_cast<size_t>(std::min(most, pieces.rows * row_codes)));
    for_pieces(
        tensor, pieces,
        [&](int64_t first, int64_t row, int64_t column, int64_t n, const float* values) {
          uint8_t* code = codes.data() + (row * row_codes + cpu::code_bytes(format_, column) - begin(first));
          uint8_t* scale = scales.data() + (row * row_scales + cpu::scale_bytes(format_, column));
          cpu::encode_row(isa_, format_, values, n, code, scale);
        },
        [&](int64_t first, int64_t count) {
          const auto size = static_cast<size_t>(begin(first + count) - begin(first));
          writer.append(std::as_bytes(std::span(codes.data(), size)));
        });
    writer.append(std::as_bytes(std::span(scales)));
  }

  const CastOptions& options_;
  mx::BlockFormat format_;
  cpu::OuterScale tensor_scale_;
  cpu::Isa isa_;
  ThreadPool pool_;
};

}  // namespace

void add_cast(CLI::App& app) {
  auto options = std::make_shared<CastOptions>();
  CLI::App* command = app.add_subcommand("cast", "Quantise the tensors of a safetensors file");
  command->add_option("INPUT", options->input, "A safetensors file")->required();
  command->add_option("-o,--output", options->output, "The safetensors file to write")->required();
  command->add_option("--format", options->format, "A format and its keys: mxfp4, mxfp8_e5m2@block=16@rule=rceil")
      ->required();
  command->add_flag("--packed", options->packed,
                    "Write codes (U8) and, as NAME.scale, scales (E8M0) instead of values");
  command->add_option("--threads", options->threads, "Threads (default: the cores this process may use)")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Every floating tensor is quantised along its last axis and decoded to F32; others are copied.\n"
      "Example: mxlm cast model.safetensors -o mxfp4.safetensors --format mxfp4@rule=rceil");
  command->callback([options] { Caster(*options).run(); });
}

}  // namespace mxlm::cli
