#include "cli/eval_options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "base/error.hpp"
#include "cli/option_rows.hpp"
#include "cli/options.hpp"
#include "hub/data_sets.hpp"
#include "variants/shorthands.hpp"

namespace mxlm::cli {
namespace {

using Row = api::Option<EvalArguments>;
using Variants = std::vector<Variant>;

std::vector<Row> make_command_table() {
  using A = EvalArguments;
  const std::string text = "Text", variants = "Variants", prototype = "Stages of the prototype", journal = "Journal",
                    results = "Results";
  return {
      {text, "text", &A::text, "FILE", "A plain text, '-' is stdin; repeatable"},
      {text, "data", &A::data, "DATA",
       fmt::format("A data set, NAME_OR_PATH[:SPLIT[:SUBSET]]: {}, a .txt, .jsonl, .jsonl.gz, .jsonl.zst or .parquet "
                   "file, or a folder of them; repeatable, each is a run",
                   fmt::join(hub::data_set_names(), ", "))},
      {text, "datasets", &A::datasets, "DATA", "Several data sets at once; wikitext is wikitext2", 0, 0, "", true},

      {variants, "mx_format", &A::mx_format, "FORMAT",
       "Formats for --mlp-only, --all-linears, or for attention and MLP", 0, 0, "", true},
      {variants, "mlp_only", &A::mlp_only, "", "Adds a variant with the MLP Linears in each --mx-format (mxfp8)"},
      {variants, "all_linears", &A::all_linears, "",
       "Adds a variant with every Linear, the LM head too, in each --mx-format"},
      {variants, "tier", &A::tier, "TIER", "Adds the prototype's policies: A, B, C, D or all"},
      {variants, "no_variants", &A::no_variants, "", "The baseline alone"},
      {variants, "quantize_outputs", &A::quantize_outputs, "",
       "Also quantise the outputs of replaced Linears, in the format of their activations (not logits)"},

      {prototype, "full_pipeline", &A::full_pipeline, "",
       "Adds the prototype's other stages before the MX variants: BF16, BFP16, INT8, FP8 emulation, FP8 backend"},
      {prototype, "skip_mx", &A::skip_mx, "", "No MX variants, even with --mx-format and --tier"},
      {prototype, "skip_bf16", &A::skip_bf16, "", "--full-pipeline without the BF16 cast"},
      {prototype, "skip_bfp16", &A::skip_bfp16, "",
       "--full-pipeline without BFP16, the prototype's other word for BF16"},
      {prototype, "skip_int8", &A::skip_int8, "", "--full-pipeline without LLM.int8"},
      {prototype, "skip_nvfp8_emulation", &A::skip_nvfp8_emulation, "", "--full-pipeline without FP8 by elements"},
      {prototype, "skip_nvfp8_backend", &A::skip_nvfp8_backend, "", "--full-pipeline without FP8 scaled by tensors"},

      {journal, "no_journal", &A::no_journal, "",
       "Keep no journal (without --journal a run keeps one in the user's state directory until it has finished)"},
      {journal, "mixed_ranks", &A::mixed_ranks, "",
       "Under mpirun: allow ranks with different backends, whose digits differ, to share the shards"},

      {results, "json", &A::json, "FILE", "Write the result as JSON here ('-' is stdout, without the table)"},
      {results, "html", &A::html, "FILE", "Write the result as one self-contained page here"},
      {results, "csv", &A::csv, "FILE", "Write one row per variant with all figures here"},
      {results, "markdown", &A::markdown, "FILE", "Write the table in Markdown here"},
      {results, "csv_raw", &A::csv_raw, "", kCsvRawHelp},
      {results, "per_token", &A::per_token, "FILE", "Write every scored token's figures to this .csv file"},

      {"Configuration", "config", &A::config, "FILE", "A TOML file of these options; the command line wins over it"},
  };
}

/// The variants of --full-pipeline that are not MX variants, without skipped ones.
Variants pipeline_variants(const EvalArguments& a) {
  if (!a.full_pipeline) return {};
  using Targets = std::vector<std::string>;
  const Targets targets = a.all_linears ? Targets{"linear"} : a.mlp_only ? Targets{"mlp"} : Targets{"attention", "mlp"};
  Variants out;
  const auto add = [&](PipelineStage stage, bool skipped) {
    if (skipped) return;
    std::ranges::move(stage_variants(stage, targets), std::back_inserter(out));
  };
  add(PipelineStage::bf16, a.skip_bf16);
  add(PipelineStage::bfp16, a.skip_bfp16);
  add(PipelineStage::int8, a.skip_int8);
  add(PipelineStage::fp8_emulation, a.skip_nvfp8_emulation);
  add(PipelineStage::fp8_backend, a.skip_nvfp8_backend);
  return out;
}

/// The variants of --mx and of the shorthands, in the order of the command line.
Variants given_variants(const CLI::App& command, const EvalArguments& a) {
  Variants out;
  const auto add = [&out](Variants more) { std::ranges::move(more, std::back_inserter(out)); };
  const std::vector<std::string> formats = a.mx_format.empty() ? std::vector<std::string>{"mxfp8"} : a.mx_format;
  size_t next_variant = 0, next_tier = 0;
  bool formats_done = a.mlp_only || a.all_linears;
  for (const CLI::Option* option : command.parse_order()) {
    const std::string name = option->get_name();
    if (name == "--mx") {
      out.push_back(Variant::parse(a.variants.at(next_variant++)));
    } else if (name == "--tier") {
      add(tier_variants(a.tier.at(next_tier++)));
    } else if (name == "--mlp-only") {
      add(uniform_variants({"mlp"}, formats));
    } else if (name == "--all-linears") {
      add(uniform_variants({"linear"}, formats));
    } else if (name == "--mx-format" && !formats_done) {
      add(uniform_variants({"attention", "mlp"}, formats));
      formats_done = true;
    }
  }
  return out;
}

}  // namespace

const std::vector<Row>& command_option_table() {
  static const std::vector<Row> table = make_command_table();
  return table;
}

void add_models(CLI::App& command, EvalArguments& a) {
  command
      .add_option("MODEL,--models", a.models,
                  "Folders, hub ids (org/name) or names of 'mxlm models'; none = the embedded booklet-7m")
      ->type_name("MODEL");
  add_adapter(command, a.adapter);
}

void add_eval_options(CLI::App& command, EvalArguments& a, std::initializer_list<std::string_view> without) {
  // Some groups have rows in both tables. Help shows a group at the place of its first row.
  add_options<api::EvaluateOptions>(command, a, api::option_table(), without);
  add_options(command, a, command_option_table(), without);
}

void expand_variants(const CLI::App& command, EvalArguments& a) {
  Variants out = given_variants(command, a);
  if (a.no_variants && (!out.empty() || a.full_pipeline)) {
    fail_usage("--no-variants and variants exclude one another; leave one of them out.");
  }
  if (a.skip_mx && command.count("--mx") > 0) {
    fail_usage("--skip-mx and --mx exclude one another; leave one of them out.");
  }
  if (a.skip_mx) {
    out.clear();
  } else if (out.empty() && !a.no_variants) {
    out.push_back(default_variant());
  }
  if (a.quantize_outputs) {
    for (Variant& variant : out) variant = variant.with_quantized_outputs();
  }
  Variants stages = pipeline_variants(a);
  out.insert(out.begin(), std::make_move_iterator(stages.begin()), std::make_move_iterator(stages.end()));
  a.variants.clear();
  for (const Variant& variant : out) a.variants.push_back(variant.text());
}

std::vector<std::string> model_names(const EvalArguments& arguments) {
  return arguments.models.empty() ? std::vector<std::string>{""} : arguments.models;
}

std::vector<std::string> data_names(const EvalArguments& arguments) {
  std::vector<std::string> names = arguments.data;
  names.insert(names.end(), arguments.datasets.begin(), arguments.datasets.end());
  return names;
}

}  // namespace mxlm::cli
