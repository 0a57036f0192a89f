#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "io/safetensors.hpp"
#include "library/caster.hpp"
#include "mx/quantize.hpp"
#include "mxlm/mxlm.hpp"

namespace mxlm::api {
namespace {

DType stored(ValueType type) {
  switch (type) {
    case ValueType::float32:
      return DType::f32;
    case ValueType::float16:
      return DType::f16;
    case ValueType::bfloat16:
      return DType::bf16;
  }
  fail_usage("The type of an array is not a value of ValueType; give one of its values.");
}

/// The number of threads that are worth starting for so many values.
int threads_for(int64_t values, int asked) {
  // Some tens of microseconds of work, which is what a thread costs.
  constexpr int64_t kValuesAThread = int64_t{1} << 17;
  const int64_t most = asked > 0 ? asked : default_thread_count();
  return static_cast<int>(std::clamp<int64_t>(values / kValuesAThread, 1, most));
}

StoredRows rows_of(const TensorEntry& tensor) {
  StoredRows out{.type = tensor.type, .data = tensor.data(), .rows = 1, .cols = 1};
  for (size_t i = 0; i < tensor.shape.size(); ++i)
    (i + 1 < tensor.shape.size() ? out.rows : out.cols) *= tensor.shape[i];
  return out;
}

std::vector<SafetensorsWriter::Declared> declare(const Checkpoint& input, const CastFileOptions& options,
                                                 const mx::Format& format) {
  std::vector<SafetensorsWriter::Declared> all;
  for (const auto& [name, tensor] : input.tensors()) {
    if (!is_floating(tensor.type)) {
      all.push_back({name, tensor.type, tensor.shape});
    } else if (!options.packed) {
      all.push_back({name, DType::f32, tensor.shape});
    } else {
      const StoredRows rows = rows_of(tensor);
      std::vector<int64_t> shape = tensor.shape;
      if (shape.empty()) shape.push_back(1);
      shape.back() = cpu::code_bytes(format, rows.cols);
      const std::string scale_name = name + ".scale";
      if (input.find(scale_name) != nullptr) {
        fail("{} already holds a tensor {}, and the scales of {} need this name; rename one of them.",
             quote(options.input.native()), quote(scale_name), quote(name));
      }
      all.push_back({name, DType::u8, shape});
      all.push_back({scale_name, DType::u8, {rows.rows, cpu::scale_bytes(format, rows.cols)}});
    }
  }
  return all;
}

}  // namespace

const char* version() noexcept { return MXLM_VERSION; }

void set_log(std::function<void(LogLevel, std::string_view)> handler) {
  if (!handler) return send_log_to({});
  send_log_to([handler = std::move(handler)](spdlog::level::level_enum level, std::string_view line) {
    handler(level >= spdlog::level::err    ? LogLevel::error
            : level >= spdlog::level::warn ? LogLevel::warning
                                           : LogLevel::information,
            line);
  });
}

std::vector<Format> formats() {
  std::vector<Format> out;
  for (const mx::NamedElement& named : mx::kElements) {
    const mx::ElementFormat& e = named.format;
    Format format{.name = std::string(named.name),
                  .aliases = {},
                  .bits = e.bits(),
                  .exponent_bits = e.exponent_bits,
                  .mantissa_bits = e.mantissa_bits,
                  .emax = e.emax,
                  .largest = e.max,
                  .smallest = mx::decode(e, 1),
                  .note = std::string(named.note)};
    for (const std::string_view alias : named.aliases) {
      if (!alias.empty()) format.aliases.emplace_back(alias);
    }
    out.push_back(std::move(format));
  }
  return out;
}

void quantize(std::string_view spec, ValueType in_type, const void* in, ValueType out_type, void* out, int64_t rows,
              int64_t cols, const CastOptions& options) {
  if (rows < 0 || cols < 0) fail_usage("An array of {} x {} values is impossible; give its sizes.", rows, cols);
  const CancellationScope scope(&options.cancelled);
  Caster caster(spec, threads_for(rows * cols, options.threads));
  if (rows == 0 || cols == 0) return;
  caster.decode({.type = stored(in_type), .data = static_cast<const std::byte*>(in), .rows = rows, .cols = cols},
                stored(out_type), static_cast<std::byte*>(out));
}

std::vector<float> quantize(std::string_view spec, std::span<const float> values, int64_t cols,
                            const CastOptions& options) {
  const auto size = static_cast<int64_t>(values.size());
  if (cols < 1 || size % cols != 0) {
    fail_usage("{} values do not divide into rows of {}; give the length of a row.", size, cols);
  }
  std::vector<float> out(values.size());
  quantize(spec, ValueType::float32, values.data(), ValueType::float32, out.data(), size / cols, cols, options);
  return out;
}

void cast_file(const CastFileOptions& options) {
  const CancellationScope scope(&options.cancelled);
  Caster caster(options.spec, options.threads);
  if (options.packed) caster.require_packable();
  const Checkpoint input = Checkpoint::from_file(FileView::map(options.input));
  for (const auto& [name, reason] : input.unread()) {
    fail("Tensor {} in {} {}; leave it out of the file.", quote(name), quote(options.input.native()), reason);
  }
  SafetensorsWriter writer(options.output, declare(input, options, caster.format()));
  for (const auto& [name, tensor] : input.tensors()) {
    if (!is_floating(tensor.type)) {
      writer.append({tensor.data(), tensor.size});
    } else if (options.packed) {
      const std::vector<uint8_t> scales =
          caster.pack(rows_of(tensor), [&](std::span<const uint8_t> codes) { writer.append(std::as_bytes(codes)); });
      writer.append(std::as_bytes(std::span(scales)));
    } else {
      caster.decode(rows_of(tensor), [&](std::span<const float> values) { writer.append(std::as_bytes(values)); });
    }
    tensor.file.release(tensor.offset, tensor.size);
  }
  FileView::throw_if_changed();
  writer.finish();
}

}  // namespace mxlm::api
