#include "run/prepare_run.hpp"

#include <chrono>
#include <stdexcept>

#include "base/error.hpp"
#include "run/resume.hpp"

namespace mxlm {
namespace {

ProtocolOptions resolve_protocol(const LoadedModel& model, const Tokenizer& tokenizer, const ResolvedOptions& options) {
  ProtocolOptions protocol = options.protocol;
  const int64_t longest = model.spec.max_positions;
  if (protocol.context == 0) protocol.context = default_context(protocol.name, longest);
  if (protocol.context > longest && !model.spec.extends()) {
    fail_usage("--context {} is above the {} positions of '{}', whose table of positions ends there.", protocol.context,
               longest, model.name);
  }
  if (protocol.context > longest && !options.asked.allow_long_context) {
    fail_usage(
        "--context {} is above the {} positions that '{}' was made for; pass --allow-long-context to run it "
        "nevertheless.",
        protocol.context, longest, model.name);
  }
  if (protocol.bos_id < 0) {
    const auto prefix = tokenizer.prefix();
    protocol.bos_id = prefix.empty() ? model.spec.bos_id : prefix.front();
  }
  const SpecialTokens& special = model.special;
  if (protocol.prefix_id < 0) protocol.prefix_id = special.bos >= 0 ? special.bos : special.eos;
  if (protocol.pad_id < 0) protocol.pad_id = special.pad >= 0 ? special.pad : special.eos;
  return protocol;
}

ModelInfo info_of(const LoadedModel& model, DType compute) {
  return {.name = model.name,
          .family = model.spec.family,
          .dtype = std::string(dtype_name(model.spec.dtype)),
          .compute_dtype = compute == DType::f32 ? "float32" : "bfloat16",
          .revision = model.revision,
          .sha256 = model.checkpoint.sha256(),
          .adapter = model.adapter ? model.adapter->name() : "",
          .adapter_sha256 = model.adapter ? model.adapter->sha256() : "",
          .parameters = model.spec.parameters()};
}

}  // namespace

PreparedRun prepare_run(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  PreparedRun out;
  out.variants.push_back(Variant::baseline());
  out.variants.insert(out.variants.end(), options.variants.begin(), options.variants.end());
  out.resolved = resolve(model.spec, out.variants);
  if (!model.tokenizer) throw std::logic_error("evaluate needs a model that was loaded with its tokenizer");
  out.compute = compute_dtype(model.spec, options.asked.dtype);
  if (options.ranks != nullptr) out.team = std::make_unique<Team>(*options.ranks, model, out.compute);
  out.protocol = resolve_protocol(model, *model.tokenizer, options);
  out.set = make_windows(out.protocol, data, *model.tokenizer);
  out.seconds_tokenize = std::chrono::duration<double>(Clock::now() - start).count();

  // Hash the weights before the run, so that an interrupt of the run does not leave the report without the hash.
  out.model = info_of(model, out.compute);
  BackendKind backend = backend_kind(options.devices);
  if (out.team) {
    out.team->gather(out.model.sha256, backend, options.mixed_ranks);
    backend = out.team->backends();
  }
  if (!options.asked.journal.empty() || !options.journal_root.empty()) {
    out.journal = open_journal(
        options,
        journal_facts(model, out.model.sha256, data, out.protocol, out.set.windows, out.compute, backend, options),
        out.set.windows.size());
  }
  return out;
}

}  // namespace mxlm
