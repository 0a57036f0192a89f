#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/parallel.hpp"
#include "io/embedded.hpp"
#include "io/hub/data_sets.hpp"
#include "io/sha256.hpp"
#include "library/state.hpp"
#include "report/report.hpp"

namespace mxlm::api {
namespace {

BosPolicy policy_of(Bos bos) {
  switch (bos) {
    case Bos::from_template:
      return BosPolicy::from_template;
    case Bos::always:
      return BosPolicy::always;
    case Bos::never:
      return BosPolicy::never;
  }
  fail_usage("EvaluateOptions::bos holds no value of Bos; give one.");
}

DTypeChoice choice_of(ComputeType type) {
  switch (type) {
    case ComputeType::automatic:
      return DTypeChoice::automatic;
    case ComputeType::float32:
      return DTypeChoice::float32;
    case ComputeType::bfloat16:
      return DTypeChoice::bfloat16;
  }
  fail_usage("EvaluateOptions::dtype holds no value of ComputeType; give one.");
}

/// The command line bounds these in its own words.
void check_counts(const EvaluateOptions& options) {
  const auto not_negative = [](const char* name, int64_t value) {
    if (value < 0) fail_usage("{} is {}; give 0 or a positive number.", name, value);
  };
  not_negative("context", options.context);
  not_negative("stride", options.stride);
  not_negative("max_windows", options.max_windows);
  not_negative("windows", options.windows);
  not_negative("batch_windows", options.batch_windows);
  not_negative("round_tokens", options.round_tokens);
  not_negative("threads", options.threads);
  if (options.threads > 4096) fail_usage("threads is {}; give at most 4096.", options.threads);
  if (options.resume && options.journal.empty()) fail_usage("resume needs a journal; name its folder.");
}

Figures figures_of(const VariantResult& variant) {
  const VariantFigures& f = variant.figures;
  Figures out{.name = variant.name,
              .spec = variant.spec,
              .tokens = f.tokens,
              .nll = f.nll,
              .ppl = f.ppl,
              .ppl_stderr = f.ppl_stderr,
              .ppl_stderr_windows = f.ppl_stderr_windows,
              .kld_mean = {},
              .kld_stderr = {},
              .kld_stderr_windows = {},
              .top1_agreement = {},
              .tokens_per_second = variant.tokens_per_second};
  if (f.vs_baseline) {
    out.kld_mean = f.vs_baseline->kld_mean;
    out.kld_stderr = f.vs_baseline->kld_stderr;
    out.kld_stderr_windows = f.vs_baseline->kld_stderr_windows;
    out.top1_agreement = f.vs_baseline->top1_agreement;
  }
  return out;
}

}  // namespace

Model::Model(std::shared_ptr<const State> state) : state_(std::move(state)) {}
Data::Data(std::shared_ptr<const State> state) : state_(std::move(state)) {}

std::string Model::name() const { return state_->loaded.name; }
std::string Model::family() const { return state_->loaded.spec.family; }
std::string Model::dtype() const { return std::string(dtype_name(state_->loaded.spec.dtype)); }
int64_t Model::parameters() const { return state_->loaded.spec.parameters(); }
int64_t Model::max_positions() const { return state_->loaded.spec.max_positions; }
int64_t Data::documents() const { return static_cast<int64_t>(state_->source.documents.size()); }
bool Data::is_text() const { return state_->source.is_text; }

Model open_model(const std::string& model, const std::string& adapter, const hub::OnFetch& on_fetch) {
  const auto start = std::chrono::steady_clock::now();
  auto state = std::make_shared<Model::State>();
  state->loaded = load_model(model, /*with_tokenizer=*/true, on_fetch, adapter);
  state->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return Model(std::move(state));
}

Model Model::load(const std::string& model, const Cancelled& cancelled, const std::string& adapter) {
  const CancellationScope scope(&cancelled);
  throw_if_interrupted();
  return open_model(model, adapter, {});
}

Data data_of(DocumentSource source) {
  auto state = std::make_shared<Data::State>();
  state->source = std::move(source);
  return Data(std::move(state));
}

Data read_data(const std::string& name, const Data::ReadOptions& options, const hub::OnFetch& on_fetch) {
  const hub::DataRequest request = hub::parse_data_request(name);
  return data_of(hub::read_data_set(
      request.name.empty() ? hub::Options() : hub::Options::from_environment(), request,
      {.field = options.field, .max_documents = options.max_documents, .wikitext_rows = options.wikitext_rows},
      on_fetch));
}

Data Data::read(const std::string& name, const ReadOptions& options) {
  if (options.max_documents < 0) fail_usage("max_documents is {}; give 0 or a positive number.", options.max_documents);
  const CancellationScope scope(&options.cancelled);
  return read_data(name, options, {});
}

Data Data::embedded() {
  DocumentSource source;
  const auto bytes = embedded::alice_text();
  source.name = "alice.txt (embedded)";
  source.sha256 = sha256_hex(bytes);
  source.documents.push_back({.text = {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, .subset = ""});
  source.is_text = true;
  return data_of(std::move(source));
}

Data Data::texts(std::vector<std::string> texts, std::string name) {
  if (texts.empty()) fail_usage("There is no text to evaluate on; give at least one.");
  DocumentSource source;
  source.name = std::move(name);
  source.is_text = true;
  std::string hashes;
  for (std::string& text : texts) {
    hashes += sha256_hex(std::as_bytes(std::span(text)));
    std::string valid;
    if (replace_invalid_utf8(text, valid)) {
      ++source.invalid_utf8;
      text = std::move(valid);
    }
    source.documents.push_back({.text = std::move(text), .subset = ""});
  }
  source.sha256 = texts.size() == 1 ? hashes : sha256_hex(std::as_bytes(std::span(hashes)));
  return data_of(std::move(source));
}

mxlm::EvaluateOptions resolve(const EvaluateOptions& options, const Data& data) {
  check_counts(options);
  mxlm::EvaluateOptions out;
  for (const std::string& variant : options.variants) out.variants.push_back(Variant::parse(variant));
  out.dtype = choice_of(options.dtype);
  out.allow_long_context = options.allow_long_context;
  out.noise = options.noise;
  out.jensen_shannon = options.jensen_shannon;
  out.linear_errors = options.linear_errors;
  out.exponents = options.exponents;
  out.stream = options.stream;
  out.batch_windows = options.batch_windows;
  out.round_tokens = options.round_tokens;
  out.protocol.context = options.context;
  out.protocol.stride = options.stride;
  out.protocol.max_windows = options.max_windows;
  out.protocol.windows = options.windows;
  out.protocol.loader_workers = options.threads > 0 ? options.threads : default_thread_count();
  out.protocol.bos = policy_of(options.bos);
  out.protocol.name = !options.protocol.empty() ? options.protocol : data.is_text() ? "window" : "document";
  out.journal = {.folder = options.journal, .root = {}, .resume = options.resume};
  return out;
}

RunResult run(const Model& model, const Data& data, const mxlm::EvaluateOptions& options,
              const std::function<void(const mxlm::Progress&)>& on_progress) {
  RunResult run = mxlm::evaluate(model.state().loaded, data.state().source, options, on_progress);
  run.seconds_load = model.state().seconds;
  for (VariantResult& variant : run.variants) variant.seconds.load = run.seconds_load;
  return run;
}

void warn_about(const RunResult& run) {
  for (const VariantResult& variant : run.variants) {
    if (variant.figures.nonfinite > 0) {
      log_warn("{}: {} of {} tokens have NaN or infinite logits, so its figures are not finite", variant.name,
               variant.figures.nonfinite, variant.figures.tokens);
    }
  }
}

Evaluation evaluate(const Model& model, const Data& data, const EvaluateOptions& options) {
  const CancellationScope scope(&options.cancelled);
  mxlm::EvaluateOptions resolved = resolve(options, data);
  resolved.devices = choose_devices({.request = DeviceRequest::parse(options.device),
                                     .gemm = options.gemm == Gemm::fast ? GemmRoute::fast : GemmRoute::exact},
                                    options.threads);
  EvalResult result;
  result.machine = machine_info(resolved.devices);
  result.runs.push_back(run(model, data, resolved, [&options](const mxlm::Progress& p) {
    if (!options.on_progress) return;
    options.on_progress({.done = p.done, .total = p.total, .seconds = p.seconds, .round = p.round, .rounds = p.rounds});
  }));
  const RunResult& only = result.runs.front();
  if (!only.stopped.empty()) {
    if (only.windows == 0) throw Error(only.stopped);
    log_error("{}", only.stopped);
  } else if (!only.complete && only.windows == 0) {
    throw Interrupted();
  }
  warn_about(only);
  Evaluation out;
  out.complete = only.complete;
  for (const VariantResult& variant : only.variants) out.figures.push_back(figures_of(variant));
  out.json = render_json(result);
  if (!only.journal_failure.empty()) log_error("the result is whole, but {}", only.journal_failure);
  return out;
}

}  // namespace mxlm::api
