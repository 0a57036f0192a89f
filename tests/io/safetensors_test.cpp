#include "io/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/error.hpp"
#include "io_helpers.hpp"

namespace mxlm {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

TEST(Safetensors, ReadsTheEmbeddedModelsFile) {
  const auto model = Checkpoint::open(fs::path(MXLM_SOURCE_DIR) / "models/booklet-7m");
  EXPECT_EQ(model.tensors().size(), 74U);
  const TensorEntry* embedding = model.find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->type, DType::bf16);
  EXPECT_EQ(embedding->shape, (std::vector<int64_t>{4096, 256}));
  EXPECT_EQ(embedding->size, size_t{4096} * 256 * 2);
  EXPECT_EQ(model.find("lm_head.weight"), nullptr);
  int64_t parameters = 0;
  for (const auto& [name, tensor] : model.tensors()) parameters += tensor.elements();
  EXPECT_EQ(parameters, 6'951'168);  // models/README.md
}

}  // namespace
}  // namespace mxlm
