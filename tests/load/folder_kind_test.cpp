// Folders and files that are no Hugging Face checkpoint: what they are is recognised.
#include "load/folder_kind.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "load/load.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class FolderKinds : public testing::Test {
 protected:
  FolderKinds() {
    std::string name = (fs::temp_directory_path() / "mxlm_kind_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = name;
  }
  ~FolderKinds() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  /// What load_model says of a folder with these files.
  std::string said(const std::vector<std::string>& files) {
    fs::remove_all(folder_);
    fs::create_directory(folder_);
    for (const std::string& file : files) {
      fs::create_directories((folder_ / file).parent_path());
      std::ofstream(folder_ / file) << (file == "adapter_config.json" ? R"({"base_model_name_or_path":"acme/base"})"
                                                                      : "{}");
    }
    return said_of(folder_);
  }
  static std::string said_of(const fs::path& path) {
    try {
      load_model(path.string(), /*with_tokenizer=*/false);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  fs::path folder_;
};

TEST_F(FolderKinds, OfFoldersAreNamed) {
  EXPECT_THAT(said({}), HasSubstr("is empty"));
  EXPECT_THAT(said({"m-Q4_K_M.gguf"}), AllOf(HasSubstr("a GGUF model ('m-Q4_K_M.gguf')"), HasSubstr("original")));
  EXPECT_THAT(said({"config.json", "m.gguf", "README.md"}), HasSubstr("GGUF"));
  EXPECT_THAT(said({"adapter_config.json", "adapter_model.safetensors"}),
              AllOf(HasSubstr("LoRA adapter"), HasSubstr("'acme/base'"), HasSubstr("--adapter")));
  EXPECT_THAT(said({"config.json", "adapter_config.json", "adapter_model.bin"}), HasSubstr("LoRA adapter"));
  EXPECT_THAT(said({"model_index.json", "unet/config.json"}), HasSubstr("diffusers"));
  EXPECT_THAT(said({"config_sentence_transformers.json", "config.json"}), HasSubstr("embeddings of texts"));
  EXPECT_THAT(said({"weights.npz", "config.json"}), HasSubstr("MLX"));
  EXPECT_THAT(said({"model.onnx"}), HasSubstr("ONNX"));
  EXPECT_THAT(said({"params.json", "consolidated.00.pth"}), HasSubstr("convert_llama_weights_to_hf"));
  EXPECT_THAT(said({"params.json", "consolidated.safetensors", "config.json"}), HasSubstr("Mistral's own layout"));
  EXPECT_THAT(said({"config.json", "tf_model.h5"}), HasSubstr("TensorFlow"));
  EXPECT_THAT(said({"mp_rank_00_model_states.pt"}), HasSubstr("file of PyTorch"));
  EXPECT_THAT(said({"tokenizer.json", "tokenizer_config.json"}), HasSubstr("holds a tokenizer and no model"));
  EXPECT_THAT(said({"config.json", "tokenizer.json"}), HasSubstr("holds config.json and no weights"));
  EXPECT_THAT(said({"README.md", "inner/config.json"}), AllOf(HasSubstr("/inner"), HasSubstr("give that")));
  EXPECT_THAT(said({"model.safetensors", "tokenizer.json"}), HasSubstr("holds weights and no config.json"));
}

TEST_F(FolderKinds, OfFilesAreNamed) {
  const auto file = [&](const char* name) {
    said({name});
    return said_of(folder_ / name);
  };
  EXPECT_THAT(file("m.gguf"), AllOf(HasSubstr("is a GGUF model"), HasSubstr("original")));
  EXPECT_THAT(file("model.safetensors"), AllOf(HasSubstr("one file of a checkpoint"), HasSubstr(folder_.string())));
  EXPECT_THAT(file("m.pt"), HasSubstr("save_pretrained"));
  EXPECT_THAT(file("notes.txt"), HasSubstr("is a file; give the folder"));
}

}  // namespace
}  // namespace mxlm
