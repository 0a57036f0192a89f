#include "model/config.hpp"

#include <charconv>
#include <cmath>
#include <map>
#include <system_error>

#include "base/error.hpp"
#include "base/json.hpp"

namespace mxlm {

namespace dom = simdjson::dom;

struct Config::Document {
  dom::parser parser;
};

namespace {

/// The member of an object, or the element of a list by its number; nullopt if there is none. It may be null.
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
  std::map<std::string, std::string, std::less<>> members;  // with their keys, as JSON
  for (const Config& config : objects) {
    for (const dom::key_value_pair member : dom::object(config.value_)) {
      members.insert_or_assign(std::string(member.key), simdjson::minify(member));
    }
  }
  std::string text = "{";
  for (const auto& [key, member] : members) text.append(text.size() > 1 ? "," : "").append(member);
  return parse(text + "}", name);
}

bool Config::mentions(std::string_view key) const { return find(value_, key).has_value(); }

std::optional<dom::element> Config::find_value(std::string_view key) const {
  auto element = find(value_, key);
  if (element && element->is_null()) element.reset();
  return element;
}

bool Config::has(std::string_view key) const { return find_value(key).has_value(); }

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

bool Config::boolean_or(std::string_view key, bool fallback) const {
  const auto element = find_value(key);
  if (!element) return fallback;
  bool value = false;
  if (element->get(value) != simdjson::SUCCESS) fail("'{}': '{}' should be true or false.", name_, key);
  return value;
}

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
  Config config = *this;
  config.value_ = *element;
  return config;
}

std::optional<Config> Config::array(std::string_view key) const {
  const auto element = find_value(key);
  if (!element) return std::nullopt;
  if (!element->is_array()) fail("'{}': '{}' should be a list.", name_, key);
  Config config = *this;
  config.value_ = *element;
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

}  // namespace mxlm
