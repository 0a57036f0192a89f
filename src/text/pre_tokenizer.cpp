#include "text/pre_tokenizer.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.hpp"
#include "text/byte_alphabet.hpp"
#include "text/pattern.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

/// The pattern by which ByteLevel splits (GPT-2's).
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// What happens to the matches of a split.
enum class Behavior : uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Applies `behavior` to the division of one piece; appends spans that start at `base`.
void append_spans(std::vector<Match>& parts, Behavior behavior, size_t base, std::vector<Span>& out) {
  const size_t first = out.size();
  const auto push = [&](size_t begin, size_t end) { out.push_back({base + begin, base + end}); };
  bool previous = false;
  switch (behavior) {
    case Behavior::isolated:
      for (const Match& m : parts) push(m.begin, m.end);
      break;
    case Behavior::removed:
      for (const Match& m : parts) {
        if (!m.is_match) push(m.begin, m.end);
      }
      break;
    case Behavior::contiguous:
      for (const Match& m : parts) {
        if (m.is_match == previous && out.size() > first) {
          out.back().end = base + m.end;
        } else {
          push(m.begin, m.end);
        }
        previous = m.is_match;
      }
      break;
    case Behavior::merged_with_previous:
      for (const Match& m : parts) {
        if (m.is_match && !previous && out.size() > first) {
          out.back().end = base + m.end;
        } else {
          push(m.begin, m.end);
        }
        previous = m.is_match;
      }
      break;
    case Behavior::merged_with_next:
      for (auto m = parts.rbegin(); m != parts.rend(); ++m) {
        if (m->is_match && !previous && out.size() > first) {
          out.back().begin = base + m->begin;
        } else {
          push(m->begin, m->end);
        }
        previous = m->is_match;
      }
      std::reverse(out.begin() + static_cast<ptrdiff_t>(first), out.end());
      break;
  }
  out.erase(std::remove_if(out.begin() + static_cast<ptrdiff_t>(first), out.end(),
                           [](const Span& s) { return s.begin >= s.end; }),
            out.end());
}

/// Splits by what a function finds in each piece.
template <typename Find>
void split_pieces(Pieces& pieces, Behavior behavior, bool invert, const Find& find) {
  std::vector<Span> out;
  out.reserve(pieces.spans.size());
  std::vector<Match> parts;
  for (const Span& span : pieces.spans) {
    parts.clear();
    find(pieces.view(span), parts);
    if (invert) {
      for (Match& m : parts) m.is_match = !m.is_match;
    }
    append_spans(parts, behavior, span.begin, out);
  }
  pieces.spans = std::move(out);
}

/// Ends a division early, where no later text could change the spans before.
void end_division(std::vector<Match>& parts, Behavior behavior) {
  const auto closed = [&](const Match& last, const Match& next) {
    switch (behavior) {
      case Behavior::isolated:
      case Behavior::removed:
        return true;
      case Behavior::merged_with_previous:
        return last.is_match;
      case Behavior::merged_with_next:
      case Behavior::contiguous:
        return !last.is_match && next.is_match;
    }
    return false;
  };
  // The last part only closes the part before it.
  while (parts.size() > 1 && !closed(parts[parts.size() - 2], parts.back())) parts.pop_back();
  parts.pop_back();
}

/// Splits by a pattern. If the text is one piece, it may split only the beginning (Pieces::enough).
template <typename P>
void split_by(Pieces& pieces, Behavior behavior, bool invert, const P& pattern) {
  if (pieces.spans.size() != 1 || pieces.cut || pieces.enough >= pieces.spans[0].end) {
    split_pieces(pieces, behavior, invert,
                 [&](std::string_view text, std::vector<Match>& out) { pattern.find_all(text, out); });
    return;
  }
  const Span whole = pieces.spans[0];
  for (size_t enough = pieces.enough;; enough *= 2) {
    std::vector<Match> parts;
    pattern.find_all(pieces.view(whole), parts, enough);
    if (invert) {
      for (Match& m : parts) m.is_match = !m.is_match;
    }
    const bool all = parts.empty() || parts.back().end == whole.end - whole.begin;
    if (!all) end_division(parts, behavior);
    if (!all && parts.empty()) continue;
    pieces.cut = !all;
    pieces.spans.clear();
    append_spans(parts, behavior, whole.begin, pieces.spans);
    return;
  }
}

/// Appends the division of `text` in which each character that `is_match` accepts is a separate match.
template <typename Predicate>
void find_characters(std::string_view text, const Predicate& is_match, std::vector<Match>& out) {
  size_t previous = 0;
  for (size_t at = 0; at < text.size();) {
    const Decoded d = decode_at(text, at);
    if (is_match(d.code)) {
      if (at > previous) out.push_back({previous, at, false});
      previous = at + d.size;
      out.push_back({at, previous, true});
    }
    at += d.size;
  }
  if (previous < text.size()) out.push_back({previous, text.size(), false});
}

/// Builds the next text of a step that rewrites it piece by piece.
class Rewriter {
 public:
  explicit Rewriter(Pieces& pieces) : pieces_(pieces) {
    text_.reserve(pieces.text.size() + pieces.spans.size());
    spans_.reserve(pieces.spans.size());
  }
  [[nodiscard]] std::string& text() { return text_; }
  /// The start of the next piece; end_piece() closes it.
  void begin_piece() { begin_ = text_.size(); }
  void end_piece(bool from_origin) {
    if (text_.size() > begin_) spans_.push_back({begin_, text_.size()});
    if (from_origin) origin_ = text_.size();
  }
  void set_origin(size_t origin) { origin_ = origin; }
  void finish() {
    pieces_.owned = std::move(text_);
    pieces_.text = pieces_.owned;
    pieces_.spans = std::move(spans_);
    pieces_.origin = origin_;
  }

 private:
  Pieces& pieces_;
  std::string text_;
  std::vector<Span> spans_;
  size_t begin_ = 0;
  size_t origin_ = 0;
};

class Split : public PreTokenizer::Step {
 public:
  Split(Pattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void apply(Pieces& pieces) const override { split_by(pieces, behavior_, invert_, pattern_); }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

class Digits : public PreTokenizer::Step {
 public:
  explicit Digits(bool individual) : behavior_(individual ? Behavior::isolated : Behavior::contiguous) {}
  void apply(Pieces& pieces) const override {
    split_pieces(pieces, behavior_, false,
                 [](std::string_view text, std::vector<Match>& out) { find_characters(text, is_numeric, out); });
  }

 private:
  Behavior behavior_;
};

/// The pieces are \w+|[^\w\s]+.
class Whitespace : public PreTokenizer::Step {
 public:
  void apply(Pieces& pieces) const override {
    split_pieces(pieces, Behavior::removed, true, [](std::string_view text, std::vector<Match>& out) {
      enum class Kind : uint8_t { space, word, other };
      Kind kind = Kind::space;
      size_t begin = 0;
      const auto close = [&](size_t end) {
        if (end > begin) out.push_back({begin, end, kind != Kind::space});
        begin = end;
      };
      for (size_t at = 0; at < text.size();) {
        const Decoded d = decode_at(text, at);
        const Kind next = is_word(d.code) ? Kind::word : is_space(d.code) ? Kind::space : Kind::other;
        if (next != kind) close(at);
        kind = next;
        at += d.size;
      }
      close(text.size());
    });
  }
};

class WhitespaceSplit : public PreTokenizer::Step {
 public:
  void apply(Pieces& pieces) const override {
    split_pieces(pieces, Behavior::removed, false,
                 [](std::string_view text, std::vector<Match>& out) { find_characters(text, is_space, out); });
  }
};

bool is_punctuation(uint32_t c) { return has_property(c, OldProperty::punctuation); }

class Punctuation : public PreTokenizer::Step {
 public:
  explicit Punctuation(Behavior behavior) : behavior_(behavior) {}
  void apply(Pieces& pieces) const override {
    split_pieces(pieces, behavior_, false,
                 [](std::string_view text, std::vector<Match>& out) { find_characters(text, is_punctuation, out); });
  }

 private:
  Behavior behavior_;
};

class CharDelimiterSplit : public PreTokenizer::Step {
 public:
  explicit CharDelimiterSplit(uint32_t delimiter) : delimiter_(delimiter) {}
  void apply(Pieces& pieces) const override {
    split_pieces(pieces, Behavior::removed, false, [&](std::string_view text, std::vector<Match>& out) {
      find_characters(
          text, [&](uint32_t c) { return c == delimiter_; }, out);
    });
  }

 private:
  uint32_t delimiter_;
};

/// Pieces of a fixed number of characters, and a shorter last piece.
class FixedLength : public PreTokenizer::Step {
 public:
  explicit FixedLength(uint64_t length) : length_(length) {}
  void apply(Pieces& pieces) const override {
    split_pieces(pieces, Behavior::isolated, false, [&](std::string_view text, std::vector<Match>& out) {
      size_t begin = 0;
      uint64_t characters = 0;
      for (size_t at = 0; at < text.size();) {
        at += decode_at(text, at).size;
        if (++characters % length_ != 0 && at < text.size()) continue;
        out.push_back({begin, at, true});
        begin = at;
      }
    });
  }

 private:
  uint64_t length_;
};

class ByteLevel : public PreTokenizer::Step {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex) : add_prefix_space_(add_prefix_space) {
    if (use_regex) pattern_.emplace(kByteLevelPattern, "ByteLevel");
  }
  void leave_bytes() { map_ = false; }

  void apply(Pieces& pieces) const override {
    if (add_prefix_space_ && std::any_of(pieces.spans.begin(), pieces.spans.end(),
                                         [&](const Span& s) { return pieces.text[s.begin] != ' '; })) {
      Rewriter rewriter(pieces);
      size_t origin = 0;
      for (const Span& span : pieces.spans) {
        const std::string_view piece = pieces.view(span);
        rewriter.begin_piece();
        if (piece.front() != ' ') rewriter.text() += ' ';
        if (span.begin < pieces.origin)
          origin = rewriter.text().size() + std::min(piece.size(), pieces.origin - span.begin);
        rewriter.text() += piece;
        rewriter.end_piece(false);
      }
      rewriter.set_origin(origin);
      rewriter.finish();
    }
    if (pattern_) split_by(pieces, Behavior::isolated, false, *pattern_);
    if (!map_) return;
    Rewriter rewriter(pieces);
    for (const Span& span : pieces.spans) {
      rewriter.begin_piece();
      rewriter.text() += ByteAlphabet::get().map(pieces.view(span));
      rewriter.end_piece(span.begin < pieces.origin);
    }
    rewriter.finish();
  }

 private:
  bool add_prefix_space_;
  bool map_ = true;
  std::optional<Regex> pattern_;
};

class Metaspace : public PreTokenizer::Step {
 public:
  enum class Prepend : uint8_t { first, always, never };
  Metaspace(std::string_view replacement, Prepend prepend, bool split)
      : replacement_(replacement), prepend_(prepend), split_(split) {}

  void apply(Pieces& pieces) const override {
    Rewriter rewriter(pieces);
    std::string& text = rewriter.text();
    size_t origin = 0;
    for (const Span& span : pieces.spans) {
      const std::string_view piece = pieces.view(span);
      const bool from_origin = span.begin < pieces.origin;
      const bool starts = piece.front() == ' ' || piece.starts_with(replacement_);
      rewriter.begin_piece();
      if (!starts && (prepend_ == Prepend::always || (prepend_ == Prepend::first && from_origin))) text += replacement_;
      for (size_t at = 0; at < piece.size(); ++at) {
        if (piece[at] == ' ') {
          text += replacement_;
        } else {
          text += piece[at];
        }
        if (span.begin + at < pieces.origin) origin = text.size();
      }
      rewriter.end_piece(false);
    }
    rewriter.set_origin(origin);
    rewriter.finish();
    if (!split_) return;
    split_by(pieces, Behavior::merged_with_next, false, replacement_pattern_);
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  bool split_;
  Pattern replacement_pattern_{replacement_};
};

Behavior behavior_of(const Json& json) {
  constexpr std::array<std::pair<std::string_view, Behavior>, 5> kNames = {
      {{"Removed", Behavior::removed},
       {"Isolated", Behavior::isolated},
       {"MergedWithPrevious", Behavior::merged_with_previous},
       {"MergedWithNext", Behavior::merged_with_next},
       {"Contiguous", Behavior::contiguous}}};
  for (const auto& [name, behavior] : kNames) {
    if (json.string() == name) return behavior;
  }
  fail("{}: the behavior '{}' is not supported", json.where, json.string().substr(0, 60));
}

std::string_view one_character_of(const Json& json) {
  const std::string_view text = json.string();
  if (text.empty() || decode_at(text, 0).size != text.size()) fail("{}: should be one character", json.where);
  return text;
}

uint64_t length_of(const std::optional<Json>& json) {
  uint64_t out = 5;  // the library's default
  if (json && (json->value.get(out) != simdjson::SUCCESS || out == 0)) {
    fail("{}: should be an integer from 1 on", json->where);
  }
  return out;
}

std::unique_ptr<PreTokenizer::Step> metaspace_from(const Json& json) {
  const std::string_view text = one_character_of(json.at("replacement"));
  Metaspace::Prepend prepend = Metaspace::Prepend::always;
  const auto scheme = json.find("prepend_scheme");
  if (scheme) {
    const std::string_view name = scheme->string();
    if (name == "first") {
      prepend = Metaspace::Prepend::first;
    } else if (name == "never") {
      prepend = Metaspace::Prepend::never;
    } else if (name != "always") {
      fail("{}: '{}' is not first, always or never", scheme->where, name.substr(0, 60));
    }
  }
  if (!json.boolean_or("add_prefix_space", true) && prepend != Metaspace::Prepend::never) {
    if (scheme) fail("{}: add_prefix_space false contradicts prepend_scheme", json.where);
    fail("{}: add_prefix_space false needs prepend_scheme \"never\"", json.where);
  }
  return std::make_unique<Metaspace>(text, prepend, json.boolean_or("split", true));
}

}  // namespace

void PreTokenizer::add(const Json& json, int depth) {
  const std::string_view type = json.at("type").string();
  if (type == "Sequence") {
    if (depth >= kMaxNesting) fail("{}: sequences are nested too deeply", json.where);
    const Json list = json.at("pretokenizers");
    size_t index = 0;
    for (const auto element : list.array()) add(list.item(element, index++), depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back(
        std::make_unique<ByteLevel>(json.at("add_prefix_space").boolean(), json.boolean_or("use_regex", true)));
  } else if (type == "Split") {
    steps_.push_back(std::make_unique<Split>(Pattern::from_json(json.at("pattern")), behavior_of(json.at("behavior")),
                                             json.at("invert").boolean()));
  } else if (type == "Metaspace") {
    steps_.push_back(metaspace_from(json));
  } else if (type == "Digits") {
    steps_.push_back(std::make_unique<Digits>(json.at("individual_digits").boolean()));
  } else if (type == "Whitespace") {
    steps_.push_back(std::make_unique<Whitespace>());
  } else if (type == "WhitespaceSplit") {
    steps_.push_back(std::make_unique<WhitespaceSplit>());
  } else if (type == "Punctuation") {
    const auto behavior = json.find("behavior");
    steps_.push_back(std::make_unique<Punctuation>(behavior ? behavior_of(*behavior) : Behavior::isolated));
  } else if (type == "BertPreTokenizer") {
    steps_.push_back(std::make_unique<WhitespaceSplit>());
    steps_.push_back(std::make_unique<Punctuation>(Behavior::isolated));
  } else if (type == "CharDelimiterSplit") {
    steps_.push_back(std::make_unique<CharDelimiterSplit>(decode_at(one_character_of(json.at("delimiter")), 0).code));
  } else if (type == "FixedLength") {
    steps_.push_back(std::make_unique<FixedLength>(length_of(json.find("length"))));
  } else {
    fail(
        "{}: the pre-tokenizer '{}' is not supported (known: ByteLevel Split Metaspace Digits Whitespace "
        "WhitespaceSplit Punctuation BertPreTokenizer CharDelimiterSplit FixedLength Sequence)",
        json.where, type.substr(0, 60));
  }
}

PreTokenizer PreTokenizer::from_json(const std::optional<Json>& json) {
  PreTokenizer out;
  if (json) out.add(*json, 0);
  return out;
}

bool PreTokenizer::ends_with_byte_level() const {
  return !steps_.empty() && dynamic_cast<const ByteLevel*>(steps_.back().get()) != nullptr;
}

void PreTokenizer::leave_bytes() {
  if (auto* step = steps_.empty() ? nullptr : dynamic_cast<ByteLevel*>(steps_.back().get())) step->leave_bytes();
}

}  // namespace mxlm::text
