#include "text/normalizer.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "text/pattern.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

class Form : public Normalizer::Step {
 public:
  explicit Form(NormalizationForm form) : form_(form) {}
  void apply(WorkText& text) const override {
    std::string out;
    if (!normalize(text.view(), form_, out)) return;
    // What became of the first character is taken to be the first character of the result.
    const size_t origin = text.origin() == 0 || out.empty() ? 0 : decode_at(out, 0).size;
    text.replace(std::move(out), origin);
  }

 private:
  NormalizationForm form_;
};

class Lowercase : public Normalizer::Step {
 public:
  void apply(WorkText& text) const override {
    const std::string_view in = text.view();
    std::string out;
    out.reserve(in.size());
    size_t origin = 0;
    for (size_t at = 0; at < in.size();) {
      const Decoded d = decode_at(in, at);
      if (d.code == 0x130) {
        out += "i\xcc\x87";  // the one character whose lower case is two
      } else {
        append_utf8(out, to_lower(d.code));
      }
      at += d.size;
      if (at <= text.origin()) origin = out.size();
    }
    text.replace(std::move(out), origin);
  }
};

class Prepend : public Normalizer::Step {
 public:
  explicit Prepend(std::string_view what) : what_(what) {}
  void apply(WorkText& text) const override {
    if (text.view().empty() || what_.empty()) return;
    std::string out;
    out.reserve(what_.size() + text.view().size());
    out += what_;
    out += text.view();
    text.replace(std::move(out), text.origin() == 0 ? 0 : text.origin() + what_.size());
  }

 private:
  std::string what_;
};

class Replace : public Normalizer::Step {
 public:
  Replace(Pattern pattern, std::string_view content) : pattern_(std::move(pattern)), content_(content) {}
  void apply(WorkText& text) const override {
    std::vector<Match> parts;
    pattern_.find_all(text.view(), parts);
    if (std::none_of(parts.begin(), parts.end(), [](const Match& m) { return m.is_match; })) return;
    std::string out;
    out.reserve(text.view().size());
    size_t origin = 0;
    for (const Match& part : parts) {
      if (part.is_match) {
        out += content_;
      } else {
        out += text.view().substr(part.begin, part.end - part.begin);
      }
      if (part.end <= text.origin()) {
        origin = out.size();
      } else if (!part.is_match && part.begin < text.origin()) {
        origin = out.size() - (part.end - text.origin());
      }
    }
    text.replace(std::move(out), origin);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class Strip : public Normalizer::Step {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(WorkText& text) const override {
    const std::string_view in = text.view();
    size_t begin = 0;
    size_t end = in.size();
    while (left_ && begin < end) {
      const Decoded d = decode_at(in, begin);
      if (!is_space(d.code)) break;
      begin += d.size;
    }
    while (right_ && end > begin) {
      const Decoded d = decode_before(in, end);
      if (!is_space(d.code)) break;
      end -= d.size;
    }
    text.narrow(begin, end - begin);
  }

 private:
  bool left_;
  bool right_;
};

}  // namespace

void Normalizer::add(const Json& json, int depth) {
  const std::string_view type = json.at("type").string();
  if (type == "Sequence") {
    if (depth >= kMaxNesting) fail("{}: sequences are nested too deeply", json.where);
    const Json list = json.at("normalizers");
    size_t index = 0;
    for (const auto element : list.array()) add(list.item(element, index++), depth + 1);
  } else if (type == "NFC") {
    steps_.push_back(std::make_unique<Form>(NormalizationForm::nfc));
  } else if (type == "NFD") {
    steps_.push_back(std::make_unique<Form>(NormalizationForm::nfd));
  } else if (type == "NFKC") {
    steps_.push_back(std::make_unique<Form>(NormalizationForm::nfkc));
  } else if (type == "NFKD") {
    steps_.push_back(std::make_unique<Form>(NormalizationForm::nfkd));
  } else if (type == "Lowercase") {
    steps_.push_back(std::make_unique<Lowercase>());
  } else if (type == "Prepend") {
    steps_.push_back(std::make_unique<Prepend>(json.at("prepend").string()));
  } else if (type == "Replace") {
    steps_.push_back(std::make_unique<Replace>(Pattern::from_json(json.at("pattern")), json.at("content").string()));
  } else if (type == "Strip") {
    steps_.push_back(std::make_unique<Strip>(json.at("strip_left").boolean(), json.at("strip_right").boolean()));
  } else {
    fail("{}: the normalizer '{}' is not supported (known: NFC NFD NFKC NFKD Lowercase Prepend Replace Strip Sequence)",
         json.where, type.substr(0, 60));
  }
}

Normalizer Normalizer::from_json(const std::optional<Json>& json) {
  Normalizer out;
  if (json) out.add(*json, 0);
  return out;
}

}  // namespace mxlm::text
