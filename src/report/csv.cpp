#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>

#include "base/error.hpp"
#include "report/html.hpp"
#include "report/page.hpp"
#include "report/text_layout.hpp"

namespace mxlm::report {
namespace {

struct Row {
  const File& file;
  const Run& run;
  const Variant& variant;
  size_t index;
};

struct CsvColumn {
  std::string name;
  std::function<std::string(const Row&)> text;
};

/// A figure of the comparison with the baseline; empty for the baseline itself.
CsvColumn against(std::string name, double VsBaseline::*member) {
  return {std::move(name), [member](const Row& row) {
            const auto& b = row.variant.figures.vs_baseline;
            return b ? exact((*b).*member) : std::string{};
          }};
}

/// Perplexity and related figures, either of protocol self or of all other protocols; empty otherwise.
void add_perplexity(std::vector<CsvColumn>& columns, const MemberNames& names, bool self) {
  const auto own = [self](std::string_view name, double VariantFigures::*member) {
    return CsvColumn{std::string(name), [self, member](const Row& row) {
                       const VariantFigures& f = row.variant.figures;
                       return f.self.has_value() == self ? exact(f.*member) : std::string{};
                     }};
  };
  const auto change = [self](std::string_view name, double VsBaseline::*member) {
    return CsvColumn{std::string(name), [self, member](const Row& row) {
                       const VariantFigures& f = row.variant.figures;
                       return f.self.has_value() == self && f.vs_baseline ? exact((*f.vs_baseline).*member)
                                                                          : std::string{};
                     }};
  };
  columns.insert(
      columns.end(),
      {own(names.nll, &VariantFigures::nll), own(names.nll_stderr_windows, &VariantFigures::nll_stderr_windows),
       own(names.ppl, &VariantFigures::ppl), own(names.ppl_stderr, &VariantFigures::ppl_stderr),
       own(names.ppl_stderr_windows, &VariantFigures::ppl_stderr_windows), change(names.ratio, &VsBaseline::ppl_ratio),
       change(names.ln_ratio, &VsBaseline::ln_ppl_ratio),
       change(names.ln_ratio_stderr, &VsBaseline::ln_ppl_ratio_stderr),
       change(names.ln_ratio_stderr_windows, &VsBaseline::ln_ppl_ratio_stderr_windows)});
}

std::string self_figure(const Row& row, double SelfFigures::*member) {
  const auto& self = row.variant.figures.self;
  return self ? exact((*self).*member) : std::string{};
}

/// A figure of rolling windows; empty if the run has none.
CsvColumn rolling(std::string name, double RollingFigures::*member) {
  return {std::move(name), [member](const Row& row) {
            const auto& r = row.variant.figures.rolling;
            return r ? exact((*r).*member) : std::string{};
          }};
}

/// A change of accuracy; empty if the targets were unknown.
CsvColumn flip(std::string name, double Flips::*member) {
  return {std::move(name), [member](const Row& row) {
            const auto& b = row.variant.figures.vs_baseline;
            return b && b->flips ? exact((*b->flips).*member) : std::string{};
          }};
}

template <typename Condition>
bool any_figures(const Record& record, Condition condition) {
  return std::any_of(record.runs.begin(), record.runs.end(), [&](const Run& run) {
    return std::any_of(run.variants.begin(), run.variants.end(),
                       [&](const Variant& v) { return condition(v.figures); });
  });
}

/// A percentile; empty if a variant lacks it.
CsvColumn percentile(const std::string& prefix, const std::string& key,
                     std::map<std::string, double> VsBaseline::*member) {
  return {prefix + key, [key, member](const Row& row) {
            const auto& b = row.variant.figures.vs_baseline;
            if (!b) return std::string{};
            const auto found = ((*b).*member).find(key);
            return found == ((*b).*member).end() ? std::string{} : exact(found->second);
          }};
}

void add_percentiles(std::vector<CsvColumn>& columns, const Record& record, const std::string& prefix,
                     std::map<std::string, double> VsBaseline::*member) {
  std::set<std::pair<double, std::string>> keys;
  for (const Run& run : record.runs) {
    for (const Variant& v : run.variants) {
      if (!v.figures.vs_baseline) continue;
      for (const auto& [key, value] : (*v.figures.vs_baseline).*member) {
        keys.emplace(std::strtod(key.c_str(), nullptr), key);
      }
    }
  }
  for (const auto& [number, key] : keys) columns.push_back(percentile(prefix, key, member));
}

/// The command of a run. A long command is in the first row of the run alone: it may name thousands of variants, and
/// each variant has a row.
std::string shown_command(const Row& row) {
  constexpr size_t kLongestCell = 4096;
  return row.index == 0 || row.run.command.size() <= kLongestCell ? row.run.command : std::string{};
}

std::vector<CsvColumn> make_columns(const Record& record) {
  const auto count = [](int64_t value) { return std::to_string(value); };
  std::vector<CsvColumn> columns{
      {"file", [](const Row& r) { return r.file.name; }},
      {"run", [](const Row& r) { return std::to_string(r.run.index); }},
      {"model", [](const Row& r) { return r.run.model.name; }},
      {"family", [](const Row& r) { return r.run.model.family; }},
      {"parameters", [=](const Row& r) { return count(r.run.model.parameters); }},
      {"dtype", [](const Row& r) { return r.run.model.dtype; }},
      {"compute_dtype", [](const Row& r) { return r.run.model.compute_dtype; }},
      {"revision", [](const Row& r) { return r.run.model.revision; }},
      {"model_sha256", [](const Row& r) { return r.run.model.sha256; }},
      {"data", [](const Row& r) { return r.run.data.name; }},
      {"documents", [=](const Row& r) { return count(r.run.data.documents); }},
      {"data_sha256", [](const Row& r) { return r.run.data.sha256; }},
      {"protocol", [](const Row& r) { return r.run.protocol.name; }},
      {"context", [=](const Row& r) { return count(r.run.protocol.context); }},
      {"windows", [=](const Row& r) { return count(r.run.windows); }},
      {"cluster_kind", [](const Row& r) { return r.run.clusters.kind; }},
      {"clusters", [=](const Row& r) { return count(r.run.clusters.number); }},
      {"complete", [](const Row& r) { return std::string(r.run.complete ? "true" : "false"); }},
      {"index", [](const Row& r) { return std::to_string(r.index); }},
      {"variant", [](const Row& r) { return r.variant.name; }},
      {"spec", [](const Row& r) { return r.variant.spec; }},
      {"tokens", [=](const Row& r) { return count(r.variant.figures.tokens); }},
      {"nonfinite", [=](const Row& r) { return count(r.variant.figures.nonfinite); }},
      {"accuracy", [](const Row& r) { return exact(r.variant.figures.accuracy); }},
      {"accuracy_stderr_windows", [](const Row& r) { return exact(r.variant.figures.accuracy_stderr_windows); }},
  };
  // Protocol self does not measure a perplexity, so its figures have columns of their own.
  const bool self = any_figures(record, [](const VariantFigures& f) { return f.self.has_value(); });
  const bool perplexity = any_figures(record, [](const VariantFigures& f) { return !f.self; });
  if (perplexity) add_perplexity(columns, MemberNames{}, false);
  if (self) {
    VariantFigures figures;
    figures.self = SelfFigures{};
    add_perplexity(columns, member_names(figures), true);
    columns.push_back({"mean_entropy", [](const Row& r) { return self_figure(r, &SelfFigures::entropy); }});
    columns.push_back(
        {"mean_entropy_stderr", [](const Row& r) { return self_figure(r, &SelfFigures::entropy_stderr); }});
    columns.push_back({"mean_entropy_stderr_windows",
                       [](const Row& r) { return self_figure(r, &SelfFigures::entropy_stderr_windows); }});
  }
  if (any_figures(record, [](const VariantFigures& f) { return f.rolling.has_value(); })) {
    columns.insert(columns.end(),
                   {rolling("word_perplexity", &RollingFigures::word_perplexity),
                    rolling("word_perplexity_stderr", &RollingFigures::word_perplexity_stderr),
                    rolling("word_perplexity_stderr_windows", &RollingFigures::word_perplexity_stderr_windows),
                    rolling("byte_perplexity", &RollingFigures::byte_perplexity),
                    rolling("bits_per_byte", &RollingFigures::bits_per_byte),
                    rolling("bits_per_byte_stderr_windows", &RollingFigures::bits_per_byte_stderr_windows)});
  }
  columns.insert(columns.end(), {
                                    against("correlation", &VsBaseline::correlation),
                                    against("kld_mean", &VsBaseline::kld_mean),
                                    against("kld_stderr", &VsBaseline::kld_stderr),
                                    against("kld_stderr_windows", &VsBaseline::kld_stderr_windows),
                                    against("kld_median", &VsBaseline::kld_median),
                                    against("kld_max", &VsBaseline::kld_max),
                                    against("kld_reverse_mean", &VsBaseline::kld_reverse_mean),
                                    against("kld_reverse_stderr", &VsBaseline::kld_reverse_stderr),
                                    against("kld_reverse_stderr_windows", &VsBaseline::kld_reverse_stderr_windows),
                                });
  if (any_figures(record,
                  [](const VariantFigures& f) { return f.vs_baseline && f.vs_baseline->jensen_shannon_mean; })) {
    const auto measured = [](std::string name, std::optional<double> VsBaseline::*member) {
      return CsvColumn{std::move(name), [member](const Row& row) {
                         const auto& b = row.variant.figures.vs_baseline;
                         return b && (*b).*member ? exact(*((*b).*member)) : std::string{};
                       }};
    };
    columns.push_back(measured("jensen_shannon_mean", &VsBaseline::jensen_shannon_mean));
    columns.push_back(measured("jensen_shannon_stderr", &VsBaseline::jensen_shannon_stderr));
    columns.push_back(measured("jensen_shannon_stderr_windows", &VsBaseline::jensen_shannon_stderr_windows));
  }
  add_percentiles(columns, record, "kld_percentile_", &VsBaseline::kld_percentiles);
  columns.insert(
      columns.end(),
      {against("top1_agreement", &VsBaseline::top1_agreement), against("top1_stderr", &VsBaseline::top1_stderr),
       against("top1_stderr_windows", &VsBaseline::top1_stderr_windows), against("top1_low", &VsBaseline::top1_low),
       against("top1_high", &VsBaseline::top1_high), flip("right_to_wrong", &Flips::right_to_wrong),
       flip("right_to_wrong_stderr_windows", &Flips::right_to_wrong_stderr_windows),
       flip("wrong_to_right", &Flips::wrong_to_right),
       flip("wrong_to_right_stderr_windows", &Flips::wrong_to_right_stderr_windows),
       flip("accuracy_difference", &Flips::accuracy_difference),
       flip("accuracy_difference_stderr_windows", &Flips::accuracy_difference_stderr_windows),
       against("delta_p_mean", &VsBaseline::delta_p_mean),
       against("delta_p_mean_stderr_windows", &VsBaseline::delta_p_mean_stderr_windows),
       against("delta_p_rms", &VsBaseline::delta_p_rms), against("delta_p_rms_stderr", &VsBaseline::delta_p_rms_stderr),
       against("delta_p_rms_stderr_windows", &VsBaseline::delta_p_rms_stderr_windows)});
  add_percentiles(columns, record, "delta_p_percentile_", &VsBaseline::delta_p_percentiles);
  const auto noise = [](std::string name, double Noise::*member) {
    return CsvColumn{std::move(name), [member](const Row& row) {
                       return row.variant.noise ? exact((*row.variant.noise).*member) : std::string{};
                     }};
  };
  const auto deviation = [](std::string name, double NoiseFigures::*member) {
    return CsvColumn{std::move(name), [member](const Row& row) {
                       return row.variant.noise ? exact(row.variant.noise->deviations.*member) : std::string{};
                     }};
  };
  columns.insert(columns.end(),
                 {noise("noise_nll", &Noise::nll),
                  noise("noise_kld_mean", &Noise::kld_mean),
                  noise("noise_top1_agreement", &Noise::top1_agreement),
                  deviation("noise_nll_sd", &NoiseFigures::nll_sd),
                  deviation("noise_ln_ppl_ratio_sd", &NoiseFigures::ln_ppl_ratio_sd),
                  deviation("noise_kld_sd", &NoiseFigures::kld_sd),
                  deviation("noise_top1_sd", &NoiseFigures::top1_sd),
                  deviation("noise_floor_kld", &NoiseFigures::floor_kld),
                  deviation("noise_floor_flips", &NoiseFigures::floor_flips),
                  {"power_tokens_ppl_1_percent", [](const Row& r) { return exact(r.variant.power.ppl_tokens); }},
                  {"power_tokens_kld_1_mnat", [](const Row& r) { return exact(r.variant.power.kld_tokens); }},
                  {"weight_bits_baseline", [](const Row& r) { return exact(r.variant.weight_bits_baseline); }},
                  {"weight_bits_variant", [](const Row& r) { return exact(r.variant.weight_bits_variant); }},
                  {"weight_bytes_baseline", [](const Row& r) { return exact(r.variant.weight_bytes_baseline); }},
                  {"weight_bytes_variant", [](const Row& r) { return exact(r.variant.weight_bytes_variant); }},
                  {"tokens_per_second", [](const Row& r) { return exact(r.variant.tokens_per_second); }},
                  {"seconds_load", [](const Row& r) { return exact(r.variant.seconds.load); }},
                  {"seconds_tokenize", [](const Row& r) { return exact(r.variant.seconds.tokenize); }},
                  {"seconds_prepare", [](const Row& r) { return exact(r.variant.seconds.prepare); }},
                  {"seconds_forward", [](const Row& r) { return exact(r.variant.seconds.forward); }},
                  {"seconds_head", [](const Row& r) { return exact(r.variant.seconds.head); }},
                  {"seconds_total", [](const Row& r) { return exact(r.run.seconds_total); }},
                  {"peak_memory_bytes", [](const Row& r) { return exact(r.run.peak_memory_bytes); }},
                  {"cpu", [](const Row& r) { return r.file.machine.cpu; }},
                  {"backend", [](const Row& r) { return r.file.machine.backend; }},
                  {"threads", [=](const Row& r) { return count(r.file.machine.threads); }},
                  {"version", [](const Row& r) { return r.file.version; }},
                  {"command", shown_command}});
  return columns;
}

}  // namespace

std::string render_csv(const Record& record, Formulas formulas) {
  const std::vector<CsvColumn> columns = make_columns(record);
  std::string out;
  const auto add_line = [&](const auto& text) {
    for (size_t c = 0; c < columns.size(); ++c) {
      if (c > 0) out += ',';
      out += csv_field(text(columns[c]), formulas);
    }
    out += "\r\n";
    if (out.size() > record.limits.output_bytes) {
      fail(
          "The CSV would have more than {} MB, too much for the memory of this process; give fewer files, or files of "
          "fewer variants.",
          record.limits.output_bytes / 1'000'000);
    }
  };
  add_line([](const CsvColumn& column) { return column.name; });
  for (const Run& run : record.runs) {
    for (size_t i = 0; i < run.variants.size(); ++i) {
      const Row row{record.files[run.file], run, run.variants[i], i};
      add_line([&row](const CsvColumn& column) { return column.text(row); });
    }
  }
  return out;
}

}  // namespace mxlm::report
