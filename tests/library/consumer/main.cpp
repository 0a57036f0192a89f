#include <iostream>
#include <mxlm/mxlm.hpp>

int main() {
  const auto model = mxlm::api::Model::load();  // booklet-7m, which is built in; or a folder, or "org/name"
  mxlm::api::EvaluateOptions options;
  options.variants = {"mlp=mxfp4"};
  options.context = 128;    // tokens
  options.max_windows = 2;  // enough for an example
  const auto result = mxlm::api::evaluate(model, mxlm::api::Data::embedded(), options);
  for (const auto& f : result.figures) std::cout << f.name << ' ' << f.ppl << ' ' << f.kld_mean.value_or(0) << '\n';
  try {
    mxlm::api::quantize("mxfp3", std::vector<float>{1, 2, 3}, 3);
  } catch (const mxlm::Error& error) {
    std::cout << error.what() << '\n';
  }
}
