#include "variants/variant.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cassert>
#include <cctype>
#include <charconv>
#include <optional>
#include <set>
#include <span>

#include "base/error.hpp"
#include "base/suggest.hpp"

namespace mxlm {
namespace {

// Bounds against hostile input. They are far above what any model needs.
constexpr size_t kMaxText = size_t{1} << 16;
constexpr size_t kMaxClauses = 4096;
constexpr size_t kMaxTarget = 512;
constexpr size_t kMaxName = 128;

constexpr std::string_view kNone = "none";
constexpr std::string_view kReservedName = "baseline";

/// Text from outside, shortened and without control characters, for a message.
std::string shown(std::string_view text) {
  constexpr size_t longest = 60;
  std::string out;
  for (const char c : text.substr(0, longest)) out += c >= 0x20 && c < 0x7f ? c : '?';
  return "'" + out + (text.size() > longest ? "...'" : "'");
}

/// " (did you mean 'x'?)" for the nearest of `known`; "" if all of `known` are too different.
std::string suggestion(std::string_view found, std::span<const std::string_view> known) {
  constexpr size_t longest = 32;
  if (found.empty() || found.size() > longest) return {};
  std::string_view best;
  size_t best_distance = std::clamp<size_t>(found.size() / 2, 1, 3) + 1;
  for (const std::string_view name : known) {
    if (const size_t d = edit_distance(found, name); d < best_distance) {
      best = name;
      best_distance = d;
    }
  }
  return best.empty() ? std::string{} : fmt::format(" (did you mean '{}'?)", best);
}

/// The whole text of the user, with which messages say where the mistake is.
struct Context {
  std::string_view text;
  const char* what;  // "variant", "format"

  template <typename... Args>
  [[noreturn]] void wrong(std::string_view at, fmt::format_string<Args...> message, Args&&... args) const {
    fail_usage("{} {}, at character {}: {}", what, shown(text), at.data() - text.data() + 1,
               fmt::format(message, std::forward<Args>(args)...));
  }
};

std::string_view trim(std::string_view text) {
  const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

/// Removes the part before the first `separator` from `rest`, with the separator, and returns it. Without a separator
/// that part is all of `rest`.
std::string_view take_until(std::string_view& rest, char separator) {
  const size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view head = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return head;
}

/// The keys that were given to one operand.
struct Keys {
  std::optional<int> block_size, scale_bits;
  std::optional<mx::ScaleRule> rule;
  std::optional<mx::Rounding> rounding;
  [[nodiscard]] bool any() const { return block_size || scale_bits || rule || rounding; }
  /// These keys, with those of `other` where a key is not given here.
  [[nodiscard]] Keys with_defaults(const Keys& other) const {
    Keys out = *this;
    if (!out.block_size) out.block_size = other.block_size;
    if (!out.scale_bits) out.scale_bits = other.scale_bits;
    if (!out.rule) out.rule = other.rule;
    if (!out.rounding) out.rounding = other.rounding;
    return out;
  }
};

struct ParsedOperand {
  std::string_view text;
  std::optional<mx::Format> format;  // with the settings of its name; nullopt for "none"
  Keys keys;
};

template <typename Table>
std::vector<std::string_view> names_of(const Table& table) {
  std::vector<std::string_view> out;
  out.reserve(std::size(table));
  for (const auto& row : table) out.push_back(row.name);
  return out;
}

/// Reads the value of a key as a name in one of the tables of mx/format.hpp.
template <typename Table, typename Parse>
auto parse_named(const Context& context, std::string_view key, std::string_view value, const Table& table,
                 Parse parse) {
  const auto found = parse(value);
  if (!found) {
    const auto names = names_of(table);
    context.wrong(value, "{} {} is unknown{}; there are {}", key, shown(value), suggestion(value, names),
                  fmt::join(names, ", "));
  }
  return found;
}

int parse_int(const Context& context, std::string_view key, std::string_view value) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size()) {
    context.wrong(value, "{} must be a whole number, not {}", key, shown(value));
  }
  return number;
}

void parse_key(const Context& context, std::string_view text, Keys& keys) {
  static constexpr std::string_view known[] = {"block", "scale_bits", "rule", "round"};
  std::string_view rest = text;
  const std::string_view key = trim(take_until(rest, '='));
  const bool has_value = text.find('=') != std::string_view::npos;
  const std::string_view value = trim(rest);
  if (std::find(std::begin(known), std::end(known), key) == std::end(known)) {
    context.wrong(key, "key {} is unknown{}; there are {}", shown(key), suggestion(key, known), fmt::join(known, ", "));
  }
  if (!has_value || value.empty()) context.wrong(key, "key {} needs a value: @{}=...", key, key);
  const auto once = [&](const auto& slot) {
    if (slot) context.wrong(key, "key {} is given twice for one operand", key);
  };
  if (key == "block") {
    once(keys.block_size);
    keys.block_size = parse_int(context, key, value);
    if (!mx::valid_block_size(*keys.block_size)) {
      context.wrong(value, "{}", mx::check({.element = {}, .block_size = *keys.block_size}));
    }
  } else if (key == "scale_bits") {
    once(keys.scale_bits);
    keys.scale_bits = parse_int(context, key, value);
    if (!mx::valid_scale_bits(*keys.scale_bits)) {
      context.wrong(value, "{}", mx::check({.element = {}, .scale_bits = *keys.scale_bits}));
    }
  } else if (key == "rule") {
    once(keys.rule);
    keys.rule = parse_named(context, key, value, mx::kScaleRules, mx::parse_rule);
  } else {
    once(keys.rounding);
    keys.rounding = parse_named(context, key, value, mx::kRoundings, mx::parse_rounding);
  }
}

/// Throws UsageError for a key that means nothing for the format of its own operand. `keys` holds the key at `at`.
void require_key(const Context& context, std::string_view at, const mx::Format& format, const Keys& keys) {
  const auto require = [&](mx::Key key, bool given, std::string_view name) {
    if (!given || mx::takes_key(format, key)) return;
    context.wrong(at, "key {} means nothing for {}, {}", name, mx::format_name(format),
                  mx::takes_key(format, mx::Key::round) ? "which takes round alone" : "which takes no keys");
  };
  require(mx::Key::block, keys.block_size.has_value(), "block");
  require(mx::Key::scale_bits, keys.scale_bits.has_value(), "scale_bits");
  require(mx::Key::rule, keys.rule.has_value(), "rule");
  require(mx::Key::round, keys.rounding.has_value(), "round");
}

ParsedOperand parse_operand(const Context& context, std::string_view text) {
  ParsedOperand out;
  std::string_view rest = text;
  out.text = trim(take_until(rest, '@'));
  if (out.text != kNone) {
    out.format = mx::parse_format(out.text);
    if (!out.format) {
      std::vector<std::string_view> names = names_of(mx::kElements);
      for (const auto& row : mx::kReferenceFormats) {
        names.push_back(row.name);
        if (!row.alias.empty()) names.push_back(row.alias);
      }
      for (const auto& row : mx::kElements) {
        for (const std::string_view alias : row.aliases) {
          if (!alias.empty()) names.push_back(alias);
        }
      }
      names.push_back(kNone);
      const std::string found = out.text.empty() ? "a format is missing" : "format " + shown(out.text) + " is unknown";
      context.wrong(out.text, "{}{}; there are {}, and none", found, suggestion(out.text, names), mx::known_formats());
    }
  }
  const size_t name_end = static_cast<size_t>(out.text.data() + out.text.size() - text.data());
  if (text.find('@', name_end) == std::string_view::npos) return out;
  // Each '@' begins a key. So an '@' at the end is an empty key, which parse_key refuses.
  for (bool more = true; more;) {
    more = rest.find('@') != std::string_view::npos;
    const std::string_view text_of_key = trim(take_until(rest, '@'));
    parse_key(context, text_of_key, out.keys);
    if (out.format) require_key(context, text_of_key, *out.format, out.keys);
  }
  return out;
}

/// The operand's format with those of `keys` that mean something for the format.
OperandSpec to_spec(const ParsedOperand& operand, const Keys& keys) {
  if (!operand.format) return std::nullopt;
  mx::Format format = *operand.format;
  const auto set = [&](mx::Key key, auto& setting, const auto& given) {
    if (given && mx::takes_key(format, key)) setting = *given;
  };
  set(mx::Key::block, format.block_size, keys.block_size);
  set(mx::Key::scale_bits, format.scale_bits, keys.scale_bits);
  set(mx::Key::rule, format.rule, keys.rule);
  set(mx::Key::round, format.rounding, keys.rounding);
  assert(mx::check(format).empty());
  return format;
}

ProductSpec parse_spec(const Context& context, std::string_view text) {
  constexpr size_t most = 3;
  std::vector<ParsedOperand> sides;
  std::string_view rest = text;
  for (bool more = true; more;) {
    more = rest.find('/') != std::string_view::npos;
    if (sides.size() == most) {
      context.wrong(rest, "a spec has three sides at most: weights/activations/outputs");
    }
    sides.push_back(parse_operand(context, trim(take_until(rest, '/'))));
  }
  const ParsedOperand& last = sides.back();
  const bool nothing = std::none_of(sides.begin(), sides.end(), [](const auto& side) { return side.format; });
  for (const ParsedOperand& side : sides) {
    if (!side.format && side.keys.any() && (&side != &last || nothing)) {
      context.wrong(side.text, "keys after {} change nothing here", kNone);
    }
  }
  const auto spec = [&](size_t i) { return to_spec(sides[i], sides[i].keys.with_defaults(last.keys)); };
  if (sides.size() == 1) return {.weights = spec(0), .activations = spec(0), .outputs = std::nullopt};
  ProductSpec out{.weights = spec(0), .activations = spec(1), .outputs = std::nullopt};
  if (sides.size() == most) out.outputs = spec(2);
  if (out.outputs && !out.replaced()) {
    context.wrong(last.text, "outputs are quantised only where weights or activations are");
  }
  if (out.outputs && mx::needs_whole_tensor(*out.outputs)) {
    context.wrong(last.text, "outputs cannot be in {}, because its scale depends on the whole tensor",
                  mx::format_name(*out.outputs));
  }
  return out;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
         c == '+' || c == '-';
}

/// True for characters of module names: printable ASCII except spaces and the separators of the grammar.
bool is_target_character(char c) {
  return c > 0x20 && c < 0x7f && std::string_view(",=:@/").find(c) == std::string_view::npos;
}

/// Removes "NAME :" from the front and returns NAME. A ':' after the first '=' or ',' does not end a name.
std::string take_name(const Context& context, std::string_view& rest) {
  const size_t mark = rest.find_first_of(":=,");
  if (mark == std::string_view::npos || rest[mark] != ':') return {};
  const std::string_view name = trim(rest.substr(0, mark));
  if (name.empty() || name.size() > kMaxName || !std::all_of(name.begin(), name.end(), is_name_character)) {
    context.wrong(
        name.empty() ? rest : name,
        "{} before ':' is not a name for a variant: use up to {} letters, digits, '.', '_', '+', '-' (in a glob, '?' "
        "stands for a ':')",
        shown(name), kMaxName);
  }
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower == kReservedName) {
    context.wrong(name, "the name '{}' is taken by the unchanged model; choose another", kReservedName);
  }
  rest.remove_prefix(mark + 1);
  return std::string(name);
}

Clause parse_clause(const Context& context, std::string_view text) {
  if (text.empty()) context.wrong(text, "a clause is missing: TARGET=FORMAT");
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    context.wrong(
        text,
        "{} is not a clause; write TARGET=FORMAT, where TARGET is mlp, attention, lm_head, linear, qk, pv, vector or "
        "a module name with '*' and '?'",
        shown(text));
  }
  const std::string_view target = trim(text.substr(0, equals));
  if (target.empty()) {
    context.wrong(
        text,
        "a target is missing before '='; there are mlp, attention, lm_head, linear, qk, pv, vector and module "
        "names with '*' and '?'");
  }
  if (target.size() > kMaxTarget) context.wrong(target, "a target has {} characters at most", kMaxTarget);
  for (size_t i = 0; i < target.size(); ++i) {
    if (!is_target_character(target[i])) {
      context.wrong(target.substr(i), "a target cannot hold {}; in a module name, '?' stands for any one character",
                    shown(target.substr(i, 1)));
    }
  }
  const std::string_view spec_text = trim(text.substr(equals + 1));
  Clause clause{.target = std::string(target), .spec = parse_spec(context, spec_text)};
  if (target == kTargetVector) {
    // Vector operations can be rounded only to bfloat16. The grammar uses the name of the format, but operands do not
    // get that format.
    const std::string given = to_text(clause.spec);
    const std::string_view bf16 = mx::kReferenceFormats[0].name;
    if (given != bf16 && given != kNone) context.wrong(spec_text, "vector operations can be rounded to {} only", bf16);
    clause.spec = {};
    if (given == bf16) clause.spec.arithmetic = Arithmetic::bf16_rounded;
  }
  const bool attention_product = target == kTargetQk || target == kTargetPv;
  if (clause.spec.outputs && (attention_product || target == role_name(Role::lm_head))) {
    context.wrong(spec_text, "the outputs of {} are not quantised; write WEIGHTS/ACTIVATIONS alone", target);
  }
  for (const OperandSpec& side : {clause.spec.weights, clause.spec.activations}) {
    if (attention_product && side && mx::has_row_scales(*side)) {
      context.wrong(spec_text,
                    "attention products cannot be in {}, because its float32 scales are stored apart from the values",
                    mx::format_name(*side));
    }
  }
  return clause;
}

/// "@key=value" for each key that `format` takes and that is not the default in `format` or in `also`. The keys of
/// `also` would otherwise be the defaults when the text is parsed.
std::string keys_text(const mx::Format& format, const mx::Format& also) {
  const mx::Format standard;
  std::string out;
  const auto shows = [&](mx::Key key, auto member) {
    const auto differs = [&](const mx::Format& f) { return mx::takes_key(f, key) && f.*member != standard.*member; };
    return mx::takes_key(format, key) && (differs(format) || differs(also));
  };
  if (shows(mx::Key::block, &mx::Format::block_size)) out += fmt::format("@block={}", format.block_size);
  if (shows(mx::Key::scale_bits, &mx::Format::scale_bits)) out += fmt::format("@scale_bits={}", format.scale_bits);
  if (shows(mx::Key::rule, &mx::Format::rule)) out += fmt::format("@rule={}", mx::rule_name(format.rule));
  if (shows(mx::Key::round, &mx::Format::rounding)) {
    out += fmt::format("@round={}", mx::rounding_name(format.rounding));
  }
  return out;
}

/// True if a side without keys of its own, which takes the keys of `last`, is `format`.
bool takes_keys_from(const mx::Format& format, const mx::Format& last) {
  const auto same = [&](mx::Key key, auto member) {
    return !mx::takes_key(format, key) ||
           format.*member == (mx::takes_key(last, key) ? last.*member : mx::Format{}.*member);
  };
  return same(mx::Key::block, &mx::Format::block_size) && same(mx::Key::scale_bits, &mx::Format::scale_bits) &&
         same(mx::Key::rule, &mx::Format::rule) && same(mx::Key::round, &mx::Format::rounding);
}

/// The text of a side before the last side. It has keys only if the keys of the last side are not right for it.
std::string side_text(const OperandSpec& spec, const OperandSpec& last) {
  if (!spec || !last) return to_text(spec);
  return mx::format_name(*spec) + (takes_keys_from(*spec, *last) ? std::string{} : keys_text(*spec, *last));
}

}  // namespace

Variant Variant::parse(std::string_view text) {
  const Context context{.text = text, .what = "variant"};
  if (text.size() > kMaxText)
    fail_usage("a variant has {} characters at most, but this one has {}", kMaxText, text.size());
  if (trim(text).empty())
    fail_usage("the variant is empty; write TARGET=FORMAT, for example linear={}", mx::kElements[0].name);
  Variant out;
  std::string_view rest = text;
  out.name = take_name(context, rest);
  for (bool more = true; more;) {
    more = rest.find(',') != std::string_view::npos;
    if (out.clauses.size() == kMaxClauses) context.wrong(rest, "a variant has {} clauses at most", kMaxClauses);
    out.clauses.push_back(parse_clause(context, trim(take_until(rest, ','))));
  }
  if (out.name.empty()) out.name = out.canonical();
  return out;
}

std::string Variant::canonical() const {
  std::string out;
  for (const Clause& clause : clauses) {
    if (!out.empty()) out += ',';
    out += clause.target + '=';
    out += clause.spec.arithmetic == Arithmetic::bf16_rounded ? std::string(mx::kReferenceFormats[0].name)
                                                              : to_text(clause.spec);
  }
  return out;
}

std::string Variant::text() const {
  const std::string form = canonical();
  return name.empty() || name == form ? form : name + ": " + form;
}

Variant Variant::with_quantized_outputs() const {
  Variant out = *this;
  for (Clause& clause : out.clauses) {
    const bool logits = clause.target == role_name(Role::lm_head);
    if (is_special_target(clause.target) || logits || clause.spec.outputs || !clause.spec.replaced()) continue;
    const OperandSpec& outputs = clause.spec.activations ? clause.spec.activations : clause.spec.weights;
    if (mx::needs_whole_tensor(*outputs)) {
      fail_usage(
          "--quantize-outputs: outputs cannot be in {}, because its scale depends on the whole tensor; name another "
          "format for them in variant {}: {}=WEIGHTS/ACTIVATIONS/OUTPUTS.",
          mx::format_name(*outputs), shown(name), clause.target);
    }
    clause.spec.outputs = outputs;
  }
  if (name == canonical()) out.name = out.canonical();
  return out;
}

void fail_unmatched(const Variant& variant, std::string_view target, std::span<const NamedLinear> linears) {
  std::set<std::string_view> roles;
  std::set<std::string> patterns;  // module names with "*" for the numbers of layers and experts
  for (const NamedLinear& linear : linears) {
    if (linear.role == Role::router) continue;
    roles.insert(role_name(linear.role));
    std::string pattern;
    for (std::string_view rest = linear.module; !rest.empty();) {
      const std::string_view part = take_until(rest, '.');
      const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
      pattern += pattern.empty() ? "" : ".";
      pattern += number ? "*" : part;
    }
    patterns.insert(pattern);
  }
  std::vector<std::string_view> names(roles.begin(), roles.end());
  names.insert(names.end(), {kTargetLinear, kTargetQk, kTargetPv, kTargetVector});
  const std::string near = suggestion(target, names);
  names.insert(names.end(), patterns.begin(), patterns.end());
  fail_usage("variant {}: target {} matches no Linear of this model{}; there are {}", shown(variant.name),
             shown(target), near, fmt::join(names, ", "));
}

std::string to_text(const OperandSpec& spec) {
  if (!spec) return std::string(kNone);
  return mx::format_name(*spec) + keys_text(*spec, {});
}

std::string to_text(const ProductSpec& spec) {
  if (spec.outputs) {
    return side_text(spec.weights, spec.outputs) + '/' + side_text(spec.activations, spec.outputs) + '/' +
           to_text(spec.outputs);
  }
  if (spec.weights == spec.activations) return to_text(spec.weights);
  return side_text(spec.weights, spec.activations) + '/' + to_text(spec.activations);
}

mx::Format parse_block_format(std::string_view text) {
  const Context context{.text = text, .what = "format"};
  if (text.size() > kMaxText)
    fail_usage("a format has {} characters at most, but this one has {}", kMaxText, text.size());
  const std::string_view operand_text = trim(text);
  if (const size_t slash = operand_text.find('/'); slash != std::string_view::npos) {
    context.wrong(operand_text.substr(slash), "a single format is expected here, not weights/activations");
  }
  const ParsedOperand operand = parse_operand(context, operand_text);
  const OperandSpec spec = to_spec(operand, operand.keys);
  if (!spec) context.wrong(operand_text, "a format is expected here, not {}", kNone);
  return *spec;
}

}  // namespace mxlm
