#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/documents.hpp"
#include "io/hub/fetch.hpp"
#include "io/hub/options.hpp"

namespace mxlm::hub {

/// What --data names: NAME_OR_PATH[:SPLIT[:SUBSET]].
struct DataRequest {
  std::string name;    // of a known data set; "" for a path
  std::string path;    // of a file or folder; "" for a known data set
  std::string split;   // "" = the default
  std::string subset;  // "" = all
};

/// A path that exists is one, colons and all. Throws UsageError for a name that is no data set and no path, with the
/// known names.
DataRequest parse_data_request(const std::string& text);

/// Names of the data sets that are known: pile, wikitext2, wikitext103, code, c4...
const std::vector<std::string>& data_set_names();

/// What `fetch` would download for a known data set. Throws UsageError for an unknown split, HubError.
FetchPlan plan_data_set(const Options& options, const DataRequest& request);

struct ReadDataOptions {
  std::string field = "text";  // of paths
  int64_t max_documents = 0;   // 0 = all
  bool wikitext_rows = false;  // WikiText and ptb as rows that are not blank, each a document, instead of one text
};

/// Reads a data set, from the cache or (known ones that are not there) the hub.
/// * pile: monology/pile-uncopyrighted, splits test (the default), val, train/00 to train/29; subsets are the names in
///   meta.pile_set_name. Where it is neither in the cache nor to be had, the rows of WikiText-2 take its place, with
///   one warning that says so.
/// * wikitext2, wikitext103: Salesforce/wikitext, splits test (the default), validation, train, as one text: byte for
///   byte the raw file that the rows were made of.
/// * ptb: ptb-text-only/ptb_text_only, the same splits, as one text: its sentences with a blank between two.
/// * code, c4, fineweb-edu, redpajama, lambada: documents; data_sets.cpp says from where. Of several columns
///   that may hold the text (code) the log says which it is.
/// * a path: as read_documents does; SPLIT names the files of a folder whose names begin with it.
/// Throws Error, HubError.
DocumentSource read_data_set(const Options& options, const DataRequest& request, const ReadDataOptions& how,
                             const OnFetch& on_progress);

}  // namespace mxlm::hub
