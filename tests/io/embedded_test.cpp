#include "io/embedded.hpp"

#include <gtest/gtest.h>

#include "io/file.hpp"
#include "io/safetensors.hpp"
#include "io_helpers.hpp"

namespace mxlm {
namespace {

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(Embedded, HoldsTheFilesByteForByte) {
  const std::filesystem::path root = MXLM_SOURCE_DIR;
  EXPECT_EQ(text_of(embedded::booklet_config()), read_all(root / "models/booklet-7m/config.json"));
  EXPECT_EQ(text_of(embedded::booklet_model()), read_all(root / "models/booklet-7m/model.safetensors"));
  EXPECT_EQ(text_of(embedded::booklet_tokenizer()), read_all(root / "models/booklet-7m/tokenizer.json"));
  EXPECT_EQ(text_of(embedded::alice_text()), read_all(root / "data/alice.txt"));
}

TEST(Embedded, ModelOpensWithoutCopyingItsTensors) {
  const auto bytes = embedded::booklet_model();
  const auto model = Checkpoint::from_file(FileView::from_memory("embedded", bytes));
  EXPECT_EQ(model.tensors().size(), 74U);
  for (const auto& [name, tensor] : model.tensors()) {
    EXPECT_TRUE(tensor.data() >= bytes.data() && tensor.data() + tensor.size <= bytes.data() + bytes.size()) << name;
  }
}

}  // namespace
}  // namespace mxlm
