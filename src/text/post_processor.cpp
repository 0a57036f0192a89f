#include "text/post_processor.hpp"

#include "base/error.hpp"

namespace mxlm::text {

namespace {

/// The id of a pair [token, id].
int32_t id_of_pair(const Json& json) {
  simdjson::dom::element id;
  if (json.array().size() != 2 || json.array().at(1).get(id) != simdjson::SUCCESS) {
    fail("{}: should be [token, id]", json.where);
  }
  return json.item(id, 1).token_id();
}

}  // namespace

void PostProcessor::refuse_after_template(const Json& json) const {
  if (has_template_) fail("{}: a post-processor that follows a TemplateProcessing is not supported", json.where);
}

void PostProcessor::wrap(const std::vector<int32_t>& before, const std::vector<int32_t>& after) {
  prefix_.insert(prefix_.begin(), before.begin(), before.end());
  suffix_.insert(suffix_.end(), after.begin(), after.end());
}

void PostProcessor::add_template(const Json& json) {
  refuse_after_template(json);
  has_template_ = true;
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  const auto specials = json.find("special_tokens");
  const Json single = json.at("single");
  bool seen = false;
  size_t index = 0;
  for (const auto element : single.array()) {
    const Json piece = single.item(element, index++);
    if (const auto sequence = piece.find("Sequence")) {
      if (seen || sequence->at("id").string() != "A")
        fail("{}: a single text should be there once, as A", single.where);
      seen = true;
      continue;
    }
    const Json id = piece.at("SpecialToken").at("id");
    const auto special = specials ? specials->find(id.string()) : std::nullopt;
    if (!special) {
      fail("{}: the template names the token '{}', which \"special_tokens\" does not hold", id.where,
           id.string().substr(0, 100));
    }
    const Json ids = special->at("ids");
    size_t i = 0;
    for (const auto value : ids.array()) (seen ? after : before).push_back(ids.item(value, i++).token_id());
  }
  if (!seen) fail("{}: the template leaves out the text", single.where);
  wrap(before, after);
}

void PostProcessor::add(const Json& json, int depth) {
  const std::string_view type = json.at("type").string();
  if (type == "Sequence") {
    if (depth >= kMaxNesting) fail("{}: sequences are nested too deeply", json.where);
    const Json list = json.at("processors");
    size_t index = 0;
    for (const auto element : list.array()) add(list.item(element, index++), depth + 1);
  } else if (type == "TemplateProcessing") {
    add_template(json);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    refuse_after_template(json);
    wrap({id_of_pair(json.at("cls"))}, {id_of_pair(json.at("sep"))});
  } else if (type != "ByteLevel") {  // which changes offsets only
    fail(
        "{}: the post-processor '{}' is not supported (known: TemplateProcessing BertProcessing RobertaProcessing "
        "ByteLevel Sequence)",
        json.where, type.substr(0, 60));
  }
}

PostProcessor PostProcessor::from_json(const std::optional<Json>& json) {
  PostProcessor out;
  if (json) out.add(*json, 0);
  return out;
}

}  // namespace mxlm::text
