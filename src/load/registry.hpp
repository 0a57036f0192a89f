#pragma once

// Models that have short names, and the suites of `mxlm suite`.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

/// A model with a short name.
struct RegisteredModel {
  const char* name;     // short, lower case
  const char* id;       // on the hub
  const char* family;   // model_type
  uint64_t parameters;  // a tied LM head counts once
  uint64_t bytes;       // approximate size of the weight files
  const char* licence;
  bool gated;         // the download needs a token, and the user must accept the model's conditions
  const char* suite;  // the smallest suite that holds the model; "" = in no suite
};

/// All models with short names, the smallest first.
std::span<const RegisteredModel> registered_models();

/// The model with this short name, or with a hub id of that NAME (ORG/NAME); nullptr if there is no such model. Upper
/// and lower case are the same.
const RegisteredModel* find_registered(std::string_view name);

/// Short names and hub ids, for suggestions.
const std::vector<std::string>& registered_names();

/// The suites quick, medium, large and full. Each suite includes the suite before it: quick has models of up to 2
/// billion parameters, medium up to 15 billion, large up to 35 billion, and full has all.
const std::vector<std::string>& suite_names();

/// The models of a suite, the smallest first. Throws UsageError, which lists the suites, for another name.
std::vector<const RegisteredModel*> suite_models(const std::string& suite);

}  // namespace mxlm
