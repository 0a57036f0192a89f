#pragma once

// One function per family, each in its own file: it fills a ModelSpec from config.json and the tensors on disk. To add
// a family: write its file, declare it here, list it in spec.cpp, and add a golden test. Each family computes what
// transformers' models/NAME (5.23) computes; docs/numerics.md lists the details that the logits show.

#include "model/spec.hpp"

namespace mxlm {

ModelSpec read_cohere(const SpecReader& reader);    // Command R
ModelSpec read_falcon(const SpecReader& reader);    // Falcon
ModelSpec read_gemma(const SpecReader& reader);     // Gemma 1
ModelSpec read_gemma2(const SpecReader& reader);    // Gemma 2
ModelSpec read_gemma3(const SpecReader& reader);    // Gemma 3, text
ModelSpec read_gpt2(const SpecReader& reader);      // GPT-2
ModelSpec read_gpt_neo(const SpecReader& reader);   // GPT-Neo, TinyStories
ModelSpec read_gpt_neox(const SpecReader& reader);  // GPT-NeoX, Pythia
ModelSpec read_gpt_oss(const SpecReader& reader);   // gpt-oss
ModelSpec read_granite(const SpecReader& reader);   // Granite 3
ModelSpec read_llama(const SpecReader& reader);     // Llama 2 and 3, Yi, DeepSeek-LLM, SmolLM2
ModelSpec read_mistral(const SpecReader& reader);   // Mistral
ModelSpec read_mixtral(const SpecReader& reader);   // Mixtral
ModelSpec read_mpt(const SpecReader& reader);       // MPT
ModelSpec read_olmo(const SpecReader& reader);      // OLMo 1
ModelSpec read_olmo2(const SpecReader& reader);     // OLMo 2
ModelSpec read_opt(const SpecReader& reader);       // OPT
ModelSpec read_phi(const SpecReader& reader);       // Phi-1, 1.5, 2
/// Phi-1, 1.5 and 2 with the names of 2023; nullopt if the checkpoint has none of them.
std::optional<ModelSpec> read_phi_msft(const SpecReader& reader);
ModelSpec read_phi3(const SpecReader& reader);        // Phi-3, 3.5, 4 (text)
ModelSpec read_qwen2(const SpecReader& reader);       // Qwen 1.5, 2, 2.5
ModelSpec read_qwen3(const SpecReader& reader);       // Qwen 3
ModelSpec read_qwen3_moe(const SpecReader& reader);   // Qwen 3 MoE
ModelSpec read_smollm3(const SpecReader& reader);     // SmolLM3
ModelSpec read_stablelm(const SpecReader& reader);    // StableLM 2, 3B
ModelSpec read_starcoder2(const SpecReader& reader);  // StarCoder2

}  // namespace mxlm
