#pragma once

// Data sets by name or path: --data NAME_OR_PATH[:SPLIT[:SUBSET]].

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hub/fetch.hpp"
#include "hub/options.hpp"
#include "io/documents.hpp"

namespace mxlm::hub {

/// The parts of --data.
struct DataRequest {
  std::string name;    // of a known data set; "" for a path
  std::string path;    // of a file or folder; "" for a known data set
  std::string split;   // "" = the default
  std::string subset;  // "" = all
};

/// Splits the argument of --data. A path that exists is a path, even with colons. Throws UsageError with the known
/// names if the argument is neither a data set nor a path.
DataRequest parse_data_request(const std::string& text);

/// The names of the known data sets: pile, wikitext2, wikitext103, code, c4...
const std::vector<std::string>& data_set_names();

/// What `fetch` would download for a known data set. Throws UsageError for an unknown split, and HubError.
FetchPlan plan_data_set(const Options& options, const DataRequest& request);

struct ReadDataOptions {
  std::string field = "text";  // of paths
  int64_t max_documents = 0;   // 0 = all
  bool wikitext_rows = false;  // WikiText and ptb: a document for each row that is not blank, instead of one text
};

/// Reads a data set from the cache; a known data set that the cache lacks comes from the hub.
/// * pile: monology/pile-uncopyrighted, splits test (the default), val, train/00 to train/29; subsets are the names in
///   meta.pile_set_name. If neither the cache nor the hub has it, the rows of WikiText-2 replace it, with one warning.
/// * wikitext2, wikitext103: Salesforce/wikitext, splits test (the default), validation, train, as one text: byte for
///   byte the raw file that the rows were made of.
/// * ptb: ptb-text-only/ptb_text_only, the same splits, as one text: its sentences with a blank between two.
/// * code, c4, fineweb-edu, redpajama, lambada: documents; data_sets.cpp lists their sources. If several columns may
///   hold the text (code), a log line names the column.
/// * a path: as read_documents does; SPLIT selects the files of a folder whose names begin with it.
/// Throws Error, HubError.
DocumentSource read_data_set(const Options& options, const DataRequest& request, const ReadDataOptions& how,
                             const OnFetch& on_progress);

}  // namespace mxlm::hub
