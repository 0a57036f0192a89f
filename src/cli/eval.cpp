#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/parallel.hpp"
#include "cli/commands.hpp"
#include "cli/eval_options.hpp"
#include "cli/options.hpp"
#include "cli/outputs.hpp"
#include "cli/progress.hpp"
#include "eval/evaluate.hpp"
#include "eval/follow.hpp"
#include "eval/journal.hpp"
#include "eval/shorthands.hpp"
#include "io/file.hpp"
#include "io/hub/data_sets.hpp"
#include "library/state.hpp"
#include "report/report.hpp"

namespace mxlm::cli {

std::vector<Variant> collect_variants(const CLI::App& command, const EvalArguments& arguments) {
  std::vector<Variant> out;
  const auto add = [&out](std::vector<Variant> more) { std::move(more.begin(), more.end(), std::back_inserter(out)); };
  const std::vector<std::string> formats =
      arguments.formats.empty() ? std::vector<std::string>{"mxfp8"} : arguments.formats;
  const bool shorthand = arguments.mlp_only || arguments.all_linears;
  size_t next_variant = 0, next_tier = 0;
  bool formats_done = false;
  for (const CLI::Option* option : command.parse_order()) {
    const std::string name = option->get_name();
    if (name == "--mx") {
      out.push_back(Variant::parse(arguments.variants.at(next_variant++)));
    } else if (name == "--tier") {
      add(tier_variants(arguments.tiers.at(next_tier++)));
    } else if (name == "--mlp-only") {
      add(uniform_variants({"mlp"}, formats));
    } else if (name == "--all-linears") {
      add(uniform_variants({"linear"}, formats));
    } else if (name == "--mx-format" && !shorthand && !formats_done) {
      add(uniform_variants({"attention", "mlp"}, formats));
      formats_done = true;
    }
  }
  if (arguments.no_variants) {
    if (!out.empty() || arguments.stages.full_pipeline) {
      fail_usage("--no-variants and variants exclude one another; leave one of them out.");
    }
    return out;
  }
  if (arguments.stages.skip_mx) {
    if (next_variant > 0) fail_usage("--skip-mx and --mx exclude one another; leave one of them out.");
    out.clear();
  } else if (out.empty()) {
    out.push_back(default_variant());
  }
  if (arguments.quantize_outputs) {
    std::transform(out.begin(), out.end(), out.begin(), [](const Variant& v) { return v.with_quantized_outputs(); });
  }
  using Targets = std::vector<std::string>;
  std::vector<Variant> stages = pipeline_variants(arguments.stages, arguments.all_linears ? Targets{"linear"}
                                                                    : arguments.mlp_only  ? Targets{"mlp"}
                                                                                         : Targets{"attention", "mlp"});
  out.insert(out.begin(), std::make_move_iterator(stages.begin()), std::make_move_iterator(stages.end()));
  return out;
}

namespace {

api::Bos parse_bos(const std::string& text) {
  if (text == "template") return api::Bos::from_template;
  if (text == "always") return api::Bos::always;
  if (text == "never") return api::Bos::never;
  fail_usage("--bos '{}' is not known; it is template, always or never.", text);
}

api::Data read_data_set(const std::string& name, const EvalArguments& arguments) {
  // These take each row for a document; the others take WikiText as the one text that it was.
  const bool rows = arguments.protocol == "document" || arguments.protocol == "self";
  ProgressLine line(name, global_options().quiet);
  return api::read_data(
      modern_data_name(name),
      {.field = arguments.field, .max_documents = arguments.max_samples, .wikitext_rows = rows, .cancelled = {}},
      [&line](const hub::FetchProgress& progress) { line.update(progress); });
}

api::Data read_texts(const EvalArguments& arguments) {
  if (arguments.texts.empty()) {
    log_info("no --text or --data given: using the embedded text, Alice's Adventures in Wonderland");
    return api::Data::embedded();
  }
  DocumentSource all = read_text(arguments.texts.front());
  std::string hashes = all.sha256;
  for (size_t i = 1; i < arguments.texts.size(); ++i) {
    DocumentSource next = read_text(arguments.texts[i]);
    std::move(next.documents.begin(), next.documents.end(), std::back_inserter(all.documents));
    all.invalid_utf8 += next.invalid_utf8;
    all.name += " + " + next.name;
    hashes += next.sha256;
  }
  if (arguments.texts.size() > 1) {
    all.sha256 = sha256_hex(std::as_bytes(std::span(hashes)));
    for (size_t i = 0; i < all.documents.size(); ++i) all.documents[i].subset = arguments.texts[i];
  }
  return api::data_of(std::move(all));
}

/// Threads that tokenise: as many as compute unless told otherwise; 0 is the calling thread alone, as in PyTorch.
int loader_workers(const EvalArguments& arguments) {
  if (arguments.loader_workers >= 0) return std::max(arguments.loader_workers, 1);
  return arguments.threads > 0 ? arguments.threads : default_thread_count();
}

EvaluateOptions evaluate_options(const EvalArguments& arguments, const api::Data& data, std::vector<Variant> variants) {
  api::EvaluateOptions typed;
  typed.variants.clear();
  typed.protocol = arguments.protocol;
  typed.context = arguments.context;
  typed.stride = arguments.stride;
  typed.max_windows = arguments.max_windows;
  typed.windows = arguments.windows;
  typed.bos = parse_bos(arguments.bos);
  typed.allow_long_context = arguments.allow_long_context;
  typed.noise = arguments.noise;
  typed.jensen_shannon = arguments.jensen_shannon;
  typed.linear_errors = arguments.linear_errors;
  typed.exponents = arguments.exponents;
  typed.stream = arguments.stream;
  typed.threads = arguments.threads;
  typed.batch_windows = arguments.batch_size;
  typed.round_tokens = arguments.round_tokens;
  EvaluateOptions options = api::resolve(typed, data);
  // What the library knows only as text, or not at all.
  options.variants = std::move(variants);
  options.dtype = parse_dtype(arguments.dtype);
  options.protocol.loader_workers = loader_workers(arguments);
  return options;
}

RunResult evaluate_model(const std::string& name, const std::string& adapter, const api::Data& data,
                         const EvaluateOptions& options) {
  const api::Model model = open_model_by_name(name, adapter);
  RunResult run;
  {
    ProgressLine line(model.name(), global_options().quiet);
    run = api::run(model, data, options, [&line](const Progress& progress) { line.update(progress); });
  }
  run.command = global_options().command_line;
  api::warn_about(run);
  if (run.complete || run.windows > 0) return run;
  log_info("no round was finished: files of earlier results stay as they are");
  if (options.journal.folder.empty() && !run.journal_folder.empty()) remove_journal(run.journal_folder);
  if (!run.stopped.empty()) throw Error(run.stopped);
  throw Interrupted();
}

void note_failure(Failures& failures, const std::string& run, const Error& error) {
  log_error("{}: {}", run, error.what());
  failures.runs.push_back(run);
}

JournalOptions journal_options(const EvalArguments& arguments) {
  if (arguments.no_journal) {
    if (arguments.resume || arguments.shared || !arguments.journal.empty()) {
      fail_usage("--no-journal excludes --journal, --resume and --shared; leave it out.");
    }
    return {};
  }
  if (arguments.shared && arguments.journal.empty()) fail_usage("--shared needs --journal, the folder to share.");
  if (arguments.shared && global_options().ranks != nullptr) {
    fail_usage("Under mpirun rank 0 keeps the journal; leave --shared out, or mpirun.");
  }
  JournalOptions out{.folder = arguments.journal,
                     .root = {},
                     .resume = arguments.resume,
                     .shared = arguments.shared,
                     .claim_seconds = arguments.claim_timeout};
  if (!out.folder.empty()) return out;
  const auto folder_of = [](const char* name) {
    const char* const value = std::getenv(name);
    // XDG: a path that is not absolute is to be ignored.
    return value != nullptr && value[0] == '/' ? std::filesystem::path(value) : std::filesystem::path();
  };
  const std::filesystem::path state = folder_of("XDG_STATE_HOME"), home = folder_of("HOME");
  if (!state.empty()) {
    out.root = state / "mxlm" / "journals";
  } else if (!home.empty()) {
    out.root = home / ".local" / "state" / "mxlm" / "journals";
  } else if (out.resume) {
    fail_usage("--resume finds no journal, for HOME is not set; name it with --journal.");
  }
  return out;
}

/// What this process computes on: of a host's devices a rank has its share.
DeviceSet devices_of(const EvalArguments& arguments) {
  DeviceSet devices = choose_devices(arguments.device, arguments.gemm, arguments.devices, arguments.threads);
  const Ranks* const ranks = global_options().ranks;
  return ranks == nullptr ? devices : share_devices(std::move(devices), DeviceRequest::parse(arguments.device), *ranks);
}

}  // namespace

bool followed(const EvalArguments& arguments) {
  GlobalOptions& global = global_options();
  if (!global.follows()) return false;
  global.followed = follow(*global.ranks, [&] { return devices_of(arguments); });
  return true;
}

std::vector<std::string> data_names(const EvalArguments& arguments) {
  std::vector<std::string> names = arguments.data;
  names.insert(names.end(), arguments.datasets.begin(), arguments.datasets.end());
  return names;
}

size_t task_count(const EvalArguments& arguments) { return std::max<size_t>(data_names(arguments).size(), 1); }

std::vector<Task> read_tasks(const EvalArguments& arguments, const std::vector<Variant>& variants) {
  const DeviceSet devices = devices_of(arguments);
  const std::vector<std::string> names = data_names(arguments);
  if (!names.empty() && !arguments.texts.empty()) {
    fail_usage("--text and --data exclude one another; leave one of them out.");
  }
  std::vector<Task> tasks(std::max<size_t>(names.size(), 1));
  for (size_t i = 0; i < tasks.size(); ++i) {
    tasks[i].data = names.empty() ? read_texts(arguments) : read_data_set(names[i], arguments);
    const DocumentSource& data = tasks[i].source();
    if (data.invalid_utf8 > 0) {
      log_warn("'{}': {} of {} documents hold invalid UTF-8, which became U+FFFD", data.name, data.invalid_utf8,
               data.documents.size());
    }
    tasks[i].options = evaluate_options(arguments, *tasks[i].data, variants);
    tasks[i].options.devices = devices;
    tasks[i].adapter = arguments.adapter;
    tasks[i].options.journal = journal_options(arguments);
    tasks[i].options.ranks = global_options().ranks;
    tasks[i].options.mixed_ranks = arguments.mixed_ranks;
  }
  return tasks;
}

EvalResult evaluate_models(const std::vector<std::string>& models, const std::vector<Task>& tasks, Failures* failures) {
  EvalResult result;
  result.machine = machine_info(tasks.front().options.devices);
  size_t number = 0;
  for (const std::string& name : models) {
    for (const Task& task : tasks) {
      EvaluateOptions options = task.options;
      if (const auto& folder = options.journal.folder; models.size() * tasks.size() > 1 && !folder.empty()) {
        options.journal.folder = folder / fmt::format("run-{}", ++number);
      }
      const std::string shown = name.empty() ? "the embedded model" : name;
      const std::string run = tasks.size() == 1 ? shown : fmt::format("{} on {}", shown, task.source().name);
      try {
        result.runs.push_back(evaluate_model(name, task.adapter, *task.data, options));
      } catch (const Interrupted&) {
        if (failures == nullptr || result.runs.empty()) throw;
        failures->interrupted = true;
        return result;
      } catch (const UsageError& error) {
        if (failures == nullptr || result.runs.empty()) throw;
        note_failure(*failures, run, error);
        continue;
      } catch (const Error& error) {
        if (failures == nullptr) throw;
        note_failure(*failures, run, error);
        continue;
      }
      const RunResult& last = result.runs.back();
      if (last.complete) continue;
      if (failures == nullptr || last.stopped.empty()) return result;
      note_failure(*failures, run, Error(last.stopped));
    }
  }
  return result;
}

void evaluate_and_report(const std::vector<std::string>& models, const std::vector<Task>& tasks,
                         const Outputs& outputs) {
  const size_t runs = models.size() * tasks.size();
  Failures failures;
  const EvalResult result = evaluate_models(models, tasks, runs > 1 ? &failures : nullptr);
  if (!result.runs.empty()) outputs.write(result, {.table = render_table, .csv = {}});
  if (failures.interrupted) throw Interrupted();
  if (!failures.runs.empty()) {
    fail("{} of {} {} could not be evaluated ({}); the log above says why.", failures.runs.size(), runs,
         tasks.size() == 1 ? "models" : "runs", fmt::join(failures.runs, ", "));
  }
}

void add_data_options(CLI::App& command, EvalArguments& a) {
  command.add_option("--text", a.texts, "A plain text, '-' is stdin; repeatable")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option("--data", a.data,
                  fmt::format("A data set, NAME_OR_PATH[:SPLIT[:SUBSET]]: {}, a .txt, .jsonl, .jsonl.gz, .jsonl.zst or "
                              ".parquet file, or a folder of them; repeatable, each is a run",
                              fmt::join(hub::data_set_names(), ", ")))
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--datasets", a.datasets, "Several of them at once; wikitext is wikitext2");
  command.add_option("--field", a.field, "The JSON member or column that holds a document's text")
      ->capture_default_str();
  command.add_option(
      "--protocol", a.protocol,
      fmt::format("One of {} (window for texts, document for data sets)", fmt::join(protocol_names(), ", ")));
  command
      .add_option("--context", a.context,
                  "Tokens a window (the model's maximum, at most 2048; document, llamacpp, self: 512; lmeval: the "
                  "model's maximum)")
      ->check(a_count());
  command.add_option("--stride", a.stride, "hf-stride: tokens between the starts of windows (512)")->check(a_count());
  command.add_option("--max-samples", a.max_samples, "Documents to read at most")->check(a_count());
  CLI::Option* first = command.add_option("--max-windows", a.max_windows, "Run the first so many windows");
  first->check(a_count());
  command.add_option("--windows", a.windows, "Run so many windows, spread evenly over the text")
      ->check(a_count())
      ->excludes(first);
  command.add_option("--bos", a.bos, "Begin-of-sequence token: template, always or never")->capture_default_str();
  command.add_flag("--allow-long-context", a.allow_long_context, "Let --context pass the model's maximum positions");
}

void add_variant_options(CLI::App& command, EvalArguments& a) {
  command.add_option("--mx", a.variants, "A variant, as 'attention=mxfp8,mlp=mxfp4/mxfp8@block=16'; repeatable")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--mx-format", a.formats, "Formats for --mlp-only, --all-linears, or for attention and MLP");
  command.add_flag("--mlp-only", a.mlp_only, "Adds a variant with the MLP Linears in each --mx-format (mxfp8)");
  command.add_flag("--all-linears", a.all_linears,
                   "Adds a variant with every Linear, the LM head too, in each --mx-format");
  command.add_option("--tier", a.tiers, "Adds the prototype's policies: A, B, C, D or all")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag("--no-variants", a.no_variants, "The baseline alone");
  command.add_flag("--quantize-outputs", a.quantize_outputs,
                   "Quantise what replaced Linears put out, too, in the format of their activations (not logits)");
  add_stage_options(command, a.stages);
}

void add_run_options(CLI::App& command, EvalArguments& a) {
  command.add_flag(
      "--noise", a.noise,
      "Run everything twice with float32 sums in another order, and say what that order does to each figure");
  command.add_option("--dtype", a.dtype, "auto (as the checkpoint; F16 in float32), float32 or bfloat16")
      ->capture_default_str();
  command
      .add_option("--device", a.device,
                  "auto (GPUs, if there are any), cpu, cuda (all GPUs), or cuda:0,2 for some of them")
      ->capture_default_str();
  command.add_option("--gemm", a.gemm, "exact or fast products (fast: a GPU's, in FP8; a CPU has the exact ones only)")
      ->capture_default_str();
  command.add_option("--batch-size", a.batch_size, "Windows a micro-batch; changes no digit")->check(a_count());
  command
      .add_option("--round-tokens", a.round_tokens,
                  "Tokens a round at most, which is what a crash can cost (chosen from the arithmetic: some seconds "
                  "on a CPU, a minute on a GPU); changes no digit")
      ->check(a_count());
  command.add_flag("--stream", a.stream, "Never keep weights between rounds; changes no digit");
  command.add_option("--threads", a.threads, "Threads; changes no digit")->check(CLI::Range(1, 4096));
  command.add_option("--loader-workers", a.loader_workers, "Threads that tokenise documents (as --threads)")
      ->check(CLI::Range(0, 4096));
  add_device_options(command, a.devices);
  command.add_option("--json", a.json, "Write the result as JSON here ('-' is stdout, without the table)");
  command.add_option("--per-token", a.per_token, "Write every scored token's figures to this .csv file");
  add_csv_raw(command, a.reports);
  command.add_flag("--jensen-shannon", a.jensen_shannon,
                   "In the JSON and CSV: the Jensen-Shannon divergence, too; computes the LM head twice");
  command.add_flag("--linear-errors", a.linear_errors,
                   "In the JSON: what quantising does to the operands and products of every Linear");
  command.add_flag("--exponents", a.exponents, "In the JSON: how the exponents of weights and activations lie");
  command.add_option("--journal", a.journal,
                     "Keep finished rounds in this folder (default: one in the user's state directory, which goes when "
                     "the run is done)");
  command.add_flag("--resume", a.resume, "Go on with the rounds that the journal holds");
  command.add_flag("--mixed-ranks", a.mixed_ranks,
                   "Under mpirun: let ranks share the rounds that compute with different backends, whose digits "
                   "differ");
  command.add_flag("--shared", a.shared,
                   "Several processes with the same command share the rounds through the --journal folder, which may "
                   "lie on a network file system; each waits for all rounds and prints the result");
  command
      .add_option("--claim-timeout", a.claim_timeout,
                  "--shared: seconds after which the rounds of a process that has died are another's")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  command.add_flag("--no-journal", a.no_journal, "Keep no journal");
  command.add_option("--config", a.config, "A TOML file of these options; the command line wins over it");
}

void add_report_options(CLI::App& command, EvalArguments& a) {
  command.add_option("--html", a.reports.html, "Write the result as one self-contained page here");
  command.add_option("--csv", a.reports.csv, "Write one row a variant with all figures here");
  command.add_option("--markdown", a.reports.markdown, "Write the table in Markdown here");
}

void add_eval(CLI::App& app) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command =
      app.add_subcommand("eval", "Baseline and variants side by side: perplexity, KL divergence, speed");
  command->add_option("MODEL,--models", arguments->models,
                      "Folders, hub ids (org/name) or names of 'mxlm models'; none = the embedded booklet-7m");
  add_adapter_option(*command, arguments->adapter);
  add_data_options(*command, *arguments);
  add_variant_options(*command, *arguments);
  add_run_options(*command, *arguments);
  add_report_options(*command, *arguments);
  command->footer(
      "Example: mxlm eval ./SmolLM2-135M --text wiki.test.raw --mx attention=mxfp8,mlp=mxfp8 --mx linear=mxfp4 --json "
      "out.json");
  command->callback([command, arguments] {
    if (followed(*arguments)) return;
    // Mistakes of the command line are told before a large data set is read.
    const std::vector<Variant> variants = collect_variants(*command, *arguments);
    const auto models = arguments->models.empty() ? std::vector<std::string>{""} : arguments->models;
    Outputs outputs(*arguments, models.size() * task_count(*arguments));
    std::vector<Task> tasks = read_tasks(*arguments, variants);
    outputs.attach(tasks.front().options);
    evaluate_and_report(models, tasks, outputs);
  });
}

}  // namespace mxlm::cli
