#pragma once

// The state of the library's classes, and the functions that the library and the commands share.

#include <functional>

#include "load/load.hpp"
#include "mxlm/mxlm.hpp"
#include "run/evaluate.hpp"

namespace mxlm::api {

struct Model::State {
  LoadedModel loaded;
  double seconds = 0;  // that loading the model took
};

struct Data::State {
  DocumentSource source;
};

/// Model::load, with the progress of downloads.
Model open_model(const std::string& model, const std::string& adapter, const hub::OnFetch& on_fetch);

/// Data::read, with the progress of downloads.
Data read_data(const std::string& name, const EvaluateOptions& options, const hub::OnFetch& on_fetch);
/// Wraps documents that the caller has read.
Data data_of(DocumentSource source);

/// Chooses the devices that the options ask for. Throws Error if the request cannot be met.
DeviceSet choose_devices(const EvaluateOptions& options);

/// Checks the options and parses their variants, for a run on `data`. The caller adds the root of journals and the
/// ranks. Throws UsageError.
ResolvedOptions resolve_options(const EvaluateOptions& options, const Data& data, DeviceSet devices);

/// Runs mxlm::evaluate and adds the time that loading took.
RunResult run(const Model& model, const Data& data, const ResolvedOptions& options,
              const std::function<void(const mxlm::Progress&)>& on_progress);

/// Logs which figures are not finite.
void warn_about(const RunResult& run);

}  // namespace mxlm::api
