// Any bytes as config.json beside the weights of the embedded model: either an Error or a spec whose rotary frequencies
// and sizes can be asked for.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"
#include "io/embedded.hpp"
#include "model/spec.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const mxlm::Checkpoint checkpoint =
      mxlm::Checkpoint::from_file(mxlm::FileView::from_memory("weights", mxlm::embedded::booklet_model()));
  try {
    const mxlm::Config config = mxlm::Config::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    const mxlm::ModelSpec spec = mxlm::load_spec(config, checkpoint);
    if (spec.linears().empty() || spec.parameters() <= 0) std::abort();
    for (const mxlm::RopeSpec& rope : spec.ropes) {
      const int64_t key = rope.length_key(spec.max_positions);
      if (static_cast<int64_t>(rope.inverse_frequencies(key).size()) != rope.dim / 2) std::abort();
    }
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
