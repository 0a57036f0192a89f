#include "model/steps.hpp"

#include <cassert>

namespace mxlm {
namespace {

void add(const std::vector<LinearSpec>& in, const LinearSpec& out, Step& step) {
  for (const LinearSpec& linear : in) step.linears.push_back(&linear);
  step.linears.push_back(&out);
}

void add_mlp(const MlpSpec& mlp, Step& step) {
  step.mlp = true;
  if (!mlp.is_mixture()) {
    add(mlp.in, mlp.out, step);
    step.prepared = step.linears.size();
    return;
  }
  step.linears.push_back(&*mlp.router);
  step.prepared = step.linears.size();
  for (const ExpertSpec& expert : mlp.experts) add(expert.in, expert.out, step);
  step.linears_an_expert = mlp.experts.front().in.size() + 1;
}

}  // namespace

std::vector<Step> steps_of(const ModelSpec& model) {
  std::vector<Step> out;
  size_t linears = 0;
  const auto finish = [&](Step& step) {
    step.first_linear = linears;
    linears += step.linears.size();
    out.push_back(std::move(step));
  };
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerSpec& layer = model.layers[i];
    assert(!layer.parallel || !layer.mlp.is_mixture());
    Step step{.layer = i, .attention = true, .linears = {}};
    add(layer.attention.qkv, layer.attention.o, step);
    step.prepared = step.linears.size();
    if (!layer.parallel) {
      finish(step);
      step = {.layer = i, .linears = {}};
    }
    add_mlp(layer.mlp, step);
    finish(step);
  }
  return out;
}

std::vector<const LinearSpec*> ModelSpec::linears() const {
  std::vector<const LinearSpec*> out;
  for (const Step& step : steps_of(*this)) out.insert(out.end(), step.linears.begin(), step.linears.end());
  out.push_back(&lm_head);
  return out;
}

}  // namespace mxlm
