#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "run_mxlm.hpp"

namespace mxlm {

/// The figures of a result file, without what depends on time and place; null if there is no whole result.
inline nlohmann::json figures(const std::string& path) {
  nlohmann::json out;
  const auto all = nlohmann::json::parse(slurp(path), nullptr, /*allow_exceptions=*/false);
  if (!all.is_object()) return out;
  for (nlohmann::json run : all["runs"]) {
    for (nlohmann::json& variant : run["variants"]) {
      for (const char* time : {"seconds", "tokens_per_second"}) variant.erase(time);
      for (nlohmann::json& linear : variant["replaced"]) linear.erase("route");
    }
    out.push_back({{"variants", run["variants"]},
                   {"windows", run["windows"]},
                   {"subsets", run["subsets"]},
                   {"complete", run["complete"]}});
  }
  return out;
}

}  // namespace mxlm
