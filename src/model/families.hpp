#pragma once

// One function a family, each in a file of its own: fills a ModelSpec from config.json and the tensors on disk.
// To add a family: write its file, declare it here, list it in spec.cpp, add a golden test.

#include "model/spec.hpp"

namespace mxlm {

/// LlamaForCausalLM (Llama 2 and 3, Yi, DeepSeek-LLM, SmolLM2, ...): transformers models/llama.
ModelSpec read_llama(const SpecReader& reader);

}  // namespace mxlm
