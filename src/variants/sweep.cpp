#include "variants/sweep.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "variants/resolve.hpp"

namespace mxlm {
namespace {

/// One combination of all axes except the targets.
struct Combination {
  std::string spec;  // in the variant grammar
  SweepPoint point;
};

/// The canonical form of a format without keys, from one entry of --formats.
std::string format_text(const std::string& text, bool weights_only) {
  if (text.find_first_of("@,=:") != std::string::npos) {
    fail_usage(
        "--formats {} is not a format; write FORMAT or WEIGHTS/ACTIVATIONS, and give keys by --blocks, --scale-bits, "
        "--rules and --roundings.",
        quote(text));
  }
  if (weights_only && text.find('/') != std::string::npos) {
    fail_usage("--formats {} names activations, but --weights-only quantises weights alone; leave one of the two out.",
               quote(text));
  }
  const Variant variant = Variant::parse(fmt::format("linear={}{}", text, weights_only ? "/none" : ""));
  if (!variant.clauses.front().spec.replaced()) {
    fail_usage("--formats {} changes nothing; the baseline is in every sweep anyway.", quote(text));
  }
  return to_text(variant.clauses.front().spec);
}

/// True if a side is in a reference format. Its name fixes all settings, so it takes no keys.
bool has_stage(const ProductSpec& spec) {
  const auto stage = [](const OperandSpec& side) { return side && side->scaling != mx::Scaling::block; };
  return stage(spec.weights) || stage(spec.activations);
}

/// The text of a spec with keys. The keys stand at the last operand, because they are defaults for the first operand,
/// too.
std::string spec_text(const SweepPoint& point) {
  std::string operand = point.format;
  std::string none;
  constexpr std::string_view weights_only = "/none";
  if (operand.ends_with(weights_only)) {
    none = weights_only;
    operand.resize(operand.size() - weights_only.size());
  }
  return fmt::format("{}@block={}@scale_bits={}@rule={}@round={}{}", operand, point.block, point.scale_bits, point.rule,
                     point.round, none);
}

template <typename T>
std::vector<T> or_default(const std::vector<T>& axis, T value) {
  return axis.empty() ? std::vector<T>{std::move(value)} : axis;
}

/// All distinct combinations, with the first axis outermost.
std::vector<Combination> combinations(const SweepAxes& axes) {
  std::vector<std::string> formats = axes.formats;
  if (formats.empty()) {
    for (const auto& element : mx::kElements) formats.emplace_back(element.name);
  }
  const mx::Format standard;
  std::vector<Combination> out;
  std::set<std::string> seen;
  for (const std::string& typed : formats) {
    const std::string format = format_text(typed, axes.weights_only);
    const ProductSpec spec = Variant::parse("linear=" + format).clauses.front().spec;
    if (has_stage(spec)) {
      const mx::Format& side = spec.weights ? *spec.weights : *spec.activations;
      Combination c;
      c.point.format = format;
      c.point.block = side.block_size;
      c.point.scale_bits = side.scale_bits;
      c.point.rule = mx::rule_name(side.rule);
      c.point.round = mx::rounding_name(side.rounding);
      c.spec = format;
      if (seen.insert(c.spec).second) out.push_back(std::move(c));
      continue;
    }
    for (const int block : or_default(axes.blocks, standard.block_size)) {
      for (const int scale_bits : or_default(axes.scale_bits, standard.scale_bits)) {
        for (const std::string& rule : or_default(axes.rules, std::string(mx::rule_name(standard.rule)))) {
          for (const std::string& round :
               or_default(axes.roundings, std::string(mx::rounding_name(standard.rounding)))) {
            Combination c;
            c.point.format = format;
            c.point.block = block;
            c.point.scale_bits = scale_bits;
            c.point.rule = rule;
            c.point.round = round;
            c.spec = spec_text(c.point);
            if (seen.insert(c.spec).second) out.push_back(std::move(c));
          }
        }
      }
    }
  }
  return out;
}

/// The distinct targets of a list such as "mlp,attention", sorted, because their order means nothing if all have the
/// same spec.
std::vector<std::string> targets_of(const std::string& roles) {
  std::set<std::string> out;
  for (size_t begin = 0; begin <= roles.size();) {
    const size_t end = std::min(roles.find(',', begin), roles.size());
    const std::string target = roles.substr(begin, end - begin);
    if (target.empty()) fail_usage("--roles {} has an empty target; write targets joined by commas.", quote(roles));
    out.insert(target);
    begin = end + 1;
  }
  return {out.begin(), out.end()};
}

Variant variant_of(const std::vector<std::string>& targets, const std::string& spec) {
  std::string text;
  for (const std::string& target : targets) text += fmt::format("{}{}={}", text.empty() ? "" : ",", target, spec);
  return Variant::parse(text);
}

/// Throws UsageError if `count` variants are more than the limit. It is called before the variants are made, because
/// they could be too many for the memory.
void check_count(size_t count, const SweepAxes& axes, std::string_view how) {
  if (std::cmp_less_equal(count, axes.max_variants)) return;
  fail_usage(
      "This sweep has {} variants ({}), more than the {} of --max-variants; give fewer values, or a higher limit.",
      count, how, axes.max_variants);
}

void add(std::vector<SweepVariant>& out, std::set<std::string>& seen, SweepVariant more) {
  if (seen.insert(more.variant.canonical()).second) out.push_back(std::move(more));
}

}  // namespace

Sensitivity parse_sensitivity(const std::string& text) {
  if (text == "linear") return Sensitivity::linear;
  if (text == "role") return Sensitivity::role;
  if (text == "layer") return Sensitivity::layer;
  fail_usage("--sensitivity {} is not known; it is linear, role or layer.", quote(text));
}

std::vector<SweepVariant> grid_variants(const SweepAxes& axes) {
  const auto roles = or_default(axes.roles, std::string("attention,mlp"));
  const auto count = [](size_t n) { return std::max<size_t>(n, 1); };
  const size_t formats = axes.formats.empty() ? mx::kElements.size() : axes.formats.size();
  const std::string how = fmt::format("{} formats x {} blocks x {} scale bits x {} rules x {} roundings x {} roles",
                                      formats, count(axes.blocks.size()), count(axes.scale_bits.size()),
                                      count(axes.rules.size()), count(axes.roundings.size()), roles.size());
  // The count is checked before variants are made, because a product of long axes can be huge.
  check_count(formats * count(axes.blocks.size()) * count(axes.scale_bits.size()) * count(axes.rules.size()) *
                  count(axes.roundings.size()) * roles.size(),
              axes, how);
  std::vector<SweepVariant> out;
  std::set<std::string> seen;
  for (const Combination& c : combinations(axes)) {
    for (const std::string& entry : roles) {
      const std::vector<std::string> targets = targets_of(entry);
      SweepPoint point = c.point;
      point.roles = fmt::format("{}", fmt::join(targets, ","));
      add(out, seen, {.variant = variant_of(targets, c.spec), .point = std::move(point)});
    }
  }
  return out;
}

std::string layer_of(std::string_view module) {
  for (size_t begin = 0; begin < module.size();) {
    const size_t end = std::min(module.find('.', begin), module.size());
    const bool number =
        end > begin && module.find_first_not_of("0123456789", begin) >= end;  // npos is beyond every end
    if (number) return std::string(module.substr(0, end));
    begin = end + 1;
  }
  return std::string(module);
}

std::vector<SweepVariant> sensitivity_variants(const SweepAxes& axes, Sensitivity unit, const ModelSpec& model) {
  std::set<std::string> targets;
  for (const std::string& entry : or_default(axes.roles, std::string("attention,mlp"))) {
    for (const std::string& target : targets_of(entry)) targets.insert(target);
  }
  // A variant with any spec finds the Linears that the targets name, by the matching rules of the grammar.
  const Variant chosen = variant_of({targets.begin(), targets.end()}, std::string(mx::kElements.front().name));
  const ResolvedVariant resolved = resolve(model, chosen);
  const std::vector<NamedLinear> all = named_linears(model);
  const auto replaced = [&](const ResolvedVariant& variant) {
    std::vector<size_t> out;  // indices of `all`
    for (size_t l = 0; l < all.size(); ++l) {
      if (variant.linear(l).replaced()) out.push_back(l);
    }
    return out;
  };

  // The units in forward order, each with its Linears.
  std::vector<std::pair<std::string, std::vector<size_t>>> units;
  for (const size_t l : replaced(resolved)) {
    const NamedLinear& linear = all[l];
    const std::string name = unit == Sensitivity::linear ? std::string(linear.module)
                             : unit == Sensitivity::role ? std::string(role_name(linear.role))
                                                         : layer_of(linear.module);
    auto found = std::find_if(units.begin(), units.end(), [&](const auto& u) { return u.first == name; });
    if (found == units.end()) found = units.insert(found, {name, {}});
    found->second.push_back(l);
  }
  const auto combos = combinations(axes);
  check_count(units.size() * combos.size(), axes,
              fmt::format("{} of each {} x {} formats and keys", units.size(),
                          unit == Sensitivity::linear ? "Linear"
                          : unit == Sensitivity::role ? "role"
                                                      : "layer",
                          combos.size()));

  std::vector<SweepVariant> out;
  std::set<std::string> seen;
  for (const Combination& c : combos) {
    for (const auto& [name, linears] : units) {
      std::vector<std::string> clauses;
      for (const size_t l : linears) clauses.emplace_back(all[l].module);
      // A glob replaces the list of Linears where it matches exactly these Linears.
      for (const std::string& shorter : {name, name + ".*"}) {
        if (replaced(resolve(all, variant_of({shorter}, c.spec))) == linears) clauses = {shorter};
      }
      SweepPoint point = c.point;
      point.roles = fmt::format("{}", fmt::join(targets, ","));
      point.unit = name;
      add(out, seen, {.variant = variant_of(clauses, c.spec), .point = std::move(point)});
    }
  }
  return out;
}

}  // namespace mxlm
