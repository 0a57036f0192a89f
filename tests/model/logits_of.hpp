#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "backend/backend.hpp"
#include "model/forward.hpp"
#include "model/spec.hpp"

namespace mxlm {

/// Logits [tokens, vocabulary] of windows that share one micro-batch; `product_of` says what is quantised.
inline std::vector<float> logits_of(const ModelSpec& spec, Backend& backend, DType compute,
                                    const std::vector<std::span<const int32_t>>& windows,
                                    const std::function<ProductSpec(const LinearSpec&)>& product_of,
                                    const ProductSpec& attention_products = {}) {
  const ForwardPass forward(spec, backend, compute);
  const std::vector<MicroBatch> batches = [&] {
    std::vector<MicroBatch> out;
    out.push_back(forward.make_batch(windows));
    return out;
  }();
  std::vector<std::byte> storage;
  const auto prepare = [&](const LinearSpec& linear) {
    const ProductSpec product = product_of(linear);
    const HostMatrix source = linear.weight.view(storage);
    std::optional<RoundedMatrix> rounded;
    if (product.arithmetic == Arithmetic::bf16_rounded) rounded.emplace(source);
    const HostMatrix& matrix = rounded ? rounded->view() : source;
    auto weight = backend.prepare(matrix, product.weights);
    backend.forget(matrix);  // its memory is another weight's next
    return weight;
  };
  Tensor hidden = forward.embed(batches.front());
  const std::vector<const Tensor*> in{&hidden};
  const std::vector<Tensor*> out{&hidden};
  for (const Step& step : forward.steps()) {
    StepWeights weights{.linears = {}, .qk = attention_products, .pv = attention_products};
    for (size_t l = 0; l < step.linears.size(); ++l) {
      weights.linears.push_back(
          {.weight = l < step.prepared ? prepare(*step.linears[l]) : nullptr, .product = product_of(*step.linears[l])});
    }
    forward.run(
        step, weights, [&](size_t l) { return prepare(*step.linears[l]); }, batches, in, out, [](int64_t) {});
  }
  const StepLinear head{.weight = prepare(spec.lm_head), .product = product_of(spec.lm_head)};
  std::vector<int32_t> rows(static_cast<size_t>(hidden.rows()));
  for (size_t r = 0; r < rows.size(); ++r) rows[r] = static_cast<int32_t>(r);
  const Operand operand = forward.head_operand(hidden, rows, batches.front().batch.offsets, head);
  std::vector<float> logits(rows.size() * static_cast<size_t>(spec.vocabulary));
  backend.logits(forward.head_job(operand, head), logits);
  return logits;
}

}  // namespace mxlm
