#include "text/normalizer.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "text/byte_alphabet.hpp"
#include "text/charsmap.hpp"
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
    // The replacement of the first character counts as the first character of the result.
    const size_t origin = text.origin() == 0 || out.empty() ? 0 : decode_at(out, 0).size;
    text.replace(std::move(out), origin);
  }

 private:
  NormalizationForm form_;
};

/// Rewrites a text part by part. `next(in, at, out)` appends the replacement of the part that starts at `at`, and
/// returns where the next part starts.
template <typename Next>
void rewrite(WorkText& text, Next&& next) {
  const std::string_view in = text.view();
  std::string out;
  out.reserve(in.size());
  size_t origin = 0;
  for (size_t at = 0; at < in.size();) {
    const bool from_origin = at < text.origin();
    at = next(in, at, out);
    if (from_origin) origin = out.size();
  }
  text.replace(std::move(out), origin);
}

/// Drops or replaces single characters: `map(c, out)` appends the replacement of c.
template <typename Map>
void rewrite_characters(WorkText& text, Map&& map) {
  rewrite(text, [&](std::string_view in, size_t at, std::string& out) {
    const Decoded d = decode_at(in, at);
    map(d.code, out);
    return at + d.size;
  });
}

class StripAccents : public Normalizer::Step {
 public:
  explicit StripAccents(OldProperty dropped) : dropped_(dropped) {}
  void apply(WorkText& text) const override {
    rewrite_characters(text, [&](uint32_t c, std::string& out) {
      if (!has_property(c, dropped_)) append_utf8(out, c);
    });
  }

 private:
  OldProperty dropped_;
};

/// BertNormalizer's clean_text.
class CleanText : public Normalizer::Step {
 public:
  void apply(WorkText& text) const override {
    rewrite_characters(text, [](uint32_t c, std::string& out) {
      if (has_property(c, OldProperty::bert_control)) return;
      append_utf8(out, is_space(c) ? ' ' : c);
    });
  }
};

/// BertNormalizer's handle_chinese_chars: puts spaces around each such character.
class SpaceChinese : public Normalizer::Step {
 public:
  void apply(WorkText& text) const override {
    rewrite_characters(text, [](uint32_t c, std::string& out) {
      const bool chinese = is_chinese(c);
      if (chinese) out += ' ';
      append_utf8(out, c);
      if (chinese) out += ' ';
    });
  }

 private:
  static bool is_chinese(uint32_t c) {
    // The library has 2B920 where Unicode has 2B820.
    return (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0x2f800 && c <= 0x2fa1f);
  }
};

/// SentencePiece's rules for control characters and spaces.
class Nmt : public Normalizer::Step {
 public:
  void apply(WorkText& text) const override {
    rewrite_characters(text, [](uint32_t c, std::string& out) {
      if (!is_dropped(c)) append_utf8(out, becomes_space(c) ? ' ' : c);
    });
  }

 private:
  static bool is_dropped(uint32_t c) {
    return (c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
  }
  static bool becomes_space(uint32_t c) {
    return c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 ||
           c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
  }
};

class Bytes : public Normalizer::Step {
 public:
  void apply(WorkText& text) const override {
    rewrite(text, [](std::string_view in, size_t at, std::string& out) {
      append_utf8(out, ByteAlphabet::get().character(static_cast<unsigned char>(in[at])));
      return at + 1;
    });
  }
};

/// Replaces a short grapheme cluster by the map's entry for its beginning, or else each of its characters.
class Precompiled : public Normalizer::Step {
 public:
  explicit Precompiled(Charsmap map) : map_(std::move(map)) {}
  void apply(WorkText& text) const override {
    rewrite(text, [&](std::string_view in, size_t at, std::string& out) {
      const size_t end = grapheme_end(in, at);
      const std::string_view cluster = in.substr(at, end - at);
      constexpr size_t kLongest = 5;  // bytes
      if (cluster.size() <= kLongest) {
        if (const auto by = map_.find(cluster)) {
          out += *by;
          return end;
        }
      }
      for (size_t i = 0; i < cluster.size();) {
        const std::string_view character = cluster.substr(i, decode_at(cluster, i).size);
        out += map_.find(character).value_or(character);
        i += character.size();
      }
      return end;
    });
  }

 private:
  Charsmap map_;
};

class Lowercase : public Normalizer::Step {
 public:
  void apply(WorkText& text) const override {
    rewrite_characters(text, [](uint32_t c, std::string& out) {
      if (c == 0x130) {
        out += "i\xcc\x87";  // the only character whose lower case is two characters
      } else {
        append_utf8(out, to_lower(c));
      }
    });
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
  } else if (type == "StripAccents") {
    steps_.push_back(std::make_unique<StripAccents>(OldProperty::mark));
  } else if (type == "BertNormalizer") {
    const bool lowercase = json.at("lowercase").boolean();
    if (json.at("clean_text").boolean()) steps_.push_back(std::make_unique<CleanText>());
    if (json.at("handle_chinese_chars").boolean()) steps_.push_back(std::make_unique<SpaceChinese>());
    if (json.boolean_or("strip_accents", lowercase)) {
      steps_.push_back(std::make_unique<Form>(NormalizationForm::nfd));
      steps_.push_back(std::make_unique<StripAccents>(OldProperty::accent));
    }
    if (lowercase) steps_.push_back(std::make_unique<Lowercase>());
  } else if (type == "Nmt") {
    steps_.push_back(std::make_unique<Nmt>());
  } else if (type == "ByteLevel") {
    steps_.push_back(std::make_unique<Bytes>());
  } else if (type == "Precompiled") {
    steps_.push_back(std::make_unique<Precompiled>(Charsmap::from_json(json.at("precompiled_charsmap"))));
  } else if (type == "Prepend") {
    steps_.push_back(std::make_unique<Prepend>(json.at("prepend").string()));
  } else if (type == "Replace") {
    steps_.push_back(std::make_unique<Replace>(Pattern::from_json(json.at("pattern")), json.at("content").string()));
  } else if (type == "Strip") {
    steps_.push_back(std::make_unique<Strip>(json.at("strip_left").boolean(), json.at("strip_right").boolean()));
  } else {
    fail(
        "{}: the normalizer '{}' is not supported (known: NFC NFD NFKC NFKD Lowercase StripAccents BertNormalizer Nmt "
        "Precompiled ByteLevel Prepend Replace Strip Sequence)",
        json.where, type.substr(0, 60));
  }
}

Normalizer Normalizer::from_json(const std::optional<Json>& json) {
  Normalizer out;
  if (json) out.add(*json, 0);
  return out;
}

}  // namespace mxlm::text
