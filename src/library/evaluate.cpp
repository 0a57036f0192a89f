#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/parallel.hpp"
#include "hub/data_sets.hpp"
#include "io/embedded.hpp"
#include "io/sha256.hpp"
#include "library/state.hpp"
#include "report/report.hpp"

namespace mxlm::api {
namespace {

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

Data read_data(const std::string& name, const EvaluateOptions& options, const hub::OnFetch& on_fetch) {
  const hub::DataRequest request = hub::parse_data_request(name);
  // These protocols read each row as a document; the other protocols read WikiText as the one text that it was.
  const bool rows = options.protocol == "document" || options.protocol == "self";
  return data_of(hub::read_data_set(
      request.name.empty() ? hub::Options() : hub::Options::from_environment(), request,
      {.field = options.field, .max_documents = options.max_samples, .wikitext_rows = rows}, on_fetch));
}

Data Data::read(const std::string& name, const EvaluateOptions& options) {
  check_options(options);
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
  if (texts.empty()) fail_usage("There is no text to evaluate on; give at least one text.");
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

DeviceSet choose_devices(const EvaluateOptions& options) {
  return mxlm::choose_devices({.request = DeviceRequest::parse(options.device),
                               .min_free_ratio = options.min_free_ratio,
                               .workers_per_device = options.workers_per_device,
                               .gemm = options.gemm == Gemm::fast ? GemmRoute::fast : GemmRoute::exact},
                              options.threads);
}

ResolvedOptions resolve_options(const EvaluateOptions& options, const Data& data, DeviceSet devices) {
  check_options(options);
  // As in PyTorch, with 0 loader workers the calling thread does the work alone.
  const int loaders = options.loader_workers >= 0 ? std::max(options.loader_workers, 1)
                      : options.threads > 0       ? options.threads
                                                  : default_thread_count();
  ResolvedOptions out{.asked = options,
                      .protocol = {.name = !options.protocol.empty() ? options.protocol
                                           : data.is_text()          ? "window"
                                                                     : "document",
                                   .context = options.context,
                                   .stride = options.stride,
                                   .max_windows = options.max_windows,
                                   .windows = options.windows,
                                   .bos = options.bos,
                                   .loader_workers = loaders},
                      .variants = {},
                      .devices = std::move(devices),
                      .journal_root = {},
                      .on_scores = {}};
  out.variants.reserve(options.variants.size());
  for (const std::string& variant : options.variants) out.variants.push_back(Variant::parse(variant));
  return out;
}

RunResult run(const Model& model, const Data& data, const ResolvedOptions& options,
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
  if (options.resume && options.journal.empty()) fail_usage("--resume needs --journal, the folder to go on with.");
  const CancellationScope scope(&options.cancelled);
  const ResolvedOptions resolved = resolve_options(options, data, choose_devices(options));
  EvalResult result;
  result.machine = machine_info(resolved.devices);
  result.runs.push_back(run(model, data, resolved, [&options](const mxlm::Progress& p) {
    if (!options.on_progress) return;
    options.on_progress({.done = p.done, .total = p.total, .seconds = p.seconds, .shard = p.round, .shards = p.rounds});
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
  if (!only.journal_failure.empty()) log_error("the result is complete, but {}", only.journal_failure);
  return out;
}

}  // namespace mxlm::api
