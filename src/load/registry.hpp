#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

/// A model that is known by a short name.
struct RegisteredModel {
  const char* name;     // short, lower case
  const char* id;       // on the hub
  const char* family;   // model_type
  uint64_t parameters;  // a tied head counted once
  uint64_t bytes;       // of the weight files, about
  const char* licence;
  bool gated;         // needs a token and its conditions accepted
  const char* suite;  // the smallest suite that holds it; "" = none
};

/// All of them, smallest first.
std::span<const RegisteredModel> registered_models();

/// The model with this short name, or whose hub id ends in it, in any case; nullptr if there is none.
const RegisteredModel* find_registered(std::string_view name);

/// Short names and hub ids, for suggestions.
const std::vector<std::string>& registered_names();

/// quick, medium, large, full. Each holds the one before:
/// quick up to 2 billion parameters, medium up to 15, large up to 35, full all.
const std::vector<std::string>& suite_names();

/// The models of a suite, smallest first. Throws UsageError with the known names.
std::vector<const RegisteredModel*> suite_models(const std::string& suite);

}  // namespace mxlm
