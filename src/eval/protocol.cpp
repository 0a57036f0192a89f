#include "eval/protocol.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "base/error.hpp"
#include "base/suggest.hpp"
#include "eval/protocols/job.hpp"

namespace mxlm {
namespace {

struct Protocol {
  const char* name;
  void (*run)(const protocols::Job&);
  Aggregate aggregate;
  int64_t context;  // by default, where the model has as many positions; 0 = the model's maximum
  ScoreKind kind = ScoreKind::next_token;
};

constexpr int64_t kLongContext = 2048, kShortContext = 512;

constexpr Protocol kProtocols[] = {
    {"window", protocols::window, Aggregate::token_mean, kLongContext},
    {"document", protocols::document, Aggregate::token_mean, kShortContext},
    {"gptq", protocols::gptq, Aggregate::window_mean, kLongContext},
    {"hf-stride", protocols::hf_stride, Aggregate::weighted_windows, kLongContext},
    {"llamacpp", protocols::llamacpp, Aggregate::token_mean, kShortContext},
    {"lmeval", protocols::lmeval, Aggregate::token_mean, 0},
    {"self", protocols::self, Aggregate::token_mean, kShortContext, ScoreKind::self},
};

const Protocol& find_protocol(const std::string& name) {
  const auto* protocol =
      std::find_if(std::begin(kProtocols), std::end(kProtocols), [&](const Protocol& p) { return p.name == name; });
  if (protocol == std::end(kProtocols)) {
    fail_usage("There is no protocol '{}'; it is one of {}.{}", name, fmt::join(protocol_names(), ", "),
               suggestion(name, protocol_names()));
  }
  return *protocol;
}

/// The stride of hf-stride; 0 for the others, which have none.
int64_t checked_stride(const ProtocolOptions& options) {
  if (options.name != "hf-stride") {
    if (options.stride != 0) fail_usage("--stride belongs to --protocol hf-stride; protocol {} has none", options.name);
    return 0;
  }
  if (options.stride < 0 || options.stride > options.context) {
    fail_usage("--stride must be from 1 to the context of {} tokens, not {}: a longer one would leave tokens out",
               options.context, options.stride);
  }
  return options.stride == 0 ? std::min(kShortContext, options.context) : options.stride;
}

}  // namespace

WindowSet make_windows(const ProtocolOptions& options, const DocumentSource& source, const Tokenizer& tokenizer) {
  const Protocol& protocol = find_protocol(options.name);
  if (options.context < 2 || options.context > std::numeric_limits<int32_t>::max()) {
    fail_usage("--context must be 2 or more tokens (and fit 31 bits), not {}", options.context);
  }
  if (options.max_windows < 0) fail_usage("--max-windows must not be negative");
  WindowSet out;
  out.aggregate = protocol.aggregate;
  out.kind = protocol.kind;
  out.stride = checked_stride(options);
  protocol.run({.options = options, .source = source, .tokenizer = tokenizer, .out = out});
  if (out.windows.empty()) {
    fail("'{}' has no token to score: protocol {} needs a text of at least two tokens", source.name, options.name);
  }
  return out;
}

const std::vector<std::string>& protocol_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const Protocol& protocol : kProtocols) out.emplace_back(protocol.name);
    return out;
  }();
  return names;
}

int64_t default_context(const std::string& protocol, int64_t max_positions) {
  const int64_t wanted = find_protocol(protocol).context;
  return wanted == 0 ? max_positions : std::min(max_positions, wanted);
}

}  // namespace mxlm
