#pragma once

// What the library's classes hold, and what its functions and the commands both go through.

#include <functional>

#include "load/load.hpp"
#include "mxlm/mxlm.hpp"
#include "run/evaluate.hpp"

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

/// Data::read with progress of what has to be downloaded.
Data read_data(const std::string& name, const EvaluateOptions& options, const hub::OnFetch& on_fetch);
/// What was read elsewhere.
Data data_of(DocumentSource source);

/// The devices that the options ask for. Throws Error where the request cannot be met.
DeviceSet choose_devices(const EvaluateOptions& options);

/// Checks the options and looks up what they name, for a run on `data`. The journal's root and the ranks are for the
/// caller to add. Throws UsageError.
ResolvedOptions resolve_options(const EvaluateOptions& options, const Data& data, DeviceSet devices);

/// One run, as mxlm::evaluate, with the time that loading took.
RunResult run(const Model& model, const Data& data, const ResolvedOptions& options,
              const std::function<void(const mxlm::Progress&)>& on_progress);

/// Says in the log which figures are not finite.
void warn_about(const RunResult& run);

}  // namespace mxlm::api
