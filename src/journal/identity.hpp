#pragma once

// plan.json of a journal identifies the run that the journal's shards belong to.

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

struct JournalPlan {
  std::map<std::string, std::string> facts;
  std::string written_by;                        // the version of mxlm that wrote the plan; only messages use it
  std::vector<std::vector<std::string>> passes;  // lists of variants, the baseline ("") first in each
};

/// Reads a plan from untrusted text. `name` is the name of the file. Throws Error naming the file.
JournalPlan parse_journal_plan(std::string_view text, const std::string& name);

/// The text of plan.json for a run of `windows` windows.
std::string journal_plan_text(const JournalPlan& plan, size_t windows);

}  // namespace mxlm
