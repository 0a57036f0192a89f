// The same model under other names, in other forms and inside a model of several kinds of input: the logits must be
// those of the checkpoints in tests/data/families, which families_test compares with transformers. That transformers
// reads these folders so is checked by tools/checks/check_real_folders.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "io/checkpoint.hpp"
#include "logits_of.hpp"
#include "model/config.hpp"
#include "model/spec.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

/// A checkpoint of tests/data/families whose names, config and tensors a test changes before it is loaded.
struct Folder {
  json config;
  TensorMap tensors;

  explicit Folder(const std::string& family) {
    const fs::path path = fs::path(MXLM_TEST_DATA) / "families" / family;
    std::ifstream file(path / "config.json");
    config = json::parse(file);
    tensors = Checkpoint::open(path).tensors();
  }
  void rename(const std::function<std::string(const std::string&)>& name_of) {
    TensorMap renamed;
    for (const auto& [name, entry] : tensors) renamed.emplace(name_of(name), entry);
    tensors = std::move(renamed);
  }
  void add(const std::string& name, TensorEntry like, std::vector<std::byte> bytes) {
    like.file = FileView::from_owned(name, std::move(bytes));
    like.offset = 0;
    like.size = like.file.bytes().size();
    tensors.insert_or_assign(name, std::move(like));
  }
  [[nodiscard]] ModelSpec load(const Adapter* adapter = nullptr) const {
    return load_spec(Config::parse(config.dump(), "config.json"), Checkpoint().with(tensors), adapter);
  }
};

std::vector<float> logits_of(const ModelSpec& spec) {
  const auto backend = test_backend({.threads = 1, .isa = std::nullopt, .order = cpu::Order::forward});
  const std::vector<int32_t> ids{5, 42, 29, 51, 33, 3, 53, 7, 13, 54, 51, 23, 11, 40};
  return logits_of(spec, *backend, DType::f32, {ids}, [](const LinearSpec&) { return ProductSpec{}; });
}

std::string refusal(const Folder& folder) {
  try {
    static_cast<void>(folder.load());
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "loaded";
  return "";
}

/// The warnings of what `action` does.
std::string warnings_of(const std::function<void()>& action) {
  std::string lines;
  send_log_to([&](spdlog::level::level_enum level, std::string_view line) {
    if (level >= spdlog::level::warn) lines.append(line).append("\n");
  });
  action();
  send_log_to(nullptr);
  return lines;
}

std::string without(std::string_view part, std::string text) {
  if (text.starts_with(part)) text.erase(0, part.size());
  return text;
}

struct Prefixed {
  const char *family, *prefix;
};

class Prefixes : public testing::TestWithParam<Prefixed> {};

TEST_P(Prefixes, AreAddedWhereMissingAndStrippedWhereDoubled) {
  const std::string prefix = GetParam().prefix;
  Folder folder(GetParam().family);
  const std::vector<float> expected = logits_of(folder.load());
  const bool there = std::any_of(folder.tensors.begin(), folder.tensors.end(),
                                 [&](const auto& tensor) { return tensor.first.starts_with(prefix); });
  if (there) folder.rename([&](const std::string& name) { return without(prefix, name); });
  EXPECT_EQ(logits_of(folder.load()), expected) << "missing";
  folder.rename([&](const std::string& name) {
    return prefix + (name.starts_with("lm_head") || name.starts_with("embed_out") ? "" : prefix) + name;
  });
  EXPECT_EQ(logits_of(folder.load()), expected) << "doubled";
}

INSTANTIATE_TEST_SUITE_P(Families, Prefixes,
                         testing::Values(Prefixed{"llama", "model."}, Prefixed{"gpt2", "transformer."},
                                         Prefixed{"gpt_neo", "transformer."}, Prefixed{"gpt_neox", "gpt_neox."},
                                         Prefixed{"opt", "model."}, Prefixed{"falcon_new", "transformer."},
                                         Prefixed{"mpt", "transformer."}, Prefixed{"cohere", "model."},
                                         Prefixed{"gpt_oss_mxfp4", "model."}),
                         [](const auto& tested) { return tested.param.family; });

TEST(RealFolders, TakeTheFirstOfTwoNames) {
  Folder folder("llama");
  const std::string name = "layers.0.self_attn.q_proj.weight";
  const TensorEntry entry = folder.tensors.at("model." + name);
  folder.add(name, entry, std::vector<std::byte>(entry.size));
  ModelSpec spec;
  EXPECT_THAT(warnings_of([&] { spec = folder.load(); }), HasSubstr("'model." + name + "' is left out"));
  EXPECT_EQ(spec.layers[0].attention.qkv[0].weight.matrix.data, folder.tensors.at(name).data());
  // transformers 5 knows every head as lm_head.
  Folder neox("gpt_neox");
  const std::vector<float> expected = logits_of(neox.load());
  neox.rename([](const std::string& n) { return n == "embed_out.weight" ? "lm_head.weight" : n; });
  EXPECT_EQ(logits_of(neox.load()), expected);
}

TEST(RealFolders, NamesAPrefixThatNobodyKnows) {
  Folder folder("llama");
  folder.rename([](const std::string& name) { return "module." + name; });
  EXPECT_THAT(refusal(folder), AllOf(HasSubstr("'module.'"), HasSubstr("transformers does not know")));
}

/// A tied model, its embedding's name, and the embedding with other values.
struct Tied {
  Folder folder{"smollm3"};
  std::string embedding = "model.embed_tokens.weight";
  std::vector<std::byte> others;
  Tied() {
    folder.tensors.erase("lm_head.weight");
    folder.config["tie_word_embeddings"] = true;
    const TensorEntry& entry = folder.tensors.at(embedding);
    others.assign(entry.data(), entry.data() + entry.size);
    std::rotate(others.begin(), others.begin() + 2, others.end());  // by a value
  }
};

TEST(Ties, AreThoseOfTheTensors) {
  const Tied tied;
  const ModelSpec alone = tied.folder.load();
  ASSERT_TRUE(alone.tied_head);
  const std::vector<float> expected = logits_of(alone);

  Folder both = tied.folder;
  both.tensors.emplace("lm_head.weight", both.tensors.at(tied.embedding));
  ModelSpec spec;
  EXPECT_EQ(warnings_of([&] { spec = both.load(); }), "");
  EXPECT_TRUE(spec.tied_head);
  EXPECT_EQ(logits_of(spec), expected);

  Folder head = tied.folder;
  head.rename([&](const std::string& name) { return name == tied.embedding ? "lm_head.weight" : name; });
  spec = head.load();
  EXPECT_TRUE(spec.tied_head);
  EXPECT_EQ(spec.parameters(), alone.parameters());
  EXPECT_EQ(logits_of(spec), expected);

  Folder different = tied.folder;
  different.add("lm_head.weight", different.tensors.at(tied.embedding), tied.others);
  EXPECT_THAT(warnings_of([&] { spec = different.load(); }), HasSubstr("they are not tied"));
  EXPECT_FALSE(spec.tied_head);
  EXPECT_EQ(spec.lm_head.weight.matrix.data, different.tensors.at("lm_head.weight").data());
  different.config["tie_word_embeddings"] = false;
  const std::vector<float> untied = logits_of(spec);
  EXPECT_EQ(warnings_of([&] { spec = different.load(); }), "");
  EXPECT_EQ(logits_of(spec), untied);
  EXPECT_NE(untied, expected);
}

TEST(Ties, SayWhatIsMissing) {
  Tied tied;
  tied.folder.config["tie_word_embeddings"] = false;
  EXPECT_THAT(refusal(tied.folder), AllOf(HasSubstr("has no head ('lm_head.weight')"), HasSubstr("is false)")));
  Folder head = tied.folder;
  head.rename([&](const std::string& name) { return name == tied.embedding ? "lm_head.weight" : name; });
  EXPECT_THAT(refusal(head), HasSubstr("but no embedding"));
  head.tensors.erase("lm_head.weight");
  EXPECT_THAT(refusal(head), HasSubstr("has no tensor 'model.embed_tokens.weight'"));
}

TEST(Heads, ForOtherTasksAreNamed) {
  Tied tied;
  tied.folder.add("score.weight", tied.folder.tensors.at("model.norm.weight"), std::vector<std::byte>(80));
  EXPECT_THAT(warnings_of([&] { static_cast<void>(tied.folder.load()); }),
              HasSubstr("not for tokens ('score.weight')"));
  tied.folder.config["tie_word_embeddings"] = false;
  EXPECT_THAT(refusal(tied.folder), AllOf(HasSubstr("classification"), HasSubstr("'score.weight'")));
  tied.folder.rename([](const std::string& name) {
    return name == "score.weight" ? "qa_outputs.weight" : "transformer." + without("model.", name);
  });
  EXPECT_THAT(refusal(tied.folder), HasSubstr("'qa_outputs.weight'"));
}

TEST(RealFolders, SayWhyATensorCannotBeRead) {
  Folder folder("llama");
  // As safetensors names FNUZ's types, which only another tensor of the file may have.
  const std::string header = R"({"model.norm.weight":{"dtype":"F8_E4M3FNUZ","shape":[40],"data_offsets":[0,40]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  bytes += header + std::string(40, 'x');
  std::vector<std::byte> file(bytes.size());
  std::transform(bytes.begin(), bytes.end(), file.begin(), [](char c) { return static_cast<std::byte>(c); });
  const Checkpoint odd = Checkpoint::from_file(FileView::from_owned("odd", std::move(file)));
  folder.tensors.erase("model.norm.weight");
  try {
    load_spec(Config::parse(folder.config.dump(), "config.json"), odd.with(folder.tensors));
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("'model.norm.weight'"), HasSubstr("stored as 'F8_E4M3FNUZ'")));
  }
}

/// Joins the experts of a mixture into one tensor each, as transformers 5 holds them.
void fuse(Folder& folder, const std::string& from, const std::string& to, const std::vector<std::string>& in,
          const std::string& out, int64_t layer) {
  const std::string old = fmt::format("model.layers.{}.{}experts.", layer, from);
  const std::string fused = fmt::format("model.layers.{}.{}experts.", layer, to);
  const auto join = [&](const std::vector<std::string>& names, const std::string& name) {
    std::vector<std::byte> bytes;
    TensorEntry like;
    int64_t experts = 0;
    for (;; ++experts) {
      const std::string expert = fmt::format("{}{}.", old, experts);
      if (!folder.tensors.contains(expert + names.front() + ".weight")) break;
      for (const std::string& linear : names) {
        const auto found = folder.tensors.find(expert + linear + ".weight");
        like = found->second;
        bytes.insert(bytes.end(), like.data(), like.data() + like.size);
        folder.tensors.erase(found);
      }
    }
    ASSERT_GT(experts, 1);
    like.shape = {experts, like.shape[0] * static_cast<int64_t>(names.size()), like.shape[1]};
    folder.add(fused + name, like, std::move(bytes));
  };
  join(in, "gate_up_proj");
  join({out}, "down_proj");
}

TEST(Experts, MayBeFused) {
  for (const bool renamed : {false, true}) {
    Folder mixtral("mixtral");
    const std::vector<float> expected = logits_of(mixtral.load());
    const std::string to = renamed ? "mlp." : "block_sparse_moe.";
    for (int64_t i = 0; i < 2; ++i) {
      fuse(mixtral, "block_sparse_moe.", to, {"w1", "w3"}, "w2", i);
      const std::string gate = fmt::format("model.layers.{}.block_sparse_moe.gate.weight", i);
      mixtral.rename([&](const std::string& name) {
        return name == gate ? fmt::format("model.layers.{}.{}gate.weight", i, to) : name;
      });
    }
    const ModelSpec spec = mixtral.load();
    EXPECT_EQ(spec.layers[1].mlp.experts[1].in[0].module, "model.layers.1." + to + "experts.1.gate_up_proj");
    EXPECT_EQ(logits_of(spec), expected);
  }
  Folder qwen("qwen3_moe");
  const std::vector<float> expected = logits_of(qwen.load());
  const auto layers = qwen.config["num_hidden_layers"].get<int64_t>();
  for (int64_t i = 0; i < layers; ++i) fuse(qwen, "mlp.", "mlp.", {"gate_proj", "up_proj"}, "down_proj", i);
  EXPECT_EQ(logits_of(qwen.load()), expected);
  qwen.tensors.erase("model.layers.1.mlp.experts.down_proj");
  EXPECT_THAT(refusal(qwen), HasSubstr("experts.down_proj"));
}

struct Wrapped {
  const char *wrapper, *family, *text_type;
};

class Wrappers : public testing::TestWithParam<Wrapped> {};

TEST_P(Wrappers, ReadTheTextPart) {
  const Wrapped& param = GetParam();
  Folder plain(param.family);
  const std::vector<float> expected = logits_of(plain.load());
  Folder folder = plain;
  json text = folder.config;
  text["model_type"] = param.text_type;
  const bool tied = plain.load().tied_head;
  folder.config = {{"model_type", param.wrapper},
                   {"text_config", text},
                   {"tie_word_embeddings", tied},
                   {"vision_config", {{"hidden_size", 16}}}};
  folder.add("model.visual.blocks.0.weight", folder.tensors.begin()->second, std::vector<std::byte>(8));
  folder.add("vision_tower.embed_tokens.weight", folder.tensors.begin()->second, std::vector<std::byte>(8));
  for (const auto& [body, head] :
       {std::pair{"model.language_model.", "lm_head."}, std::pair{"language_model.model.", "language_model.lm_head."},
        std::pair{"model.language_model.model.", "lm_head."}}) {
    Folder layout = folder;
    layout.rename([&, body = body, head = head](const std::string& name) {
      if (name.starts_with("lm_head.")) return head + without("lm_head.", name);
      return plain.tensors.contains(name) ? body + without("model.", name) : name;
    });
    const ModelSpec spec = layout.load();
    EXPECT_EQ(spec.family, plain.load().family);
    EXPECT_EQ(spec.tied_head, tied);
    EXPECT_EQ(logits_of(spec), expected) << body;
  }
  const bool flat = std::string_view(param.wrapper).starts_with("qwen2");
  if (!flat) {
    folder.config.erase("text_config");
    EXPECT_THAT(refusal(folder), HasSubstr("no text_config"));
    return;
  }
  EXPECT_EQ(logits_of(folder.load()), expected) << "names of the first files";
  folder.config = plain.config;
  folder.config["model_type"] = param.wrapper;
  folder.config["rope_scaling"] = {{"type", "mrope"}, {"mrope_section", {2, 2, 1}}};
  EXPECT_EQ(logits_of(folder.load()), expected) << "keys of the first files";
}

INSTANTIATE_TEST_SUITE_P(
    Families, Wrappers,
    testing::Values(Wrapped{"gemma3", "gemma3", "gemma3_text"}, Wrapped{"mistral3", "mistral", "mistral"},
                    Wrapped{"llava", "llama", "llama"}, Wrapped{"llava_next", "mistral", "mistral"},
                    Wrapped{"llava_onevision", "qwen2", "qwen2"}, Wrapped{"qwen2_vl", "qwen2", "qwen2_vl_text"},
                    Wrapped{"qwen2_5_vl", "qwen2", "qwen2_5_vl_text"}, Wrapped{"qwen3_vl", "qwen3", "qwen3_vl_text"}),
    [](const auto& tested) { return tested.param.wrapper; });

TEST(WrapperKeys, AreThoseOfTransformers) {
  Folder folder("gemma3");
  json text = folder.config;
  const auto layout = [](const std::string& name) { return "language_model." + name; };
  folder.rename(layout);
  // gemma-3-4b-it leaves the numbers of heads out; the defaults are those of Gemma3TextConfig, which do not fit here.
  json bare = text;
  for (const char* key : {"num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"}) bare.erase(key);
  folder.config = {{"model_type", "gemma3"}, {"text_config", bare}};
  EXPECT_THAT(refusal(folder), HasSubstr("[262208, "));
  bare["vocab_size"] = text["vocab_size"];
  folder.config["text_config"] = bare;
  EXPECT_THAT(refusal(folder), HasSubstr("[2048, "));  // q_proj: 8 heads of 256
  // The wrapper does not cap its logits, and it ties by itself.
  text["final_logit_softcapping"] = 3.0;
  text["tie_word_embeddings"] = false;
  folder.config["text_config"] = text;
  folder.tensors.erase("language_model.lm_head.weight");
  const ModelSpec spec = folder.load();
  EXPECT_EQ(spec.logit_softcap, 0);
  EXPECT_TRUE(spec.tied_head);
  folder.config["text_config"]["model_type"] = "gemma9_text";
  EXPECT_THAT(refusal(folder), AllOf(HasSubstr("'gemma3'"), HasSubstr("'gemma9_text', which is not known there")));
}

}  // namespace
}  // namespace mxlm
