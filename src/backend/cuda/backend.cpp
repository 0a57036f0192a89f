#include "backend/cuda/backend.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/epilogue.hpp"
#include "backend/cuda/fast_operand.hpp"
#include "backend/cuda/fold.hpp"
#include "backend/cuda/native.hpp"
#include "base/error.hpp"
#include "mx/quantize.hpp"

namespace mxlm {

using cuda::View;
using cuda::Weight;

namespace {

// Compute capabilities: cuBLASLt has row and column scales on Hopper alone, block scales from Blackwell on.
constexpr int kHopper = 9, kBlackwell = 10;
// Of the device's memory: weights that are brought ahead, and tables that stay.
constexpr uint64_t kAheadShare = 6, kTableShare = 8;

/// The device's memory that may be used, once it is the current one.
uint64_t select(const CudaOptions& options) {
  cuda::check(cudaSetDevice(options.device), "selecting it");
  size_t free = 0, total = 0;
  cuda::check(cudaMemGetInfo(&free, &total), "asking for its memory");
  const uint64_t most = usable_memory(free);
  return options.memory_limit > 0 ? std::min(options.memory_limit, most) : most;
}

/// The codes of a folded or block-scaled weight.
View codes_of(const Weight& weight) {
  return {
      .data = weight.values.get(), .type = DType::f8_e4m3, .rows = weight.n, .cols = weight.k, .stride = weight.stride};
}

}  // namespace

namespace cuda {

std::string Weight::route() const {
  switch (layout) {
    case Layout::bf16:
      return "bf16";
    case Layout::split:
      return "3 x bf16";
    case Layout::halves:
      return "2 x f16";
    case Layout::folded:
      return "fp8";
    case Layout::native:
      return "block-scaled fp8";
  }
  return "?";
}

}  // namespace cuda

CudaBackend::CudaBackend(const CudaOptions& options)
    : options_(options),
      memory_(select(options)),
      stream_(cuda::make_stream()),
      staging_(memory_, stream_.get(), options.device, memory_.limit() / kAheadShare),
      products_(memory_, stream_.get(), options.reversed),
      sdpa_(stream_.get()) {
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, options.device), "asking what it is");
  multiprocessors_ = properties.multiProcessorCount;
  if (options.route == GemmRoute::fast) {
    if (properties.major == kHopper) fast_ = Fast::folded;
    // A block-scaled product is computed as a whole, so not in another order.
    if (properties.major >= kBlackwell && !options.reversed) fast_ = Fast::native;
  }
  fell_back_ = memory_.allocate(sizeof(unsigned long long));
  cuda::check(cudaMemsetAsync(fell_back_.get(), 0, sizeof(unsigned long long), stream()), "starting");
  name_ = fmt::format("cuda sm_{}{} {}", properties.major, properties.minor, properties.name);
}

CudaBackend::~CudaBackend() { cudaStreamSynchronize(stream_.get()); }

std::string CudaBackend::description() const {
  return fmt::format("{}{}{}", name_, options_.route == GemmRoute::fast ? " fast" : "",
                     options_.reversed ? " reversed" : "");
}

// --- time and memory

Mark CudaBackend::mark() { return {.time = std::chrono::steady_clock::now(), .event = cuda::record_event(stream())}; }

double CudaBackend::seconds(const Mark& from, const Mark& to) {
  assert(from.event && to.event);
  cuda::check(cudaEventSynchronize(cuda::event_of(to.event)), "waiting for it");
  float milliseconds = 0;
  cuda::check(cudaEventElapsedTime(&milliseconds, cuda::event_of(from.event), cuda::event_of(to.event)), "timing");
  return static_cast<double>(milliseconds) / 1e3;
}

DeviceMemory CudaBackend::device_memory() const {
  return {.limit = memory_.limit(), .used = memory_.used(), .peak = memory_.peak()};
}

RouteCounts CudaBackend::route_counts() {
  unsigned long long rows = 0;
  to_host(&rows, fell_back_.get(), sizeof rows);
  routes_.fell_back = static_cast<int64_t>(rows);
  return routes_;
}

Tensor CudaBackend::empty(DType type, int64_t rows, int64_t cols) {
  assert(rows >= 0 && cols >= 0);
  const int64_t stride = cuda::padded(std::max<int64_t>(cols, 1));
  return {type, rows, cols, stride, memory_.allocate(static_cast<size_t>(rows * stride) * dtype_size(type))};
}

std::shared_ptr<void> CudaBackend::to_device_bytes(const void* from, size_t bytes) {
  auto memory = memory_.allocate(std::max<size_t>(bytes, 1));
  small_.copy(memory.get(), from, bytes, stream());
  return memory;
}

void CudaBackend::to_host(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream()), "a download");
  cuda::check(cudaStreamSynchronize(stream()), "a download");
}

Tensor CudaBackend::upload(const HostMatrix& source, DType type) {
  Tensor result = empty(type, source.rows, source.cols);
  if (source.rows == 0) return result;
  const size_t element = dtype_size(source.type);
  const auto cols = static_cast<size_t>(source.cols);
  std::vector<std::byte> packed;
  const std::byte* data = source.data;
  if (source.stride != source.cols && source.rows > 1) {
    packed.resize(static_cast<size_t>(source.rows) * cols * element);
    for (int64_t r = 0; r < source.rows; ++r) {
      std::memcpy(packed.data() + static_cast<size_t>(r) * cols * element,
                  source.data + static_cast<size_t>(r * source.stride) * element, cols * element);
    }
    data = packed.data();
  }
  const auto raw = to_device_bytes(data, static_cast<size_t>(source.rows) * cols * element);
  cuda::convert_matrix(
      {.data = raw.get(), .type = source.type, .rows = source.rows, .cols = source.cols, .stride = source.cols},
      cuda::view(result), stream());
  return result;
}

void CudaBackend::download(const Tensor& from, std::span<float> out) {
  assert(static_cast<int64_t>(out.size()) == from.rows() * from.cols());
  if (out.empty()) return;
  const auto packed = scratch(out.size_bytes());
  cuda::convert_matrix(
      cuda::view(from),
      {.data = packed.get(), .type = DType::f32, .rows = from.rows(), .cols = from.cols(), .stride = from.cols()},
      stream());
  to_host(out.data(), packed.get(), out.size_bytes());
}

void CudaBackend::allocate_operand(int64_t rows, int64_t cols, DType model, Operand& out) {
  out.values = empty(out.type.storage, rows, cols);
  if (!out.type.spec) return;
  if (dtype_size(out.type.storage) == 1) {
    auto fast = std::make_shared<cuda::FastOperand>();
    if (fast_ == Fast::native) {
      fast->scales = empty(DType::f8_e8m0, 1, cuda::scale_bytes(rows, cols / cuda::kScaledBlock));
    } else {
      fast->scales = empty(DType::f32, 1, rows);
      if (!cuda::fold_rounds(*out.type.spec)) {
        fast->inexact = empty(DType::bf16, rows, cols);
        fast->inexact_rows = empty(DType::i32, 1, rows + 1);
        cuda::check(cudaMemsetAsync(fast->inexact_rows.data(), 0, sizeof(int32_t), stream()), "folding an operand");
      }
    }
    out.device = std::move(fast);
    return;
  }
  if (mx::has_row_scales(*out.type.spec)) out.row_scales = empty(DType::f32, 1, rows);
  if (out.type.spec->scaling == mx::Scaling::int8_outliers) out.outliers = empty(model, rows, cols);
}

void CudaBackend::hold_table(const HostMatrix& table) {
  const uint64_t bytes = static_cast<uint64_t>(table.rows * cuda::padded(table.cols)) * dtype_size(table.type);
  if (bytes <= memory_.limit() / kTableShare) tables_.insert_or_assign(table.data, staging_.get(table));
}

void CudaBackend::drop_table(const HostMatrix& table) { tables_.erase(table.data); }

std::optional<View> CudaBackend::resident_table(const HostMatrix& table) const {
  const auto found = tables_.find(table.data);
  if (found == tables_.end()) return std::nullopt;
  return found->second.view;
}

// --- weights

std::shared_ptr<void> CudaBackend::weight_memory(size_t bytes, size_t row_bytes) {
  const size_t slack = static_cast<size_t>(cuda::kRowSlack - 1) * row_bytes;
  auto memory = memory_.allocate(std::max<size_t>(bytes + slack, 1));
  cuda::check(cudaMemsetAsync(static_cast<std::byte*>(memory.get()) + bytes, 0, slack, stream()), "a weight");
  return memory;
}

void CudaBackend::prefetch(const HostMatrix& source) { staging_.prefetch(source); }
void CudaBackend::forget(const HostMatrix& source) { staging_.forget(source); }

std::shared_ptr<Weight> CudaBackend::halve(const View& values) {
  const int64_t part = cuda::padded(values.cols);
  auto weight = std::make_shared<Weight>();
  weight->layout = cuda::Layout::halves;
  weight->n = values.rows;
  weight->k = values.cols;
  weight->stride = 3 * part;
  const auto bytes = static_cast<size_t>(weight->n * weight->stride) * 2;
  const auto power_bytes = static_cast<size_t>(weight->n) * sizeof(float);
  weight->size = bytes + power_bytes;
  weight->values = weight_memory(bytes, bytes / static_cast<size_t>(std::max<int64_t>(weight->n, 1)));
  weight->powers = std::static_pointer_cast<float>(memory_.allocate(std::max<size_t>(power_bytes, 1)));
  cuda::halve_matrix(values,
                     {.data = weight->values.get(),
                      .type = DType::f16,
                      .rows = weight->n,
                      .cols = weight->stride,
                      .stride = weight->stride},
                     weight->powers.get(), part, /*weight=*/true, stream());
  return weight;
}

std::shared_ptr<Weight> CudaBackend::split(const Weight& halves) {
  const int64_t n = halves.n, part = cuda::padded(halves.k);
  const auto memory = scratch(static_cast<size_t>(n * part) * sizeof(float));
  const View values{.data = memory.get(), .type = DType::f32, .rows = n, .cols = halves.k, .stride = part};
  cuda::join_halves(
      {.data = halves.values.get(), .type = DType::f16, .rows = n, .cols = halves.stride, .stride = halves.stride},
      halves.powers.get(), part, values, stream());
  auto weight = std::make_shared<Weight>();
  weight->layout = cuda::Layout::split;
  weight->n = n;
  weight->k = halves.k;
  weight->stride = 3 * part;
  weight->size = static_cast<size_t>(n * weight->stride) * 2;
  weight->values = weight_memory(weight->size, static_cast<size_t>(weight->stride) * 2);
  weight->scales = halves.scales;
  cuda::split_matrix(
      values,
      {.data = weight->values.get(), .type = DType::bf16, .rows = n, .cols = weight->stride, .stride = weight->stride},
      part, /*smallest_first=*/true, stream());
  return weight;
}

std::shared_ptr<Weight> CudaBackend::fold(const mx::Format& format, const View& values) {
  auto weight = std::make_shared<Weight>();
  weight->layout = cuda::Layout::folded;
  weight->n = values.rows;
  weight->k = values.cols;
  weight->stride = cuda::padded(values.cols);
  const auto bytes = static_cast<size_t>(weight->n * weight->stride);
  weight->size = bytes + static_cast<size_t>(weight->n) * sizeof(float);
  weight->values = memory_.allocate(std::max<size_t>(bytes, 1));
  weight->fold_scales = std::static_pointer_cast<float>(
      memory_.allocate(std::max<size_t>(static_cast<size_t>(weight->n), 1) * sizeof(float)));
  const auto inexact = scratch(sizeof(int32_t));
  const bool rounds = cuda::fold_rounds(format);
  if (!rounds) cuda::check(cudaMemsetAsync(inexact.get(), 0, sizeof(int32_t), stream()), "folding a weight");
  cuda::fold_weight(format, values, codes_of(*weight), weight->fold_scales.get(),
                    rounds ? nullptr : static_cast<int32_t*>(inexact.get()), stream());
  int32_t misfits = 0;
  if (!rounds) to_host(&misfits, inexact.get(), sizeof misfits);
  return misfits == 0 ? weight : nullptr;
}

std::optional<DType> CudaBackend::fast_type(const OperandSpec& spec, bool weight, int64_t cols) const {
  switch (fast_) {
    case Fast::folded:
      return cuda::fold_type(spec, weight, cols);
    case Fast::native:
      return cuda::native_type(spec, weight, cols);
    case Fast::none:
      break;
  }
  return std::nullopt;
}

std::shared_ptr<Weight> CudaBackend::scale_blocks(const mx::Format& format, const View& values) {
  auto weight = std::make_shared<Weight>();
  weight->layout = cuda::Layout::native;
  weight->n = values.rows;
  weight->k = values.cols;
  weight->stride = cuda::padded(values.cols);
  const auto bytes = static_cast<size_t>(weight->n * weight->stride);
  const auto scales = static_cast<size_t>(cuda::scale_bytes(weight->n, weight->k / cuda::kScaledBlock));
  weight->size = bytes + scales;
  weight->values = weight_memory(bytes, static_cast<size_t>(weight->stride));
  weight->block_scales = memory_.allocate(std::max<size_t>(scales, 1));
  cuda::encode_native(format, values, codes_of(*weight), weight->block_scales.get(), stream());
  return weight;
}

std::shared_ptr<const PreparedWeight> CudaBackend::prepare(const HostMatrix& source, const OperandSpec& spec) {
  const cuda::Staging::Arrived arrived = staging_.get(source);
  const int64_t n = source.rows, k = source.cols, stride = cuda::padded(k);
  const auto float32_copy = [&](DType type) {
    return View{.data = nullptr, .type = type, .rows = n, .cols = k, .stride = stride};
  };
  if (!spec && source.type != DType::bf16) return halve(arrived.view);
  if (fast_type(spec, /*weight=*/true, k)) {
    if (fast_ == Fast::native && n % cuda::kNativeOutputs == 0) return scale_blocks(*spec, arrived.view);
    if (fast_ == Fast::folded) {
      if (auto folded = fold(*spec, arrived.view)) return folded;
    }
  }
  auto weight = std::make_shared<Weight>();
  weight->n = n;
  weight->k = k;
  weight->stride = stride;
  weight->size = static_cast<size_t>(n * stride) * 2;
  if (!spec) {
    weight->values = arrived.memory;
    return weight;
  }
  std::shared_ptr<float> scales;
  if (mx::has_row_scales(*spec)) {
    scales =
        std::static_pointer_cast<float>(memory_.allocate(std::max<size_t>(static_cast<size_t>(n), 1) * sizeof(float)));
    weight->size += static_cast<size_t>(n) * sizeof(float);
  }
  const auto counters = scratch(64);
  if (!mx::decodes_exactly_to_bf16(*spec)) {
    View wide = float32_copy(DType::f32);
    const auto memory = scratch(static_cast<size_t>(n * stride) * sizeof(float));
    wide.data = memory.get();
    cuda::quantize_matrix(*spec, arrived.view, wide, scales.get(), counters.get(), stream());
    weight = halve(wide);
  } else {
    weight->values = weight_memory(static_cast<size_t>(n * stride) * 2, static_cast<size_t>(stride) * 2);
    View values = float32_copy(DType::bf16);
    values.data = weight->values.get();
    cuda::quantize_matrix(*spec, arrived.view, values, scales.get(), counters.get(), stream());
  }
  weight->scales = std::move(scales);
  return weight;
}

std::shared_ptr<const KeptWeight> CudaBackend::keep(const HostMatrix& source, const OperandSpec& spec) {
  auto kept = std::make_shared<cuda::Kept>();
  const bool fast = fast_type(spec, /*weight=*/true, source.cols).has_value();
  if (!spec || spec->scaling != mx::Scaling::block || !mx::keeps_codes(*spec) || fast) {
    kept->prepared = prepare(source, spec);
    return kept;
  }
  const cuda::Staging::Arrived arrived = staging_.get(source);
  kept->format = *spec;
  kept->n = source.rows;
  kept->k = source.cols;
  const auto codes = static_cast<size_t>(source.rows * mx::packed_bytes(spec->element, source.cols));
  const auto scales = static_cast<size_t>(source.rows * mx::block_count(*spec, source.cols));
  kept->codes = memory_.allocate(std::max<size_t>(codes, 1));
  kept->scales = memory_.allocate(std::max<size_t>(scales, 1));
  kept->size = codes + scales;
  cuda::encode_matrix(*spec, arrived.view, kept->codes.get(), kept->scales.get(), stream());
  return kept;
}

std::shared_ptr<const PreparedWeight> CudaBackend::prepare(std::shared_ptr<const KeptWeight> kept) {
  const auto& k = dynamic_cast<const cuda::Kept&>(*kept);
  if (k.prepared) return k.prepared;
  auto weight = std::make_shared<Weight>();
  weight->n = k.n;
  weight->k = k.k;
  weight->stride = cuda::padded(k.k);
  weight->size = static_cast<size_t>(k.n * weight->stride) * 2;
  weight->values = weight_memory(weight->size, static_cast<size_t>(weight->stride) * 2);
  cuda::decode_matrix(
      k.format, k.codes.get(), k.scales.get(),
      {.data = weight->values.get(), .type = DType::bf16, .rows = k.n, .cols = k.k, .stride = weight->stride},
      stream());
  return weight;
}

OperandType CudaBackend::operand_type(const OperandSpec& activations, const PreparedWeight& weight, DType model) const {
  const auto& w = dynamic_cast<const Weight&>(weight);
  if (w.fast()) {
    if (const auto type = fast_type(activations, /*weight=*/false, w.k)) return {activations, *type};
  }
  const bool exact = activations ? mx::decodes_exactly_to_bf16(*activations) : model == DType::bf16;
  return {activations, exact ? DType::bf16 : DType::f32};
}

// --- products

const Weight& CudaBackend::layout_for(DType storage, const Weight& weight) {
  if (weight.layout == cuda::Layout::halves && storage != DType::f32) {
    if (!weight.wide) weight.wide = split(weight);
    return *weight.wide;
  }
  if (!weight.fast() || dtype_size(storage) == 1) return weight;
  if (!weight.wide) {
    auto wide = std::make_shared<Weight>();
    wide->n = weight.n;
    wide->k = weight.k;
    wide->stride = weight.stride;
    wide->size = static_cast<size_t>(weight.n * weight.stride) * 2;
    wide->values = weight_memory(wide->size, static_cast<size_t>(wide->stride) * 2);
    const View codes = codes_of(weight);
    const View values{
        .data = wide->values.get(), .type = DType::bf16, .rows = weight.n, .cols = weight.k, .stride = weight.stride};
    if (weight.layout == cuda::Layout::native) {
      cuda::decode_native(codes, weight.block_scales.get(), values, stream());
    } else {
      cuda::unfold(codes, weight.fold_scales.get(), values, stream());
    }
    weight.wide = std::move(wide);
  }
  return *weight.wide;
}

cuda::Factor CudaBackend::factor_of(const Operand& x, const Weight& weight) {
  if (const auto* fast = cuda::fast_part(x)) return cuda::Products::scaled(x.values, fast->scales);
  const bool halves = layout_for(x.type.storage, weight).layout == cuda::Layout::halves;
  return halves ? products_.halves(x.values) : products_.factor(x.values);
}

void CudaBackend::recompute(const Operand& x, const Weight& weight, int64_t first_row, int64_t first, const View& out) {
  const auto* fast = cuda::fast_part(x);
  if (fast == nullptr || fast->inexact.empty()) return;
  const View codes{.data = static_cast<std::byte*>(weight.values.get()) + first * weight.stride,
                   .type = DType::f8_e4m3,
                   .rows = out.cols,
                   .cols = weight.k,
                   .stride = weight.stride};
  cuda::recompute_rows(cuda::view(fast->inexact), fast->inexact_rows.row<int32_t>(0), codes,
                       weight.fold_scales.get() + first, first_row, out,
                       static_cast<unsigned long long*>(fell_back_.get()), stream());
}

void CudaBackend::finish_sums(const Operand& x, const cuda::Factor& outliers, const Weight& weight, int64_t first_row,
                              int64_t first, const cuda::Powers& powers, const float* bias, const View& sums,
                              const View& out) {
  // Scales of a fast route are in the sums.
  const float* row_scales = x.row_scales.empty() ? nullptr : x.row_scales.row<float>(0) + first_row;
  const float* column_scales = weight.scales ? weight.scales.get() + first : nullptr;
  std::shared_ptr<void> memory;
  View aside;
  if (!x.outliers.empty()) {
    assert(weight.layout != cuda::Layout::halves);  // LLM.int8's values are bfloat16
    aside = sums;
    memory = scratch(static_cast<size_t>(sums.rows * sums.stride) * sizeof(float));
    aside.data = memory.get();
    products_.multiply(outliers, first_row, weight, first, nullptr, aside);
  }
  if (row_scales == nullptr && column_scales == nullptr && aside.data == nullptr && bias == nullptr &&
      powers.rows == nullptr && sums.data == out.data) {
    return;
  }
  cuda::scale_sums(sums,
                   {.powers = powers, .rows = row_scales, .outliers = aside, .columns = column_scales, .bias = bias},
                   out, stream());
}

void CudaBackend::product(const Operand& x, const Weight& prepared, const float* bias, Tensor& out) {
  const Weight& weight = layout_for(x.type.storage, prepared);
  const cuda::Factor factor = factor_of(x, weight);
  const bool fast = weight.fast();
  if (fast) {
    ++routes_.products;
    routes_.rows += out.rows();
  }
  const bool scaled = !x.row_scales.empty() || !x.outliers.empty() || weight.scales;
  // (The library adds a bias to float32 results in old kernels only, at a third of the speed.)
  const bool bias_there = bias == nullptr || (!fast && out.dtype() == DType::bf16);
  if (!scaled && products_.single(factor, weight) && bias_there) {
    std::shared_ptr<void> narrow;
    const void* own_bias = nullptr;
    if (bias != nullptr) {
      narrow = scratch(static_cast<size_t>(out.cols()) * sizeof(BFloat16));
      cuda::convert_bias(bias, narrow.get(), out.cols(), stream());
      own_bias = narrow.get();
    }
    products_.multiply(factor, 0, weight, 0, own_bias, cuda::view(out));
    recompute(x, weight, 0, 0, cuda::view(out));
    return;
  }
  const bool in_place = out.dtype() == DType::f32;
  Tensor aside;
  if (!in_place) aside = empty(DType::f32, out.rows(), out.cols());
  const View sums = cuda::view(in_place ? out : aside);
  products_.multiply(factor, 0, weight, 0, nullptr, sums);
  recompute(x, weight, 0, 0, sums);
  finish_sums(x, x.outliers.empty() ? cuda::Factor{} : products_.factor(x.outliers), weight, 0, 0,
              {.rows = factor.powers, .columns = weight.powers.get()}, bias, sums, cuda::view(out));
}

void CudaBackend::linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) {
  const auto& w = dynamic_cast<const Weight&>(weight);
  assert(x.values.cols() == w.k && out.cols() == w.n && x.values.rows() == out.rows());
  assert(epilogue.bias == nullptr || epilogue.bias->dtype() == DType::f32);
  if (out.rows() == 0) return;
  const float* bias = epilogue.bias == nullptr ? nullptr : epilogue.bias->row<float>(0);
  const bool later = epilogue.residual != nullptr || epilogue.outputs || epilogue.multiplier != 1 ||
                     epilogue.arithmetic == Arithmetic::bf16_rounded;
  if (!later) return product(x, w, bias, out);
  Tensor y = empty(out.dtype(), out.rows(), out.cols());
  const auto finish = [&](const cuda::Powers& powers, const float* more) {
    cuda::finish_rows(cuda::view(y), powers, more, epilogue.outputs, epilogue.multiplier, cuda::view(epilogue.residual),
                      epilogue.arithmetic, cuda::view(out), stream());
  };
  const bool halves = w.layout == cuda::Layout::halves && x.type.storage == DType::f32;
  if (halves && out.dtype() == DType::f32 && !w.scales && x.row_scales.empty()) {
    // All that is done to the sums in one pass.
    const cuda::Factor factor = factor_of(x, w);
    products_.multiply(factor, 0, w, 0, nullptr, cuda::view(y));
    return finish({.rows = factor.powers, .columns = w.powers.get()}, bias);
  }
  product(x, w, epilogue.arithmetic == Arithmetic::bf16_rounded ? nullptr : bias, y);
  finish({}, epilogue.arithmetic == Arithmetic::bf16_rounded ? bias : nullptr);
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  const CudaDevices found = find_cuda_devices();
  if (found.devices.empty()) fail("There is no GPU to use: {}.", found.reason);
  const auto device = std::find_if(found.devices.begin(), found.devices.end(),
                                   [&](const CudaDevice& d) { return d.index == options.device; });
  if (device == found.devices.end()) {
    fail("There is no GPU {}; the driver lists {}.", options.device, found.devices.size());
  }
  if (!device->supported) {
    fail("This build has no code for GPU {} ({}, {}); build it with -DCMAKE_CUDA_ARCHITECTURES for it.", options.device,
         device->name, device->architecture);
  }
  return std::make_unique<CudaBackend>(options);
}

}  // namespace mxlm
