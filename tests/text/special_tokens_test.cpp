#include "text/special_tokens.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"

namespace mxlm {
namespace {

/// "<s>" is 0, "</s>" 1, "<pad>" 2 and "a" 3.
const Tokenizer& tokenizer() {
  static const Tokenizer instance = [] {
    nlohmann::json json = {{"version", "1.0"},
                           {"model",
                            {{"type", "BPE"},
                             {"vocab", {{"<s>", 0}, {"</s>", 1}, {"<pad>", 2}, {"a", 3}}},
                             {"merges", nlohmann::json::array()}}}};
    return Tokenizer::from_json(json.dump(), "tokenizer.json");
  }();
  return instance;
}

void expect(const SpecialTokens& got, int32_t bos, int32_t eos, int32_t pad) {
  EXPECT_EQ(got.bos, bos);
  EXPECT_EQ(got.eos, eos);
  EXPECT_EQ(got.pad, pad);
}

TEST(SpecialTokens, TheTokenizersOwnConfigurationComesFirst) {
  const std::string model = R"({"bos_token_id": 3, "eos_token_id": [2, 3], "pad_token_id": null})";
  expect(read_special_tokens("", model, tokenizer()), 3, 2, -1);
  expect(read_special_tokens("{}", model, tokenizer()), 3, 2, -1);
  expect(read_special_tokens(R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}})", model,
                             tokenizer()),
         0, 1, -1);
  // null means that the tokenizer has none, whatever the model's configuration says (Qwen2).
  expect(read_special_tokens(R"({"bos_token": null, "pad_token": "<pad>"})", model, tokenizer()), -1, 2, 2);
}

TEST(SpecialTokens, WhatMakesNoSenseIsNobody) {
  expect(read_special_tokens("", "", tokenizer()), -1, -1, -1);
  expect(read_special_tokens(R"({"bos_token": "nowhere", "eos_token": 7, "pad_token": {"id": 2}})", "{}", tokenizer()),
         -1, -1, -1);
  expect(read_special_tokens("", R"({"bos_token_id": -5, "eos_token_id": [], "pad_token_id": 1e300})", tokenizer()), -1,
         -1, -1);
  expect(read_special_tokens("", R"({"bos_token_id": "0", "eos_token_id": 99999999999, "pad_token_id": [[0]]})",
                             tokenizer()),
         -1, -1, -1);
  EXPECT_THROW(read_special_tokens("[]", "", tokenizer()), Error);
  EXPECT_THROW(read_special_tokens("", "{", tokenizer()), Error);
}

}  // namespace
}  // namespace mxlm
