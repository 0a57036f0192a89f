#include "model/config.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <system_error>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/quote.hpp"

namespace mxlm {

namespace dom = simdjson::dom;

struct Config::Document {
  dom::parser parser;
};

namespace {

/// The member of an object, or the element of a list by its number, either of which may be null; nullopt if it is
/// absent.
std::optional<dom::element> find(const dom::element& parent, std::string_view key) {
  dom::element out;
  if (parent.is_object()) {
    return last_member(parent.get_object().value_unsafe(), key, out) ? std::optional(out) : std::nullopt;
  }
  size_t index = 0;
  const auto parsed = std::from_chars(key.data(), key.data() + key.size(), index);
  if (parsed.ec != std::errc{} || parsed.ptr != key.data() + key.size()) return std::nullopt;
  return parent.at(index).get(out) == simdjson::SUCCESS ? std::optional(out) : std::nullopt;
}

bool is_empty(const dom::element& value) {
  dom::array array;
  dom::object object;
  bool flag = true;
  if (value.get(array) == simdjson::SUCCESS) return array.size() == 0;
  if (value.get(object) == simdjson::SUCCESS) return object.size() == 0;
  return value.is_null() || (value.get(flag) == simdjson::SUCCESS && !flag);
}

/// True if `value` is the supported value, or is in the list of supported values.
bool is_supported(const dom::element& value, const dom::element& supported) {
  if (value.is_null()) return true;
  dom::array several;
  if (supported.get(several) == simdjson::SUCCESS) {
    return std::any_of(several.begin(), several.end(), [&](const dom::element& s) { return is_supported(value, s); });
  }
  if (supported.is_null()) return is_empty(value);
  bool flag = false, supported_flag = false;
  double number = 0, supported_number = 0;
  std::string_view text, supported_text;
  if (supported.get(supported_flag) == simdjson::SUCCESS) {
    return value.get(flag) == simdjson::SUCCESS && flag == supported_flag;
  }
  if (supported.get(supported_number) == simdjson::SUCCESS) {
    return value.get(number) == simdjson::SUCCESS && number == supported_number;
  }
  return supported.get(supported_text) == simdjson::SUCCESS && value.get(text) == simdjson::SUCCESS &&
         text == supported_text;
}

/// The JSON text of a value, short enough for a message.
std::string json_text(const dom::element& value) {
  std::string text = quote(simdjson::minify(value));
  return text.substr(1, text.size() - 2);
}

void check_members(const dom::element& values, const dom::object& supported, const std::string& file,
                   const std::string& at) {
  for (const auto [key, allowed] : supported) {
    const auto value = find(values, key);
    if (!value) continue;
    const std::string path = at + std::string(key);
    dom::object members;
    if (allowed.get(members) == simdjson::SUCCESS) {
      if (value->is_object()) check_members(*value, members, file, path + ".");
    } else if (!is_supported(*value, allowed)) {
      fail("'{}': '{}' is {}, which changes what the model computes and is not supported; only {} is supported.", file,
           path, json_text(*value), allowed.is_null() ? "an absent value" : json_text(allowed));
    }
  }
}

}  // namespace

Config Config::parse(std::string_view json, const std::string& name) {
  Config config;
  config.name_ = name;
  config.document_ = std::make_shared<Document>();
  const auto error = parse_python_json(config.document_->parser, json, config.value_);
  if (error != simdjson::SUCCESS) {
    fail("'{}' is not valid JSON ({}); download it again.", name, simdjson::error_message(error));
  }
  if (!config.value_.is_object()) fail("'{}' holds no JSON object; it should be a model's config.json.", name);
  return config;
}

Config Config::merge(const std::vector<Config>& objects, const std::string& name) {
  std::map<std::string, std::string, std::less<>> members;  // key -> the member as JSON, with its key
  for (const Config& config : objects) {
    for (const dom::key_value_pair member : dom::object(config.value_)) {
      members.insert_or_assign(std::string(member.key), simdjson::minify(member));
    }
  }
  std::string text = "{";
  for (const auto& [key, member] : members) text.append(text.size() > 1 ? "," : "").append(member);
  return parse(text + "}", name);
}

std::optional<dom::element> Config::find_in_file(std::string_view key) const {
  for (const auto& [name, other] : aliases_) {
    if (name != key) continue;
    if (auto element = find(value_, other)) return element;
  }
  return find(value_, key);
}

bool Config::mentions(std::string_view key) const { return find_in_file(key).has_value(); }

std::optional<dom::element> Config::find_value(std::string_view key) const {
  auto element = find_in_file(key);
  for (size_t i = 0; !element && i < defaults_.size(); ++i) element = find(defaults_[i].value_, key);
  if (element && element->is_null()) element.reset();
  return element;
}

bool Config::has(std::string_view key) const { return find_value(key).has_value(); }

bool Config::is_integer(std::string_view key) const {
  const auto element = find_value(key);
  return element && element->is_int64();
}

bool Config::is_true(std::string_view key) const {
  const auto element = find_value(key);
  bool value = false;
  return element && element->get(value) == simdjson::SUCCESS && value;
}

int64_t Config::integer(std::string_view key, int64_t min, int64_t max) const {
  const auto element = find_value(key);
  if (!element) fail("'{}' has no '{}'; it is needed to load the model.", name_, key);
  int64_t value = 0;
  if (element->get(value) != simdjson::SUCCESS) fail("'{}': '{}' should be an integer.", name_, key);
  if (value < min || value > max) {
    fail("'{}': '{}' is {}, which is outside {} to {}; the file is damaged or not a language model's.", name_, key,
         value, min, max);
  }
  return value;
}

int64_t Config::integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const {
  return has(key) ? integer(key, min, max) : fallback;
}

double Config::number(std::string_view key) const {
  const auto element = find_value(key);
  if (!element) fail("'{}' has no '{}'; it is needed to load the model.", name_, key);
  return number_of(*element, key);
}

double Config::number_of(const dom::element& element, std::string_view key) const {
  double value = 0;
  if (element.get(value) != simdjson::SUCCESS || !std::isfinite(value)) {
    fail("'{}': '{}' should be a finite number.", name_, key);
  }
  return value;
}

double Config::number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }

bool Config::boolean(std::string_view key) const {
  const auto element = find_value(key);
  if (!element && mentions(key)) return false;
  if (!element) fail("'{}' has no '{}'; it is needed to load the model.", name_, key);
  bool value = false;
  if (element->get(value) != simdjson::SUCCESS) fail("'{}': '{}' should be true or false.", name_, key);
  return value;
}

bool Config::boolean_or(std::string_view key, bool fallback) const { return has(key) ? boolean(key) : fallback; }

std::string Config::string(std::string_view key) const {
  const auto element = find_value(key);
  if (!element) fail("'{}' has no '{}'; it is needed to load the model.", name_, key);
  return string_of(*element, key);
}

std::string Config::string_of(const dom::element& element, std::string_view key) const {
  std::string_view value;
  if (element.get(value) != simdjson::SUCCESS) fail("'{}': '{}' should be a string.", name_, key);
  return std::string(value);
}

std::string Config::string_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? string(key) : std::string(fallback);
}

std::optional<Config> Config::object(std::string_view key) const {
  const auto element = find_value(key);
  if (!element) return std::nullopt;
  if (!element->is_object()) fail("'{}': '{}' should be an object.", name_, key);
  return child(*element);
}

std::optional<Config> Config::array(std::string_view key) const {
  const auto element = find_value(key);
  if (!element) return std::nullopt;
  if (!element->is_array()) fail("'{}': '{}' should be a list.", name_, key);
  return child(*element);
}

Config Config::child(const dom::element& element) const {
  Config config;
  config.document_ = document_;
  config.value_ = element;
  config.name_ = name_;
  return config;
}

size_t Config::length() const {
  dom::array array;
  return value_.get(array) == simdjson::SUCCESS ? array.size() : 0;
}

std::string Config::json() const { return simdjson::minify(value_); }

std::vector<std::string> Config::keys() const {
  std::vector<std::string> out;
  dom::object object;
  if (value_.get(object) != simdjson::SUCCESS) return out;
  for (const auto member : object) out.emplace_back(member.key);
  return out;
}

std::vector<double> Config::numbers(std::string_view key) const {
  std::vector<double> out;
  const auto list = array(key);
  if (!list) return out;
  out.reserve(list->length());
  for (const dom::element element : dom::array(list->value_)) out.push_back(number_of(element, key));
  return out;
}

std::vector<std::string> Config::strings(std::string_view key) const {
  std::vector<std::string> out;
  const auto list = array(key);
  if (!list) return out;
  out.reserve(list->length());
  for (const dom::element element : dom::array(list->value_)) out.push_back(string_of(element, key));
  return out;
}

void Config::add_defaults(std::string_view defaults) { defaults_.push_back(parse(defaults, name_)); }

void Config::add_aliases(std::string_view aliases) {
  const Config names = parse(aliases, name_);
  for (const std::string& key : names.keys()) aliases_.emplace_back(key, names.string(key));
}

void Config::check_fixed(std::string_view fixed) const {
  const Config supported = parse(fixed, name_);
  check_members(value_, dom::object(supported.value_), name_, "");
}

std::string Config::text_of(std::string_view key) const {
  const auto element = find_value(key);
  std::string_view text;
  return element && element->get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

std::string origin(const Config& config) {
  for (const char* key : {"base_model", "base_model_name_or_path", "_name_or_path"}) {
    const std::string name = config.text_of(key);
    // Only names on the hub count, because folders are those of the file's author.
    const bool plain =
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") == name.npos;
    const size_t slash = name.find('/');
    if (plain && slash != name.npos && slash > 0 && slash + 1 < name.size() && name[0] != '.' &&
        name.find('/', slash + 1) == name.npos) {
      return fmt::format(" (the file names {})", quote(name));
    }
  }
  return "";
}

}  // namespace mxlm
