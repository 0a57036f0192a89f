#include "text/decoder.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.hpp"
#include "text/byte_alphabet.hpp"
#include "text/pattern.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

using Tokens = std::vector<std::string>;

class ByteLevel : public Decoder::Step {
 public:
  void apply(Tokens& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      const size_t before = bytes.size();
      if (ByteAlphabet::get().unmap(token, bytes)) continue;
      bytes.resize(before);  // a token with any other character stands for itself
      bytes += token;
    }
    tokens.assign(1, lossy_utf8(bytes));
  }
};

class Replace : public Decoder::Step {
 public:
  Replace(Pattern pattern, std::string_view content) : pattern_(std::move(pattern)), content_(content) {}
  void apply(Tokens& tokens) const override {
    std::vector<Match> parts;
    for (std::string& token : tokens) {
      parts.clear();
      pattern_.find_all(token, parts);
      std::string out;
      for (const Match& part : parts) {
        out += part.is_match ? std::string_view(content_)
                             : std::string_view(token).substr(part.begin, part.end - part.begin);
      }
      token = std::move(out);
    }
  }

 private:
  Pattern pattern_;
  std::string content_;
};

/// Turns runs of <0xNN> tokens into the text of their bytes, or into one U+FFFD for each byte.
class ByteFallback : public Decoder::Step {
 public:
  void apply(Tokens& tokens) const override {
    Tokens out;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (valid_utf8(bytes)) {
        out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), "\xef\xbf\xbd");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      const int byte = byte_of(token);
      if (byte >= 0) {
        bytes += static_cast<char>(byte);
        continue;
      }
      flush();
      out.push_back(std::move(token));
    }
    flush();
    tokens = std::move(out);
  }

 private:
  static int byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
    // Rust reads numbers like this: "<0x+A>" is 10.
    std::string_view digits = token.substr(3, 2);
    if (digits.front() == '+') digits.remove_prefix(1);
    int value = 0;
    for (const char c : digits) {
      const size_t digit =
          std::string_view("0123456789abcdef").find(static_cast<char>(c >= 'A' && c <= 'F' ? c + 32 : c));
      if (digit == std::string_view::npos) return -1;
      value = value * 16 + static_cast<int>(digit);
    }
    return value;
  }
};

class Fuse : public Decoder::Step {
 public:
  void apply(Tokens& tokens) const override {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens.clear();
    tokens.push_back(std::move(all));
  }
};

/// Removes up to `start` and `stop` times one character from the ends of each token.
class Strip : public Decoder::Step {
 public:
  Strip(std::string_view content, uint64_t start, uint64_t stop) : content_(content), start_(start), stop_(stop) {}
  void apply(Tokens& tokens) const override {
    for (std::string& token : tokens) {
      std::string_view rest = token;
      for (uint64_t i = 0; i < start_ && rest.starts_with(content_); ++i) rest.remove_prefix(content_.size());
      for (uint64_t i = 0; i < stop_ && rest.ends_with(content_); ++i) rest.remove_suffix(content_.size());
      token = std::string(rest);
    }
  }

 private:
  std::string content_;
  uint64_t start_;
  uint64_t stop_;
};

class Metaspace : public Decoder::Step {
 public:
  Metaspace(std::string_view replacement, bool prepends) : replacement_(replacement), prepends_(prepends) {}
  void apply(Tokens& tokens) const override {
    bool first = true;
    for (std::string& token : tokens) {
      std::string out;
      for (size_t at = 0; at < token.size();) {
        if (std::string_view(token).substr(at).starts_with(replacement_)) {
          if (!(first && prepends_)) out += ' ';
          at += replacement_.size();
        } else {
          out += token[at++];
        }
      }
      token = std::move(out);
      first = false;
    }
  }

 private:
  std::string replacement_;
  bool prepends_;
};

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  std::string out;
  size_t from = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, from)) {
    out.append(text, from, at - from);
    out += by;
    from = at + what.size();
  }
  out.append(text, from);
  text = std::move(out);
}

/// Separates words and joins their parts.
class WordPiece : public Decoder::Step {
 public:
  WordPiece(std::string_view prefix, bool clean_up) : prefix_(prefix), clean_up_(clean_up) {}
  void apply(Tokens& tokens) const override {
    bool first = true;
    for (std::string& token : tokens) {
      if (!first) {
        if (token.starts_with(prefix_)) {
          token.erase(0, prefix_.size());
        } else {
          std::string spaced(1, ' ');
          spaced += token;
          token = std::move(spaced);
        }
      }
      first = false;
      if (!clean_up_) continue;
      constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kCleaner = {{{" .", "."},
                                                                                           {" ?", "?"},
                                                                                           {" !", "!"},
                                                                                           {" ,", ","},
                                                                                           {" ' ", "'"},
                                                                                           {" n't", "n't"},
                                                                                           {" 'm", "'m"},
                                                                                           {" do not", " don't"},
                                                                                           {" 's", "'s"},
                                                                                           {" 've", "'ve"},
                                                                                           {" 're", "'re"}}};
      for (const auto& [what, by] : kCleaner) replace_all(token, what, by);
    }
  }

 private:
  std::string prefix_;
  bool clean_up_;
};

/// The suffix of a word's last part becomes a space, except at the end of the text.
class BpeDecoder : public Decoder::Step {
 public:
  explicit BpeDecoder(std::string_view suffix) : suffix_(suffix) {}
  void apply(Tokens& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) replace_all(tokens[i], suffix_, i + 1 < tokens.size() ? " " : "");
  }

 private:
  std::string suffix_;
};

std::string_view one_character(const Json& json) {
  const std::string_view text = json.string();
  if (text.empty() || decode_at(text, 0).size != text.size()) fail("{}: should be one character", json.where);
  return text;
}

uint64_t count_of(const Json& json) {
  uint64_t out = 0;
  if (json.value.get(out) != simdjson::SUCCESS) fail("{}: should be an integer from 0 on", json.where);
  return out;
}

}  // namespace

void Decoder::add(const Json& json, int depth) {
  const std::string_view type = json.at("type").string();
  if (type == "Sequence") {
    if (depth >= kMaxNesting) fail("{}: sequences are nested too deeply", json.where);
    const Json list = json.at("decoders");
    size_t index = 0;
    for (const auto element : list.array()) add(list.item(element, index++), depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back(std::make_unique<ByteLevel>());
  } else if (type == "Replace") {
    steps_.push_back(std::make_unique<Replace>(Pattern::from_json(json.at("pattern")), json.at("content").string()));
  } else if (type == "ByteFallback") {
    steps_.push_back(std::make_unique<ByteFallback>());
  } else if (type == "Fuse") {
    steps_.push_back(std::make_unique<Fuse>());
  } else if (type == "Strip") {
    steps_.push_back(std::make_unique<Strip>(one_character(json.at("content")), count_of(json.at("start")),
                                             count_of(json.at("stop"))));
  } else if (type == "Metaspace") {
    const auto scheme = json.find("prepend_scheme");
    const bool never = (scheme && scheme->string() == "never") || !json.boolean_or("add_prefix_space", true);
    steps_.push_back(std::make_unique<Metaspace>(one_character(json.at("replacement")), !never));
  } else if (type == "WordPiece") {
    steps_.push_back(std::make_unique<WordPiece>(json.at("prefix").string(), json.at("cleanup").boolean()));
  } else if (type == "BPEDecoder") {
    const Json suffix = json.at("suffix");
    if (suffix.string().empty()) fail("{}: should not be empty", suffix.where);
    steps_.push_back(std::make_unique<BpeDecoder>(suffix.string()));
  } else {
    fail(
        "{}: the decoder '{}' is not supported (known: ByteLevel Replace ByteFallback Fuse Strip Metaspace WordPiece "
        "BPEDecoder Sequence)",
        json.where, type.substr(0, 60));
  }
}

Decoder Decoder::from_json(const std::optional<Json>& json) {
  Decoder out;
  if (json) {
    out.present_ = true;
    out.add(*json, 0);
  }
  return out;
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  for (const auto& step : steps_) step->apply(tokens);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && !present_) out += ' ';
    out += tokens[i];
  }
  return out;
}

}  // namespace mxlm::text
