#include "text/tokenizer.hpp"

#include <simdjson.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "text/added_tokens.hpp"
#include "text/decoder.hpp"
#include "text/json.hpp"
#include "text/model.hpp"
#include "text/normalizer.hpp"
#include "text/post_processor.hpp"
#include "text/pre_tokenizer.hpp"
#include "text/unicode.hpp"

namespace mxlm {
namespace {

using text::AddedTokens;

/// Idle workspaces. Calls reuse them, so words stay cached between calls, and threads never share a workspace.
class WorkspacePool {
 public:
  /// Takes a workspace for one call and returns it afterwards.
  class Lease {
   public:
    explicit Lease(WorkspacePool& pool) : pool_(pool) {
      const std::lock_guard lock(pool.mutex_);
      if (!pool.idle_.empty()) {
        workspace_ = std::move(pool.idle_.back());
        pool.idle_.pop_back();
      }
      if (!workspace_) workspace_ = std::make_unique<text::Model::Workspace>();
    }
    ~Lease() {
      const std::lock_guard lock(pool_.mutex_);
      pool_.idle_.push_back(std::move(workspace_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    text::Model::Workspace& operator*() { return *workspace_; }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<text::Model::Workspace> workspace_;
  };

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<text::Model::Workspace>> idle_;
};

}  // namespace

struct Tokenizer::Impl {
  text::Model model;
  text::Normalizer normalizer;
  AddedTokens added;
  text::PreTokenizer pre_tokenizer;
  text::PostProcessor post_processor;
  text::Decoder decoder;
  mutable WorkspacePool pool;

  Impl(const text::Json& json, const std::vector<text::AddedToken>& more)
      : model(text::Model::from_json(json.at("model"))),
        normalizer(text::Normalizer::from_json(json.find("normalizer"))),
        added(AddedTokens::from_json(json.find("added_tokens"), more, model.vocabulary(), normalizer)),
        pre_tokenizer(text::PreTokenizer::from_json(json.find("pre_tokenizer"))),
        post_processor(text::PostProcessor::from_json(json.find("post_processor"))),
        decoder(text::Decoder::from_json(json.find("decoder"))) {
    if (pre_tokenizer.ends_with_byte_level() && model.take_bytes()) pre_tokenizer.leave_bytes();
  }

  /// Encodes text without added tokens; may stop once there are `enough` ids.
  void encode_plain(std::string_view in, size_t origin, text::Model::Workspace& workspace, size_t enough,
                    std::vector<int32_t>& out) const {
    if (in.empty()) return;
    if (pre_tokenizer.empty()) {
      model.encode(in, workspace, out);
      return;
    }
    const size_t before = out.size();
    // In hardly any text do this many bytes hold so few tokens; if they do, twice as many bytes are tried.
    constexpr size_t kBytesAToken = 16, kLeastBytes = 4096;
    size_t bytes = enough < SIZE_MAX / kBytesAToken ? std::max(enough * kBytesAToken, kLeastBytes) : SIZE_MAX;
    while (true) {
      text::Pieces pieces;
      pieces.text = in;
      pieces.origin = origin;
      pieces.enough = bytes;
      pieces.spans.push_back({0, in.size()});
      pre_tokenizer.apply(pieces);
      constexpr size_t kWordsBetweenLooks = 4096;
      for (size_t i = 0; i < pieces.spans.size() && out.size() < enough; ++i) {
        if (i % kWordsBetweenLooks == 0) throw_if_interrupted();
        model.encode(pieces.view(pieces.spans[i]), workspace, out);
      }
      if (!pieces.cut || out.size() >= enough) return;
      out.resize(before);
      bytes *= 2;
    }
  }

  void encode(std::string_view in, bool parse_special, size_t enough, std::vector<int32_t>& out) const {
    WorkspacePool::Lease workspace(pool);
    std::vector<AddedTokens::Part> raw;
    std::vector<AddedTokens::Part> parts;
    added.split(in, false, parse_special, raw);
    const size_t first_character = in.empty() ? 0 : text::decode_at(in, 0).size;
    for (const AddedTokens::Part& r : raw) {
      if (out.size() >= enough) return;
      throw_if_interrupted();
      if (r.id >= 0) {
        out.push_back(r.id);
        continue;
      }
      text::WorkText work(in.substr(r.begin, r.end - r.begin), r.begin == 0 ? first_character : 0);
      normalizer.apply(work);
      parts.clear();
      added.split(work.view(), true, parse_special, parts);
      for (const AddedTokens::Part& p : parts) {
        if (out.size() >= enough) return;
        if (p.id >= 0) {
          out.push_back(p.id);
        } else {
          encode_plain(work.view().substr(p.begin, p.end - p.begin),
                       work.origin() > p.begin ? std::min(work.origin(), p.end) - p.begin : 0, *workspace, enough, out);
        }
      }
    }
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& name) { return from_json(json, name, {}); }

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& name, const TokenizerAdditions& additions) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const auto error = parser.parse(json.data(), json.size()).get(root);
  if (error != simdjson::SUCCESS) fail("{}: this is not valid JSON ({})", name, simdjson::error_message(error));
  Tokenizer out(std::make_unique<Impl>(text::Json{root, name}, additions.tokens));
  if (additions.replaced_template) {
    const auto ids_of = [&](const std::vector<std::string>& tokens) {
      std::vector<int32_t> ids;
      ids.reserve(tokens.size());
      for (const std::string& token : tokens) {
        const auto id = out.id_of(token);
        if (!id) fail("{}: the token {}, which belongs around each text, is not there", name, quote(token));
        ids.push_back(*id);
      }
      return ids;
    };
    out.impl_->post_processor =
        text::PostProcessor(ids_of(additions.replaced_template->before), ids_of(additions.replaced_template->after));
  }
  return out;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special, bool parse_special,
                                       size_t enough) const {
  std::vector<int32_t> out;
  if (add_special) out = impl_->post_processor.prefix();
  impl_->encode(text, parse_special, enough, out);
  if (add_special && out.size() < enough) {
    const auto& suffix = impl_->post_processor.suffix();
    out.insert(out.end(), suffix.begin(), suffix.end());
  }
  return out;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    auto token = impl_->added.token_of(id);
    if (!token) token = impl_->model.vocabulary().token_of(id);
    if (token) tokens.emplace_back(*token);  // the library, too, omits an id that it does not know
  }
  return impl_->decoder.decode(std::move(tokens));
}

std::vector<int32_t> Tokenizer::prefix() const { return impl_->post_processor.prefix(); }
std::vector<int32_t> Tokenizer::suffix() const { return impl_->post_processor.suffix(); }

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  if (const auto id = impl_->added.find(token)) return id;
  const int32_t id = impl_->model.vocabulary().find(token);
  if (id < 0) return std::nullopt;
  return id;
}

int32_t Tokenizer::size() const { return std::max(impl_->added.max_id(), impl_->model.vocabulary().max_id()) + 1; }

}  // namespace mxlm
