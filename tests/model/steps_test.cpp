#include "model/steps.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "io/checkpoint.hpp"
#include "io/file.hpp"
#include "model/config.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

ModelSpec family(const char* name) {
  const fs::path folder = fs::path(MXLM_TEST_DATA) / "families" / name;
  const FileView config = FileView::map(folder / "config.json");
  return load_spec(Config::parse(config.text(), config.name()), Checkpoint::open(folder));
}

/// "2 block: q_proj fc1" and so on: layer, part and last names.
std::string text_of(const Step& step) {
  std::string out = std::to_string(step.layer) + " " + step.part() + ":";
  for (const LinearSpec* linear : step.linears) out += " " + linear->module.substr(linear->module.rfind('.') + 1);
  return out;
}

std::vector<std::string> texts(const std::vector<Step>& steps) {
  std::vector<std::string> out;
  for (const Step& step : steps) out.push_back(text_of(step));
  return out;
}

void expect_places(const ModelSpec& model, const std::vector<Step>& steps) {
  const auto all = model.linears();
  size_t count = 0;
  for (const Step& step : steps) {
    for (size_t l = 0; l < step.linears.size(); ++l) EXPECT_EQ(all.at(step.first_linear + l), step.linears[l]);
    count += step.linears.size();
  }
  EXPECT_EQ(all.size(), count + 1);
  EXPECT_EQ(all.back(), &model.lm_head);
}

TEST(Steps, AreAttentionAndMlpOfEachLayer) {
  const ModelSpec model = family("llama");
  const auto steps = steps_of(model);
  ASSERT_EQ(steps.size(), 2 * model.layers.size());
  EXPECT_EQ(text_of(steps[0]), "0 attention: q_proj k_proj v_proj o_proj");
  EXPECT_EQ(text_of(steps[3]), "1 mlp: gate_proj up_proj down_proj");
  EXPECT_EQ(steps[3].prepared, 3U);
  EXPECT_EQ(steps[3].linears_an_expert, 0U);
  expect_places(model, steps);
}

TEST(Steps, AreOneForALayerWhoseHalvesRunInParallel) {
  const ModelSpec model = family("phi");
  const auto steps = steps_of(model);
  EXPECT_THAT(texts(steps), ElementsAre("0 block: q_proj k_proj v_proj dense fc1 fc2",
                                        "1 block: q_proj k_proj v_proj dense fc1 fc2"));
  EXPECT_EQ(steps[1].prepared, 6U);
  expect_places(model, steps);
}

TEST(Steps, PrepareTheRouterBeforeAndExpertsInTurn) {
  const ModelSpec model = family("mixtral");  // five experts
  const auto steps = steps_of(model);
  ASSERT_EQ(steps.size(), 4U);
  EXPECT_EQ(text_of(steps[1]), "0 mlp: gate w1 w3 w2 w1 w3 w2 w1 w3 w2 w1 w3 w2 w1 w3 w2");
  EXPECT_EQ(steps[0].prepared, 4U);
  EXPECT_EQ(steps[1].prepared, 1U);
  EXPECT_EQ(steps[1].linears_an_expert, 3U);
  expect_places(model, steps);
}

}  // namespace
}  // namespace mxlm
