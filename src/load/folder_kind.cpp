#include "load/folder_kind.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/quote.hpp"
#include "io/checkpoint.hpp"
#include "model/adapter.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOriginal = "give the original Hugging Face checkpoint (config.json and *.safetensors)";

/// The names of the files and folders in `folder`, sorted. Names of folders end in a slash.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator iterator(folder, error);
  for (; !error && iterator != fs::directory_iterator(); iterator.increment(error)) {
    std::error_code ignored;
    names.push_back(iterator->path().filename().string() + (iterator->is_directory(ignored) ? "/" : ""));
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// A kind of file that a folder may hold instead of a checkpoint. The begin and end of its name tell the kind.
struct OtherFile {
  std::string_view begin, end, what, advice;
};

constexpr std::array kOtherFiles{
    OtherFile{"", ".gguf", "a GGUF model", kOriginal},
    OtherFile{"model_index", ".json", "a pipeline of diffusers, which makes pictures", "give a language model"},
    OtherFile{"config_sentence_transformers", ".json", "a sentence-transformers model, which makes embeddings of texts",
              "give a language model"},
    OtherFile{"", ".onnx", "an ONNX model", kOriginal},
    OtherFile{"openvino_model", ".xml", "an OpenVINO model", kOriginal},
    OtherFile{"", ".npz", "weights in NumPy's format, as MLX wrote them", kOriginal},
    OtherFile{"consolidated", ".pth", "weights in Meta's own layout",
              "convert them with transformers (convert_llama_weights_to_hf.py)"},
    OtherFile{"consolidated", ".safetensors", "weights in Mistral's own layout",
              "convert them with transformers (convert_mistral_weights_to_hf.py)"},
    OtherFile{"tf_model", ".h5", "TensorFlow weights",
              "load them with transformers 4 (from_tf=True) and save them again"},
    OtherFile{"flax_model", ".msgpack", "Flax weights",
              "load them with transformers 4 (from_flax=True) and save them again"},
    OtherFile{"", ".distcp", "a distributed checkpoint of PyTorch",
              "gather it (accelerate merge-weights) and give the folder with model.safetensors"},
    OtherFile{"", "_optim_states.pt", "a checkpoint of DeepSpeed ZeRO",
              "gather it (zero_to_fp32.py) and give the folder with the weights"},
    OtherFile{"", ".pt", "a file of PyTorch that is not a Hugging Face checkpoint",
              "save the model with save_pretrained and give that folder"},
    OtherFile{"", ".pth", "a file of PyTorch that is not a Hugging Face checkpoint",
              "save the model with save_pretrained and give that folder"},
    OtherFile{"", ".ckpt", "a training checkpoint", "save the model with save_pretrained and give that folder"},
};

const OtherFile* other_file(std::string_view name) {
  const auto* found = std::find_if(kOtherFiles.begin(), kOtherFiles.end(), [&](const OtherFile& kind) {
    return name.starts_with(kind.begin) && name.ends_with(kind.end) && name != kind.end;
  });
  return found == kOtherFiles.end() ? nullptr : found;
}

}  // namespace

std::string describe_other_folder(const fs::path& folder) {
  if (const auto base = adapter_base(folder)) {
    return fmt::format("holds a LoRA adapter and no model; give its base model{} with --adapter {}",
                       base->empty() ? "" : fmt::format(" ({})", quote(*base)), quote(folder.native()));
  }
  const std::vector<std::string> names = names_in(folder);
  if (names.empty()) return "is empty; is the download complete?";
  const bool config = std::find(names.begin(), names.end(), "config.json") != names.end();
  if (!config && Checkpoint::is_in(folder)) return "holds weights and no config.json; is the download complete?";
  // If a folder holds several kinds, the first kind of the table is named.
  for (const OtherFile& kind : kOtherFiles) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const auto& n) { return other_file(n) == &kind; });
    if (found != names.end())
      return fmt::format("holds {} ({}), which mxlm does not read; {}", kind.what, quote(*found), kind.advice);
  }
  const auto inner = std::find_if(names.begin(), names.end(), [&](const std::string& name) {
    std::error_code error;
    return name.ends_with('/') && fs::exists(folder / name / "config.json", error);
  });
  if (inner != names.end()) {
    return fmt::format("holds no model, but its folder {} does; give that folder", quote((folder / *inner).native()));
  }
  const bool tokenizer = std::any_of(names.begin(), names.end(), [](const std::string& n) {
    return n == "tokenizer.json" || n == "tokenizer.model" || n == "vocab.json";
  });
  if (tokenizer && !config) return "holds a tokenizer and no model; give the folder with config.json and the weights";
  if (config) return "holds config.json and no weights (model.safetensors or the like); is the download complete?";
  return "";
}

std::string describe_other_file(const fs::path& file) {
  const std::string name = file.filename().string();
  const OtherFile* kind = other_file(name);
  if (kind != nullptr) return fmt::format("is {}, which mxlm does not read; {}", kind->what, kind->advice);
  for (const std::string_view end : {".safetensors", ".bin", ".json"}) {
    if (name.ends_with(end)) {
      return fmt::format("is one file of a checkpoint; give its folder, {}",
                         quote(fs::absolute(file).parent_path().native()));
    }
  }
  return "is a file; give the folder that holds config.json and the weights";
}

}  // namespace mxlm
