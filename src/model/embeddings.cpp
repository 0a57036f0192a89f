// Reads the embedding and the LM head: whether they are tied, and what messages say if one of the two is missing.

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "model/parts.hpp"

namespace mxlm {
namespace {

// Heads that produce labels, spans or values instead of tokens, under the tensor names of transformers and TRL.
constexpr std::array<std::string_view, 5> kOtherHeads{"score.", "classifier.", "classification_head.", "qa_outputs.",
                                                      "v_head."};

/// The tensor name of another head in the checkpoint; "" if there is none.
std::string other_head(const SpecReader& reader) {
  for (const auto& [name, entry] : reader.on_disk().tensors()) {
    for (const std::string_view head : kOtherHeads) {
      if (name.starts_with(head)) return name;
    }
  }
  return "";
}

[[noreturn]] void fail_without_head(const SpecReader& reader, const std::string& module) {
  const Config& config = reader.config();
  if (const std::string other = other_head(reader); !other.empty()) {
    fail(
        "The checkpoint has a head for classification or another task ({}) and no language model head ('{}.weight'), "
        "so it predicts no tokens; give the language model that it was made from{}.",
        quote(other), module, origin(config));
  }
  fail(
      "The checkpoint has no head ('{}.weight'), and '{}' does not tie it to the embedding (tie_word_embeddings{}), so "
      "transformers would fill it with random numbers; save the model with its head, or set tie_word_embeddings to "
      "true if it is tied.",
      module, config.name(), config.mentions("tie_word_embeddings") ? " is false" : " is false when absent");
}

}  // namespace

void read_embedding(const SpecReader& reader, const std::string& tensor, ModelSpec& spec) {
  // A file may hold only the LM head of a tied pair. read_head checks that the pair is tied.
  const std::string head = reader.head_module() + ".weight";
  if (!reader.has(tensor) && !reader.has(head) && !other_head(reader).empty()) {
    fail_without_head(reader, reader.head_module());
  }
  const std::string& there = reader.has(tensor) || !reader.has(head) ? tensor : head;
  spec.embedding = reader.matrix(there, spec.vocabulary, spec.hidden);
  spec.embedding_module = there.substr(0, there.size() - std::string_view(".weight").size());
  spec.dtype = spec.embedding.matrix.type;
}

void read_head(const SpecReader& reader, const std::string& module, bool tied, bool bias, ModelSpec& spec) {
  const std::string tensor = module + ".weight";
  const TensorEntry* own = reader.find(tensor);
  spec.tied_head = reader.config().boolean_or("tie_word_embeddings", tied);
  if (spec.tied_head && own == nullptr && reader.is_replaced(spec.embedding_module + ".weight")) {
    fail(
        "The adapter replaces the embedding of '{}' but not the head, which is tied to the embedding; merge the "
        "adapter with peft.",
        reader.config().name());
  }
  const bool head_alone = spec.embedding_module == module;
  if (head_alone && !spec.tied_head) {
    fail("The checkpoint has the head '{}' but no embedding, and '{}' does not tie them; is the download complete?",
         tensor, reader.config().name());
  }
  if (spec.tied_head && own != nullptr && !same_values(*own, spec.embedding.entry)) {
    log_warn(
        "'{}' ties the head to the embedding, but '{}' is in the checkpoint with other values, so they are not tied, "
        "as in transformers 5",
        reader.config().name(), tensor);
    spec.tied_head = false;
  }
  if (spec.tied_head) {
    if (const std::string other = other_head(reader); !other.empty()) {
      log_warn("The head of the checkpoint is not for tokens ({}); the embedding is used as a language model head",
               quote(other));
    }
    spec.lm_head.module = module;
    spec.lm_head.role = Role::lm_head;
    // peft adds the updates of both sides to the shared tensor of a tied pair.
    if (!head_alone) spec.embedding = reader.adapted_in_memory(module, spec.embedding);
    spec.embedding = reader.adapted_in_memory(spec.embedding_module, spec.embedding);
    spec.lm_head.weight = spec.embedding;
    if (bias) spec.lm_head.bias = reader.matrix(module + ".bias", 1, spec.vocabulary);
  } else {
    if (!reader.holds_weight(module)) fail_without_head(reader, module);
    spec.embedding = reader.adapted_in_memory(spec.embedding_module, spec.embedding);
    spec.lm_head = reader.linear(module, Role::lm_head, spec.vocabulary, spec.hidden, bias);
  }
}

}  // namespace mxlm
