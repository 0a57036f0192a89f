#include "model/config.hpp"

#include <simdjson.h>

#include <cmath>

#include "base/error.hpp"

namespace mxlm {

struct Config::Document {
  simdjson::dom::parser parser;
  simdjson::dom::object root;
};

namespace {

std::string escape_pointer(std::string_view key) {
  std::string out = "/";
  for (const char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

/// The member, or nullopt if it is absent or null.
std::optional<simdjson::dom::element> find(const simdjson::dom::object& root, const std::string& path,
                                           std::string_view key) {
  simdjson::dom::element element;
  if (root.at_pointer(path + escape_pointer(key)).get(element) != simdjson::SUCCESS) return std::nullopt;
  if (element.is_null()) return std::nullopt;
  return element;
}

}  // namespace

Config Config::parse(std::string_view json, const std::string& name) {
  Config config;
  config.name_ = name;
  config.document_ = std::make_shared<Document>();
  simdjson::dom::element root;
  const auto error = config.document_->parser.parse(json.data(), json.size()).get(root);
  if (error != simdjson::SUCCESS) {
    fail("'{}' is not valid JSON ({}); download it again.", name, simdjson::error_message(error));
  }
  if (root.get(config.document_->root) != simdjson::SUCCESS) {
    fail("'{}' holds no JSON object; it should be a model's config.json.", name);
  }
  return config;
}

bool Config::mentions(std::string_view key) const {
  simdjson::dom::element element;
  return document_->root.at_pointer(path_ + escape_pointer(key)).get(element) == simdjson::SUCCESS;
}

bool Config::has(std::string_view key) const { return find(document_->root, path_, key).has_value(); }

int64_t Config::integer(std::string_view key, int64_t min, int64_t max) const {
  const auto element = find(document_->root, path_, key);
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
  const auto element = find(document_->root, path_, key);
  if (!element) fail("'{}' has no '{}'; it is needed to load the model.", name_, key);
  double value = 0;
  if (element->get(value) != simdjson::SUCCESS || !std::isfinite(value)) {
    fail("'{}': '{}' should be a finite number.", name_, key);
  }
  return value;
}

double Config::number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }

bool Config::boolean_or(std::string_view key, bool fallback) const {
  const auto element = find(document_->root, path_, key);
  if (!element) return fallback;
  bool value = false;
  if (element->get(value) != simdjson::SUCCESS) fail("'{}': '{}' should be true or false.", name_, key);
  return value;
}

std::string Config::string(std::string_view key) const {
  const auto element = find(document_->root, path_, key);
  if (!element) fail("'{}' has no '{}'; it is needed to load the model.", name_, key);
  std::string_view value;
  if (element->get(value) != simdjson::SUCCESS) fail("'{}': '{}' should be a string.", name_, key);
  return std::string(value);
}

std::string Config::string_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? string(key) : std::string(fallback);
}

std::optional<Config> Config::object(std::string_view key) const {
  const auto element = find(document_->root, path_, key);
  if (!element) return std::nullopt;
  if (!element->is_object()) fail("'{}': '{}' should be an object.", name_, key);
  Config config = *this;
  config.path_ = path_ + escape_pointer(key);
  return config;
}

std::optional<Config> Config::array(std::string_view key) const {
  const auto element = find(document_->root, path_, key);
  if (!element) return std::nullopt;
  if (!element->is_array()) fail("'{}': '{}' should be a list.", name_, key);
  Config config = *this;
  config.path_ = path_ + escape_pointer(key);
  return config;
}

size_t Config::length() const {
  simdjson::dom::array array;
  return document_->root.at_pointer(path_).get(array) == simdjson::SUCCESS ? array.size() : 0;
}

std::vector<std::string> Config::keys() const {
  std::vector<std::string> out;
  simdjson::dom::object object;
  if (document_->root.at_pointer(path_).get(object) != simdjson::SUCCESS) return out;
  for (const auto member : object) out.emplace_back(member.key);
  return out;
}

std::vector<double> Config::numbers(std::string_view key) const {
  std::vector<double> out;
  if (const auto list = array(key)) {
    for (size_t i = 0; i < list->length(); ++i) out.push_back(list->number(std::to_string(i)));
  }
  return out;
}

std::vector<std::string> Config::strings(std::string_view key) const {
  std::vector<std::string> out;
  if (const auto list = array(key)) {
    for (size_t i = 0; i < list->length(); ++i) out.push_back(list->string(std::to_string(i)));
  }
  return out;
}

}  // namespace mxlm
