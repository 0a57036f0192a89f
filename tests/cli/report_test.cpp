// Pages, CSV and Markdown from the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
namespace fs = std::filesystem;

const std::string kEval = "eval --quiet --text " + quoted((fs::path(MXLM_SOURCE_DIR) / "data/alice.txt").string()) +
                          " --context 32 --max-windows 2 --mx 'a: mlp=mxfp8' --mx linear=mxfp4";

TEST(Report, OfEvalIsThatOfItsJson) {
  const Folder folder;
  const Outcome eval =
      run_mxlm(kEval + " --json " + quoted(folder / "r.json") + " --html " + quoted(folder / "r.html") + " --csv " +
               quoted(folder / "r.csv") + " --markdown " + quoted(folder / "r.md"));
  ASSERT_EQ(eval.code, 0) << eval.err;
  EXPECT_THAT(eval.out, HasSubstr("ΔPPL %"));
  const Outcome report = run_mxlm("report " + quoted(folder / "r.json") + " -o " + quoted(folder / "again.html") +
                                  " --csv " + quoted(folder / "again.csv") + " --markdown -");
  ASSERT_EQ(report.code, 0) << report.err;
  EXPECT_EQ(report.out, slurp(folder / "r.md"));
  const std::string page = slurp(folder / "r.html"), again = slurp(folder / "again.html");
  EXPECT_THAT(page, StartsWith("<!DOCTYPE html>"));
  // A page of a file names it, in one more line; all else is the same.
  const size_t file = again.find("<dt>Result</dt>");
  ASSERT_NE(file, std::string::npos);
  EXPECT_EQ(page, again.substr(0, file) + again.substr(again.find('\n', file) + 1));
  const nlohmann::json parsed = nlohmann::json::parse(slurp(folder / "r.json"));
  const std::string ppl = parsed["runs"][0]["variants"][1]["ppl"].dump();
  EXPECT_THAT(page, HasSubstr("data-j=\"0:/runs/0/variants/1/ppl\" data-v=\"" + ppl + "\""));
  EXPECT_THAT(slurp(folder / "r.csv"), HasSubstr("," + ppl + ","));
  // The command is what a shell reads back.
  EXPECT_THAT(parsed["runs"][0]["command"].get<std::string>(), HasSubstr(" --mx 'a: mlp=mxfp8' --mx linear=mxfp4 "));
}

TEST(Report, APageThatCannotBeWrittenCostsNoJson) {
  const Folder folder;
  const Outcome outcome = run_mxlm(kEval + " --json " + quoted(folder / "r.json") + " --html /dev/full");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--html: '/dev/full' could not be written"));
  EXPECT_THAT(outcome.out, HasSubstr("ΔPPL %"));
  EXPECT_EQ(nlohmann::json::parse(slurp(folder / "r.json"))["schema"], "mxlm.eval/1");
}

TEST(Report, SaysWhatIsWrong) {
  const Folder folder;
  const std::string bad = quoted(folder.file("bad.json", "{\"schema\": \"other\"}"));
  Outcome outcome = run_mxlm("report " + bad + " -o " + quoted(folder / "out.html"));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("has the schema 'other' where mxlm.eval/1 is known"));
  EXPECT_FALSE(fs::exists(folder / "out.html"));
  outcome = run_mxlm("report " + bad);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("Nothing to write"));
  EXPECT_EQ(run_mxlm("report -o x.html").code, 2);
  outcome = run_mxlm("report " + bad + " -o - --csv -");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("Only one of"));
  outcome = run_mxlm(kEval + " --json - --html -");
  EXPECT_EQ(outcome.code, 2);
}

}  // namespace
}  // namespace mxlm
