#include "protocols/protocol.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "base/error.hpp"
#include "base/suggest.hpp"
#include "protocols/job.hpp"
#include "protocols/wikitext.hpp"

namespace mxlm {
namespace {

struct Protocol {
  const char* name;
  void (*run)(const protocols::Job&);
  Aggregate aggregate;
  int64_t context;  // by default, where the model has as many positions; 0 = the model's maximum
  ScoreKind kind = ScoreKind::next_token;
  ClusterUnit unit = ClusterUnit::stretch;
};

constexpr int64_t kLongContext = 2048, kShortContext = 512;

constexpr Protocol kProtocols[] = {
    {"window", protocols::window, Aggregate::token_mean, kLongContext, ScoreKind::next_token, ClusterUnit::document},
    {"document", protocols::document, Aggregate::token_mean, kShortContext, ScoreKind::next_token,
     ClusterUnit::document},
    {"gptq", protocols::gptq, Aggregate::window_mean, kLongContext},
    {"hf-stride", protocols::hf_stride, Aggregate::weighted_windows, kLongContext},
    {"llamacpp", protocols::llamacpp, Aggregate::token_mean, kShortContext},
    {"lmeval", protocols::lmeval, Aggregate::token_mean, 0, ScoreKind::next_token, ClusterUnit::page},
    {"self", protocols::self, Aggregate::token_mean, kShortContext, ScoreKind::self, ClusterUnit::document},
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

/// Keeps `wanted` windows, spread evenly.
void spread(int64_t wanted, WindowSet& set) {
  const auto total = static_cast<int64_t>(set.windows.size());
  if (wanted >= total) return;
  std::vector<Window> kept;
  kept.reserve(static_cast<size_t>(wanted));
  set.scored_tokens = 0;
  int64_t next = 0;  // the first window that is neither kept nor counted as left out
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t at = (2 * i + 1) * total / (2 * wanted);
    Window& window = set.windows[static_cast<size_t>(at)];
    for (; next < at; ++next) {
      window.tokens_left_out += static_cast<int64_t>(set.windows[static_cast<size_t>(next)].scored()) + 1;
    }
    ++next;
    set.scored_tokens += static_cast<int64_t>(window.scored());
    kept.push_back(std::move(window));
  }
  kept.front().tokens_left_out = 0;
  set.windows = std::move(kept);
}

/// The protocol's unit where the windows hold several of them. Rows of WikiText are paragraphs of one text, not
/// documents.
ClusterUnit unit_of(const Protocol& protocol, const DocumentSource& source, const std::vector<Window>& windows) {
  const auto several = [&](auto differ) {
    return std::adjacent_find(windows.begin(), windows.end(), differ) != windows.end();
  };
  if (protocol.unit == ClusterUnit::page) {
    const bool pages = several([](const Window& a, const Window& /*b*/) { return a.note.words > 0; });
    return pages ? ClusterUnit::page : ClusterUnit::stretch;
  }
  if (protocol.unit == ClusterUnit::document && !source.is_text && !protocols::is_wikitext(source) &&
      several([](const Window& a, const Window& b) { return a.document != b.document; })) {
    return ClusterUnit::document;
  }
  return ClusterUnit::stretch;
}

}  // namespace

WindowSet make_windows(const ProtocolOptions& options, const DocumentSource& source, const Tokenizer& tokenizer) {
  const Protocol& protocol = find_protocol(options.name);
  if (options.context < 2 || options.context > std::numeric_limits<int32_t>::max()) {
    fail_usage("--context must be 2 or more tokens (and fit 31 bits), not {}", options.context);
  }
  if (options.max_windows < 0) fail_usage("--max-windows must not be negative");
  if (options.windows < 0) fail_usage("--windows must not be negative");
  if (options.windows > 0 && options.max_windows > 0) {
    fail_usage(
        "--windows (spread over the text) and --max-windows (the first ones) exclude one another; leave one out");
  }
  if (options.windows > 0 && protocol.unit == ClusterUnit::page) {
    fail_usage(
        "--windows cannot spread over protocol {}, whose figures are of whole pages; use --max-samples or "
        "--max-windows",
        options.name);
  }
  WindowSet out;
  out.aggregate = protocol.aggregate;
  out.kind = protocol.kind;
  out.stride = checked_stride(options);
  protocol.run({.options = options, .source = source, .tokenizer = tokenizer, .out = out});
  if (out.windows.empty()) {
    fail("'{}' has no token to score: protocol {} needs a text of at least two tokens", source.name, options.name);
  }
  out.cluster_unit = unit_of(protocol, source, out.windows);
  if (options.windows > 0) spread(options.windows, out);
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
