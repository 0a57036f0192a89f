#pragma once

// plan.json of a journal: what the run is that its rounds belong to.

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

struct JournalPlan {
  std::map<std::string, std::string> facts;
  std::string written_by;                        // the version of mxlm that wrote the plan, for people
  std::vector<std::vector<std::string>> passes;  // lists of variants, the baseline ("") first in each
};

/// Reads a plan that may be anything; `name` is the file's. Throws Error naming it.
JournalPlan parse_journal_plan(std::string_view text, const std::string& name);

/// The text of plan.json for a run of `windows` windows.
std::string journal_plan_text(const JournalPlan& plan, size_t windows);

}  // namespace mxlm
