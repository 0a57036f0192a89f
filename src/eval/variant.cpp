#include "eval/variant.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cassert>
#include <cctype>
#include <charconv>
#include <optional>
#include <set>
#include <span>

#include "base/error.hpp"

namespace mxlm {
namespace {

// Bounds on hostile input; far above what any model needs.
constexpr size_t kMaxText = size_t{1} << 16;
constexpr size_t kMaxClauses = 4096;
constexpr size_t kMaxTarget = 512;
constexpr size_t kMaxName = 128;

constexpr std::string_view kNone = "none";
constexpr std::string_view kReservedName = "baseline";
constexpr std::string_view kQk = "qk", kPv = "pv", kLinear = "linear";

/// Text from outside as it is shown in a message: shortened, and without control characters.
std::string shown(std::string_view text) {
  constexpr size_t longest = 60;
  std::string out;
  for (const char c : text.substr(0, longest)) out += c >= 0x20 && c < 0x7f ? c : '?';
  return "'" + out + (text.size() > longest ? "...'" : "'");
}

/// Levenshtein distance.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

/// " (did you mean 'x'?)" for the nearest of `known`, or nothing if none is near.
std::string suggestion(std::string_view found, std::span<const std::string_view> known) {
  constexpr size_t longest = 32;
  if (found.empty() || found.size() > longest) return {};
  std::string_view best;
  size_t best_distance = std::clamp<size_t>(found.size() / 2, 1, 3) + 1;
  for (const std::string_view name : known) {
    if (const size_t d = distance(found, name); d < best_distance) {
      best = name;
      best_distance = d;
    }
  }
  return best.empty() ? std::string{} : fmt::format(" (did you mean '{}'?)", best);
}

/// The whole text, to say where in it something is wrong.
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

/// Removes what comes before the first `separator` (all of it if there is none) and the separator itself from `rest`.
std::string_view take_until(std::string_view& rest, char separator) {
  const size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view head = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return head;
}

/// Keys as they were given to one operand.
struct Keys {
  std::optional<int> block_size, scale_bits;
  std::optional<mx::ScaleRule> rule;
  std::optional<mx::Rounding> rounding;
  [[nodiscard]] bool any() const { return block_size || scale_bits || rule || rounding; }
  /// `other`'s where this one has none.
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
  std::optional<mx::ElementFormat> element;  // empty: none
  Keys keys;
};

template <typename Table>
std::vector<std::string_view> names_of(const Table& table) {
  std::vector<std::string_view> out;
  out.reserve(std::size(table));
  for (const auto& row : table) out.push_back(row.name);
  return out;
}

/// Reads a key's value by its name from one of the tables of mx/format.hpp.
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

ParsedOperand parse_operand(const Context& context, std::string_view text) {
  ParsedOperand out;
  std::string_view rest = text;
  out.text = trim(take_until(rest, '@'));
  if (out.text != kNone) {
    out.element = mx::parse_element(out.text);
    if (!out.element) {
      std::vector<std::string_view> names = names_of(mx::kElements);
      for (const auto& row : mx::kElements) {
        for (const std::string_view alias : row.aliases) {
          if (!alias.empty()) names.push_back(alias);
        }
      }
      names.push_back(kNone);
      const std::string found = out.text.empty() ? "a format is missing" : "format " + shown(out.text) + " is unknown";
      context.wrong(out.text, "{}{}; there are {}, and none", found, suggestion(out.text, names), mx::known_elements());
    }
  }
  const size_t name_end = static_cast<size_t>(out.text.data() + out.text.size() - text.data());
  if (text.find('@', name_end) == std::string_view::npos) return out;
  // Each '@' begins a key, so an '@' at the very end is an empty key, which parse_key refuses.
  for (bool more = true; more;) {
    more = rest.find('@') != std::string_view::npos;
    parse_key(context, trim(take_until(rest, '@')), out.keys);
  }
  return out;
}

OperandSpec to_spec(const ParsedOperand& operand, const Keys& keys) {
  if (!operand.element) return std::nullopt;
  mx::BlockFormat format;
  format.element = *operand.element;
  format.block_size = keys.block_size.value_or(format.block_size);
  format.scale_bits = keys.scale_bits.value_or(format.scale_bits);
  format.rule = keys.rule.value_or(format.rule);
  format.rounding = keys.rounding.value_or(format.rounding);
  assert(mx::check(format).empty());
  return format;
}

ProductSpec parse_spec(const Context& context, std::string_view text) {
  const bool two_sides = text.find('/') != std::string_view::npos;
  std::string_view rest = text;
  const ParsedOperand first = parse_operand(context, trim(take_until(rest, '/')));
  if (!first.element && first.keys.any()) {
    context.wrong(first.text, "keys after {} change nothing here", kNone);
  }
  if (!two_sides) {
    const OperandSpec both = to_spec(first, first.keys);
    return {.weights = both, .activations = both};
  }
  if (const size_t slash = rest.find('/'); slash != std::string_view::npos) {
    context.wrong(rest.substr(slash), "a spec has two sides at most: weights/activations");
  }
  const ParsedOperand last = parse_operand(context, trim(rest));
  if (!first.element && !last.element && last.keys.any()) {
    context.wrong(last.text, "keys after {} change nothing here", kNone);
  }
  return {.weights = to_spec(first, first.keys.with_defaults(last.keys)), .activations = to_spec(last, last.keys)};
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
         c == '+' || c == '-';
}

/// Module names are printable ASCII; the grammar's own separators and spaces are not among them.
bool is_target_character(char c) {
  return c > 0x20 && c < 0x7f && std::string_view(",=:@/").find(c) == std::string_view::npos;
}

/// Removes "NAME :" from the front. A ':' after the first '=' or ',' begins no name.
std::string take_name(const Context& context, std::string_view& rest) {
  const size_t mark = rest.find_first_of(":=,");
  if (mark == std::string_view::npos || rest[mark] != ':') return {};
  const std::string_view name = trim(rest.substr(0, mark));
  if (name.empty() || name.size() > kMaxName || !std::all_of(name.begin(), name.end(), is_name_character)) {
    context.wrong(
        name.empty() ? rest : name,
        "{} before ':' is no name of a variant: use up to {} letters, digits, '.', '_', '+', '-' (in a glob, '?' "
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
    context.wrong(text,
                  "{} is no clause; write TARGET=FORMAT, where TARGET is mlp, attention, lm_head, linear, qk, pv or a "
                  "module name with '*' and '?'",
                  shown(text));
  }
  const std::string_view target = trim(text.substr(0, equals));
  if (target.empty()) {
    context.wrong(text,
                  "a target is missing before '='; there are mlp, attention, lm_head, linear, qk, pv and module names "
                  "with '*' and '?'");
  }
  if (target.size() > kMaxTarget) context.wrong(target, "a target has {} characters at most", kMaxTarget);
  for (size_t i = 0; i < target.size(); ++i) {
    if (!is_target_character(target[i])) {
      context.wrong(target.substr(i), "a target cannot hold {}; in a module name, '?' stands for any one character",
                    shown(target.substr(i, 1)));
    }
  }
  return {.target = std::string(target), .spec = parse_spec(context, trim(text.substr(equals + 1)))};
}

/// Shell-like match of a whole name: "*" is any run of characters (dots too), "?" any one. Linear in memory, at worst
/// pattern x name in time.
bool glob_match(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, retry = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++retry;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

bool target_matches(std::string_view target, std::string_view module, Role role) {
  if (target == kQk || target == kPv) return false;
  if (target == kLinear) return role != Role::router;
  for (const Role named : {Role::attention, Role::mlp, Role::lm_head}) {
    if (target == role_name(named)) return role == named;
  }
  return role != Role::router && glob_match(target, module);
}

/// "@key=value" for each key that differs from the default, or that `also` sets (so that it is not taken from there).
std::string keys_text(const mx::BlockFormat& format, const mx::BlockFormat& also) {
  const mx::BlockFormat standard;
  std::string out;
  const auto differs = [&](auto member) {
    return format.*member != standard.*member || also.*member != standard.*member;
  };
  if (differs(&mx::BlockFormat::block_size)) out += fmt::format("@block={}", format.block_size);
  if (differs(&mx::BlockFormat::scale_bits)) out += fmt::format("@scale_bits={}", format.scale_bits);
  if (differs(&mx::BlockFormat::rule)) out += fmt::format("@rule={}", mx::rule_name(format.rule));
  if (differs(&mx::BlockFormat::rounding)) out += fmt::format("@round={}", mx::rounding_name(format.rounding));
  return out;
}

}  // namespace

Variant Variant::parse(std::string_view text) {
  const Context context{.text = text, .what = "variant"};
  if (text.size() > kMaxText) fail_usage("a variant has {} characters at most, this one has {}", kMaxText, text.size());
  if (trim(text).empty())
    fail_usage("an empty variant; write TARGET=FORMAT, for example linear={}", mx::kElements[0].name);
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
    out += clause.target + '=' + to_text(clause.spec);
  }
  return out;
}

ProductSpec Variant::product(std::string_view module, Role role) const {
  for (size_t i = clauses.size(); i-- > 0;) {
    if (matches(i, module, role)) return clauses[i].spec;
  }
  return {};
}

ProductSpec Variant::attention_product(std::string_view which) const {
  assert(which == kQk || which == kPv);
  for (size_t i = clauses.size(); i-- > 0;) {
    if (clauses[i].target == which) return clauses[i].spec;
  }
  return {};
}

bool Variant::matches(size_t i, std::string_view module, Role role) const {
  assert(i < clauses.size());
  return role != Role::router && target_matches(clauses[i].target, module, role);
}

void Variant::require_matches(std::span<const NamedLinear> linears) const {
  for (size_t i = 0; i < clauses.size(); ++i) {
    const std::string& target = clauses[i].target;
    if (target == kQk || target == kPv) continue;
    const auto matched = [&](const NamedLinear& linear) { return matches(i, linear.module, linear.role); };
    if (std::any_of(linears.begin(), linears.end(), matched)) continue;
    std::set<std::string_view> roles;
    std::set<std::string> patterns;  // names with their layer and expert numbers as "*"
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
    names.insert(names.end(), {kLinear, kQk, kPv});
    const std::string near = suggestion(target, names);
    names.insert(names.end(), patterns.begin(), patterns.end());
    fail_usage("variant {}: target {} matches no Linear of this model{}; there are {}", shown(name), shown(target),
               near, fmt::join(names, ", "));
  }
}

std::string to_text(const OperandSpec& spec) {
  if (!spec) return std::string(kNone);
  return mx::element_name(spec->element) + keys_text(*spec, {});
}

std::string to_text(const ProductSpec& spec) {
  const OperandSpec &weights = spec.weights, &activations = spec.activations;
  if (weights == activations) return to_text(weights);
  if (!weights || !activations) return to_text(weights) + '/' + to_text(activations);
  mx::BlockFormat same_keys = *weights;
  same_keys.element = activations->element;
  // Keys of the last operand hold for the first too, so the first has to name each one that it does not share.
  const std::string first_keys = same_keys == *activations ? std::string{} : keys_text(*weights, *activations);
  return mx::element_name(weights->element) + first_keys + '/' + to_text(activations);
}

mx::BlockFormat parse_block_format(std::string_view text) {
  const Context context{.text = text, .what = "format"};
  if (text.size() > kMaxText) fail_usage("a format has {} characters at most, this one has {}", kMaxText, text.size());
  const std::string_view operand_text = trim(text);
  if (const size_t slash = operand_text.find('/'); slash != std::string_view::npos) {
    context.wrong(operand_text.substr(slash), "one format is wanted here, not weights/activations");
  }
  const ParsedOperand operand = parse_operand(context, operand_text);
  const OperandSpec spec = to_spec(operand, operand.keys);
  if (!spec) context.wrong(operand_text, "a format is wanted here, not {}", kNone);
  return *spec;
}

}  // namespace mxlm
