#pragma once

// Models of true shapes with random weights, made in memory: what speed depends on, without a checkpoint.

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "model/spec.hpp"
#include "protocols/protocol.hpp"

namespace mxlm::bench {

/// Host memory full of normal random numbers times 0.02, from which weights are cut one after the other. Once it is
/// used up it is gone through again from another offset, so that a model may be larger than it: every weight still has
/// an address of its own.
class RandomWeights {
 public:
  /// `type` is f32 or bf16; `elements` at least those of the largest matrix asked for, twice.
  RandomWeights(DType type, int64_t elements);
  [[nodiscard]] WeightSource matrix(int64_t rows, int64_t cols);
  /// 1 + random number: the weight of a norm.
  [[nodiscard]] WeightSource norm_weight(int64_t cols);
  [[nodiscard]] DType type() const { return type_; }

 private:
  DType type_;
  int64_t elements_, next_ = 0, wraps_ = 0;
  std::unique_ptr<std::byte[]> values_;
  std::set<const std::byte*> given_;
  std::vector<std::unique_ptr<std::byte[]>> norms_;
};

/// A model in llama's layout, with experts if `experts` > 0.
struct LlamaShape {
  int64_t layers = 0, hidden = 0, intermediate = 0, vocabulary = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  int experts = 0, top_k = 0;
};
constexpr LlamaShape kLlama8B{.layers = 32,
                              .hidden = 4096,
                              .intermediate = 14336,
                              .vocabulary = 128256,
                              .heads = 32,
                              .kv_heads = 8,
                              .head_dim = 128};
constexpr LlamaShape kMixtral8x7B{.layers = 32,
                                  .hidden = 4096,
                                  .intermediate = 14336,
                                  .vocabulary = 32000,
                                  .heads = 32,
                                  .kv_heads = 8,
                                  .head_dim = 128,
                                  .experts = 8,
                                  .top_k = 2};
ModelSpec llama_model(RandomWeights& weights, const LlamaShape& shape);

/// phi-1_5 (24 layers, hidden 2048, 32 heads, vocabulary 51200) and TinyStories-33M (4 layers, hidden 768, 16 heads,
/// vocabulary 50257), or smaller ones of their kinds.
struct PlainShape {
  int64_t layers = 0, hidden = 0, vocabulary = 0;
  int heads = 0;
};
constexpr PlainShape kPhi15{.layers = 24, .hidden = 2048, .vocabulary = 51200, .heads = 32};
constexpr PlainShape kTinyStories33M{.layers = 4, .hidden = 768, .vocabulary = 50257, .heads = 16};
ModelSpec phi_model(RandomWeights& weights, const PlainShape& shape);
ModelSpec gpt_neo_model(RandomWeights& weights, const PlainShape& shape);

/// Windows of random tokens.
std::vector<Window> random_windows(size_t count, size_t length, int64_t vocabulary);

}  // namespace mxlm::bench
