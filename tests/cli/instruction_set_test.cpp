// MXLM_ISA lowers the instruction set; `inspect` names the one in use.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using testing::HasSubstr;

TEST(InstructionSet, TheEnvironmentLowersIt) {
  const Outcome outcome = run_mxlm("inspect --quiet", "MXLM_ISA=portable");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("cpu portable"));
}

TEST(InstructionSet, AnUnknownNameIsAnError) {
  const Outcome outcome = run_mxlm("inspect --quiet", "MXLM_ISA=sse9");
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("MXLM_ISA is \"sse9\""));
}

}  // namespace
}  // namespace mxlm
