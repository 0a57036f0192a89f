#pragma once

// What the library's classes hold, and what its functions and the commands both go through.

#include <functional>

#include "eval/evaluate.hpp"
#include "eval/load.hpp"
#include "mxlm/mxlm.hpp"

namespace mxlm::api {

struct Model::State {
  LoadedModel loaded;
  double seconds = 0;  // that loading took
};

struct Data::State {
  DocumentSource source;
};

/// Model::load with progress of what has to be downloaded.
Model open_model(const std::string& model, const std::string& adapter, const hub::OnFetch& on_fetch);

/// Data::read and the like with progress of what has to be downloaded.
Data read_data(const std::string& name, const Data::ReadOptions& options, const hub::OnFetch& on_fetch);
/// What was read elsewhere.
Data data_of(DocumentSource source);

/// The options in the terms of the rooms below, all but `devices`, `cancelled` and `on_progress`.
mxlm::EvaluateOptions resolve(const EvaluateOptions& options, const Data& data);

/// One run, as mxlm::evaluate, with the time that loading took.
RunResult run(const Model& model, const Data& data, const mxlm::EvaluateOptions& options,
              const std::function<void(const mxlm::Progress&)>& on_progress);

/// Says in the log which figures are not finite.
void warn_about(const RunResult& run);

}  // namespace mxlm::api
