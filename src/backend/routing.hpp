#pragma once

// From router logits to experts, on the host: the same for every backend.

#include <span>
#include <vector>

#include "backend/backend.hpp"

namespace mxlm {

/// A Routing of `rows` rows with room for its experts and weights.
Routing empty_routing(int64_t rows, const RoutingArgs& args);

/// Routes rows one after the other; one of each a thread.
class Router {
 public:
  /// `model`: the dtype that weights are rounded to where args.round_weights.
  Router(const RoutingArgs& args, DType model) : args_(args), model_(model) {}
  /// The experts of row r, whose logits these are (at least args.top_k), into its places of `out`.
  void choose(std::span<const float> logits, int64_t r, Routing& out);

 private:
  /// A logit and whose it is.
  struct Choice {
    float logit = 0;
    int32_t expert = 0;
  };
  static bool precedes(const Choice& a, const Choice& b);

  RoutingArgs args_;
  DType model_;
  std::vector<Choice> choices_;
};

}  // namespace mxlm
