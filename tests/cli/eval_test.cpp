// `mxlm eval` on the embedded model: the JSON by its schema, what changes it and what does not, where texts come from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

const std::string kText =
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or "
    "twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, \"and "
    "what is the use of a book,\" thought Alice \"without pictures or conversations?\" So she was considering in her "
    "own mind (as well as she could, for the hot day made her feel very sleepy and stupid), whether the pleasure of "
    "making a daisy-chain would be worth the trouble of getting up and picking the daisies.\n";

/// The JSON of a run that succeeds, written to stdout.
json eval(const std::string& arguments, const std::string& environment = "") {
  const Outcome outcome = run_mxlm("eval --quiet " + arguments + " --json -", environment);
  EXPECT_EQ(outcome.code, 0) << arguments << "\n" << outcome.err;
  json out = json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
  EXPECT_FALSE(out.is_discarded()) << outcome.out;  // nothing but JSON
  return out;
}

/// Without what may differ between two runs of the same work: times, memory, the command and how many threads.
json timeless(json result) {
  result["machine"].erase("threads");
  for (json& run : result["runs"]) {
    for (const char* key : {"command", "peak_memory_bytes", "planned_memory_bytes", "seconds"}) {
      EXPECT_EQ(run.erase(key), 1U) << key;
    }
    for (json& variant : run["variants"]) {
      for (const char* key : {"tokens_per_second", "seconds"}) EXPECT_EQ(variant.erase(key), 1U) << key;
    }
  }
  return result;
}

std::vector<std::string> names(const json& result) {
  std::vector<std::string> out;
  for (const json& variant : result["runs"][0]["variants"]) out.push_back(variant["name"]);
  return out;
}

using Names = std::vector<std::string>;

struct Field {
  const char* pointer;
  bool (*is)(const json&);
};
bool text(const json& j) { return j.is_string(); }
bool filled(const json& j) { return j.is_string() && !j.get<std::string>().empty(); }
bool hash(const json& j) {
  return j.is_string() && j.get<std::string>().size() == 64 &&
         j.get<std::string>().find_first_not_of("0123456789abcdef") == std::string::npos;
}
bool count(const json& j) { return j.is_number_integer() && j.get<int64_t>() >= 0; }
bool positive(const json& j) { return j.is_number() && j.get<double>() > 0; }
bool time_of(const json& j) { return j.is_number() && j.get<double>() >= 0; }
bool number(const json& j) { return j.is_number(); }
bool share(const json& j) { return j.is_number() && j.get<double>() >= 0 && j.get<double>() <= 1; }
bool list(const json& j) { return j.is_array(); }
bool boolean(const json& j) { return j.is_boolean(); }

void expect_fields(const json& node, std::initializer_list<Field> fields) {
  for (const Field& field : fields) {
    const json::json_pointer at(field.pointer);
    ASSERT_TRUE(node.contains(at)) << field.pointer << " is missing in " << node.dump().substr(0, 200);
    EXPECT_TRUE(field.is(node.at(at))) << field.pointer << " is " << node.at(at);
  }
}

TEST(Eval, WritesEveryFieldOfTheSchema) {
  const json result = eval(kSpread + "--mx w4:linear=mxfp4/none --mx mlp=mxfp8,attention=mxint8");
  EXPECT_EQ(result["schema"], "mxlm.eval/1");
  expect_fields(result, {{"/version", filled},
                         {"/machine/cpu", filled},
                         {"/machine/backend", filled},
                         {"/machine/os", filled},
                         {"/machine/cores", positive},
                         {"/machine/threads", positive},
                         {"/machine/memory_bytes", positive}});
  ASSERT_EQ(result["runs"].size(), 1U);
  const json& run = result["runs"][0];
  expect_fields(run, {{"/model/name", filled},
                      {"/model/family", filled},
                      {"/model/parameters", positive},
                      {"/model/dtype", filled},
                      {"/model/revision", text},
                      {"/model/sha256", hash},
                      {"/data/name", filled},
                      {"/data/documents", positive},
                      {"/data/sha256", hash},
                      {"/command", filled},
                      {"/complete", boolean},
                      {"/peak_memory_bytes", positive},
                      {"/protocol/name", filled},
                      {"/protocol/context", positive},
                      {"/windows", count},
                      {"/subsets", list},
                      {"/seconds/total", positive},
                      {"/seconds/load", time_of},
                      {"/seconds/tokenize", time_of}});
  EXPECT_EQ(run["model"]["name"], "booklet-7m");
  EXPECT_EQ(run["model"]["parameters"], 6951168);
  EXPECT_EQ(run["complete"], true);
  EXPECT_EQ(run["windows"], 2);
  EXPECT_EQ(run["protocol"]["context"], 64);
  EXPECT_THAT(run["command"].get<std::string>(), HasSubstr("w4:linear=mxfp4/none"));
  ASSERT_EQ(names(result), (Names{"baseline", "w4", "mlp=mxfp8_e4m3,attention=mxint8"}));
  for (const json& variant : run["variants"]) {
    expect_fields(variant, {{"/spec", text},
                            {"/nll", positive},
                            {"/ppl", positive},
                            {"/ppl_stderr", positive},
                            {"/ppl_stderr_windows", positive},
                            {"/nll_stderr_windows", positive},
                            {"/accuracy", share},
                            {"/tokens", positive},
                            {"/tokens_per_second", positive},
                            {"/seconds/load", time_of},
                            {"/seconds/tokenize", time_of},
                            {"/seconds/prepare", time_of},
                            {"/seconds/forward", time_of},
                            {"/seconds/head", time_of},
                            {"/replaced", list},
                            {"/weight_bytes/baseline", positive},
                            {"/weight_bytes/variant", positive},
                            {"/nonfinite", count}});
    EXPECT_EQ(variant["tokens"], 126);
    EXPECT_EQ(variant["nonfinite"], 0);
    EXPECT_NEAR(variant["ppl"].get<double>(), std::exp(variant["nll"].get<double>()), 1e-9);
    EXPECT_FALSE(variant.contains("noise"));
  }
  const json& baseline = run["variants"][0];
  EXPECT_EQ(baseline["spec"], "");
  EXPECT_TRUE(baseline["vs_baseline"].is_null());
  EXPECT_TRUE(baseline["replaced"].empty());
  EXPECT_EQ(run["variants"][1]["spec"], "linear=mxfp4_e2m1/none");
  for (const size_t v : {1, 2}) {
    const json& variant = run["variants"][v];
    expect_fields(variant["vs_baseline"], {{"/ppl_ratio", positive},
                                           {"/ln_ppl_ratio", number},
                                           {"/ln_ppl_ratio_stderr", positive},
                                           {"/ln_ppl_ratio_stderr_windows", positive},
                                           {"/kld_stderr_windows", positive},
                                           {"/top1_stderr_windows", number},
                                           {"/top1_interval/0", share},
                                           {"/flips/right_to_wrong", share},
                                           {"/flips/wrong_to_right", share},
                                           {"/kld_mean", positive},
                                           {"/kld_stderr", positive},
                                           {"/kld_median", positive},
                                           {"/kld_max", positive},
                                           {"/kld_percentiles/99", positive},
                                           {"/kld_percentiles/99.9", positive},
                                           {"/top1_agreement", share},
                                           {"/top1_stderr", share},
                                           {"/delta_p_mean", number},
                                           {"/delta_p_rms", share}});
    EXPECT_NEAR(variant["vs_baseline"]["ln_ppl_ratio"].get<double>(),
                variant["nll"].get<double>() - baseline["nll"].get<double>(), 1e-12);
    EXPECT_LT(variant["weight_bytes"]["variant"], variant["weight_bytes"]["baseline"]);
    for (const json& replaced : variant["replaced"]) {
      expect_fields(replaced, {{"/tensor", filled}, {"/role", filled}, {"/weights", filled}, {"/activations", filled}});
    }
  }
  EXPECT_EQ(run["variants"][1]["replaced"].size(), 8U * 7 + 1);
  EXPECT_EQ(run["variants"][1]["replaced"][0]["tensor"], "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(run["variants"][1]["replaced"][0]["weights"], "mxfp4_e2m1");
  EXPECT_EQ(run["variants"][1]["replaced"][0]["activations"], "none");
  EXPECT_EQ(run["variants"][2]["replaced"].size(), 8U * 7);
  // 4.25 bits instead of 16.
  EXPECT_EQ(run["variants"][1]["weight_bytes"]["variant"].get<int64_t>() * 64,
            run["variants"][1]["weight_bytes"]["baseline"].get<int64_t>() * 17);
}

TEST(Eval, ThreadsBatchesAndStreamingChangeNoDigit) {
  const std::string work = "--max-windows 9 --context 40 --mx mlp=mxfp4 --mx linear=mxfp8,qk=mxfp8,pv=mxfp8 ";
  for (const char* dtype : {"bfloat16", "float32"}) {
    const std::string base = work + "--dtype " + dtype + " ";
    const json expected = timeless(eval(base));
    for (const char* options : {"--threads 1", "--threads 2", "--batch-size 1", "--batch-size 3 --threads 1",
                                "--batch-size 8 --threads 2", "--stream", "--stream --batch-size 3"}) {
      EXPECT_EQ(timeless(eval(base + options)).dump(), expected.dump()) << options << " " << dtype;
    }
  }
}

TEST(Eval, VariantsComeInCommandOrder) {
  EXPECT_EQ(names(eval(kSmall)), (Names{"baseline", "attention=mxfp8_e4m3,mlp=mxfp8_e4m3"}));
  EXPECT_EQ(names(eval(kSmall + "--no-variants")), (Names{"baseline"}));
  EXPECT_EQ(names(eval(kSmall + "--tier all")), (Names{"baseline", "tier-A", "tier-B", "tier-C", "tier-D"}));
  EXPECT_EQ(names(eval(kSmall + "--mlp-only --mx-format mxfp4 mxint8")),
            (Names{"baseline", "mlp=mxfp4_e2m1", "mlp=mxint8"}));
  EXPECT_EQ(names(eval(kSmall + "--mx-format mxfp4")), (Names{"baseline", "attention=mxfp4_e2m1,mlp=mxfp4_e2m1"}));
  EXPECT_EQ(names(eval(kSmall + "--mx b:mlp=mxint8 --tier A --mx a:mlp=mxfp4 --all-linears")),
            (Names{"baseline", "b", "tier-A", "a", "linear=mxfp8_e4m3"}));

  const json one = timeless(eval(kSmall + "--mx x:mlp=mxint8 --mx y:attention=mxfp4"));
  const json other = timeless(eval(kSmall + "--mx y:attention=mxfp4 --mx x:mlp=mxint8"));
  const json &a = one["runs"][0]["variants"], &b = other["runs"][0]["variants"];
  EXPECT_EQ(a[0], b[0]);
  EXPECT_EQ(a[1], b[2]);
  EXPECT_EQ(a[2], b[1]);
}

TEST(Eval, UnderscoresAreDashes) {
  EXPECT_EQ(timeless(eval("--max_windows 2 --context=64 --mlp_only --mx_format mxfp4")),
            timeless(eval(kSmall + "--mlp-only --mx-format mxfp4")));
}

TEST(Eval, OptionsComeFromAFileAndTheCommandLineWins) {
  const Folder folder;
  const std::string config = folder.file("config.toml",
                                         "# what to run\n"
                                         "context = 64\n"
                                         "max_windows = 2\n"
                                         "noise = false\n"
                                         "stream = true\n"
                                         "mx = [\"attention=mxfp8,mlp=mxfp4/mxfp8@block=16\", \"b:linear=mxint8\"]\n"
                                         "dtype = \"float32\"\n");
  const std::string variants = "--mx attention=mxfp8,mlp=mxfp4/mxfp8@block=16 --mx b:linear=mxint8 ";
  const json expected = timeless(eval(kSmall + "--dtype float32 " + variants));
  EXPECT_EQ(timeless(eval("--config " + quoted(config))), expected);
  EXPECT_EQ(timeless(eval("--config=" + quoted(config))), expected);
  const json other = eval("--config " + quoted(config) + " --context 32 --mx mlp=mxfp4");
  EXPECT_EQ(other["runs"][0]["protocol"]["context"], 32);
  EXPECT_EQ(other["runs"][0]["windows"], 2);
  EXPECT_EQ(other["runs"][0]["model"]["compute_dtype"], "float32");
  EXPECT_EQ(names(other), (Names{"baseline", "mlp=mxfp4_e2m1"}));
  const std::string section =
      folder.file("section.toml", "[eval]\ncontext = 64\nmax-windows = 2\nno-variants = true\n");
  EXPECT_EQ(timeless(eval("--config " + quoted(section))), timeless(eval(kSmall + "--no-variants")));
  const std::string formats = folder.file(
      "formats.toml", "context = 64\nmax-windows = 2\nmlp-only = true\nmx-format = [\"mxfp4\", \"mxint8\"]\n");
  EXPECT_EQ(names(eval("--config " + quoted(formats))), (Names{"baseline", "mlp=mxfp4_e2m1", "mlp=mxint8"}));
}

TEST(Eval, AConfigurationThatIsWrongIsRefused) {
  const Folder folder;
  const auto refused = [&](const std::string& text, const std::string& part) {
    const Outcome outcome = run_mxlm("eval --quiet --config " + quoted(folder.file("bad.toml", text)));
    EXPECT_NE(outcome.code, 0) << text;
    EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_EQ(outcome.out, "");
  };
  refused("contxt = 64\n", "contxt");
  refused("[cast]\nformat = \"mxfp4\"\n", "format");
  refused("noise = 3\n", "noise");
  refused("context = \"many\"\n", "context");
  // The memory that CLI11's reader takes grows with the square of a section's depth: 14 GB for these 30 KB.
  refused(std::string(30'000, '.') + "=1\n", "more than 16 levels deep");
  refused(std::string(70'000, '.'), "more than 16 levels deep");
  refused(std::string((size_t{4} << 20) + 1, ' '), "4194305 bytes");
  refused("[" + std::string(30'000, '.') + "]\n", "more than 16 levels deep");
  EXPECT_EQ(run_mxlm("eval --quiet --config " + quoted(folder / "none.toml")).code, 1);
}

TEST(Eval, AttentionProductsAreQuantised) {
  const json result =
      eval(kSmall + "--dtype float32 --mx qk=mxfp4 --mx pv=mxfp4 --mx qk=mxfp4,pv=mxfp4 --mx qk=mxint8");
  const json& variants = result["runs"][0]["variants"];
  std::set<double> different;
  for (const json& variant : variants) different.insert(variant["nll"].get<double>());
  EXPECT_EQ(different.size(), 5U);
  EXPECT_LT(variants[4]["vs_baseline"]["kld_mean"], variants[1]["vs_baseline"]["kld_mean"]);
  ASSERT_EQ(variants[3]["replaced"].size(), 2U);
  EXPECT_EQ(variants[3]["replaced"][0]["tensor"], "qk");
}

TEST(Eval, NoiseIsMeasuredOnRequest) {
  const json result = eval(kSmall + "--dtype float32 --noise --mx mlp=mxfp4 --mx mlp=mxfp4/none");
  for (const json& variant : result["runs"][0]["variants"]) {
    expect_fields(variant, {{"/noise/nll", time_of},
                            {"/noise/nll_sd", positive},
                            {"/noise/floor_kld", number},
                            {"/noise/floor_flips", share}});
    EXPECT_LT(variant["noise"]["floor_kld"], 1e-6);
    EXPECT_LT(variant["noise"]["nll"], 0.05);
  }
  // Without quantised activations another order of sums is no more than float32 rounding.
  EXPECT_LT(result["runs"][0]["variants"][0]["noise"]["nll"], 1e-5);
  EXPECT_LT(result["runs"][0]["variants"][2]["noise"]["nll"], 1e-5);
  EXPECT_GT(result["runs"][0]["variants"][1]["noise"]["nll"], 0);

  // In bfloat16 the floor is what a format without error has; its deviation from the baseline is rounding.
  const json rounded = eval(kSmall + "--noise --mx linear=mxint16")["runs"][0]["variants"][1];
  const double floor = rounded["noise"]["floor_kld"];
  EXPECT_GT(floor, 1e-5);
  EXPECT_GT(rounded["vs_baseline"]["kld_mean"], floor / 3);
  EXPECT_LT(rounded["vs_baseline"]["kld_mean"], floor * 3);
  EXPECT_GT(rounded["noise"]["ln_ppl_ratio_sd"], 0);
}

TEST(Eval, TextsComeFromFilesAndStdin) {
  const Folder folder;
  const std::string a = folder.file("a.txt", kText), b = folder.file("b.txt", "The Time Traveller smiled round at us.");
  const std::string rest = " --no-variants --context 32";
  const json from_file = eval("--text " + quoted(a) + rest);
  const json from_stdin = eval("--text - <" + quoted(a) + rest);
  const json piped = eval("--text=-" + rest + " <" + quoted(a));
  EXPECT_EQ(from_file["runs"][0]["data"]["documents"], 1);
  EXPECT_EQ(from_file["runs"][0]["data"]["sha256"], from_stdin["runs"][0]["data"]["sha256"]);
  EXPECT_EQ(from_file["runs"][0]["variants"][0]["nll"], from_stdin["runs"][0]["variants"][0]["nll"]);
  EXPECT_EQ(from_file["runs"][0]["variants"][0]["nll"], piped["runs"][0]["variants"][0]["nll"]);

  const json both = eval("--text " + quoted(a) + " --text " + quoted(b) + rest);
  const json second = eval("--text " + quoted(b) + rest);
  const json& run = both["runs"][0];
  EXPECT_EQ(run["data"]["documents"], 2);
  ASSERT_EQ(run["subsets"].size(), 2U);
  EXPECT_EQ(run["subsets"][0]["name"], a);
  EXPECT_EQ(run["subsets"][0]["variants"][0]["nll"], from_file["runs"][0]["variants"][0]["nll"]);
  EXPECT_EQ(run["windows"].get<int>(),
            from_file["runs"][0]["windows"].get<int>() + second["runs"][0]["windows"].get<int>());
  const auto sum = [](const json& r) {
    return r["runs"][0]["variants"][0]["nll"].get<double>() * r["runs"][0]["variants"][0]["tokens"].get<double>();
  };
  EXPECT_NEAR(sum(both), sum(from_file) + sum(second), 1e-9 * sum(both));
}

TEST(Eval, DataSetsUseTheDocumentProtocol) {
  const Folder folder;
  const std::string data = folder.file("data.jsonl",
                                       "{\"text\": \"Alice was beginning to get very tired.\", \"meta\": "
                                       "{\"pile_set_name\": \"Books\"}}\n"
                                       "{\"text\": \"\"}\n"
                                       "{\"text\": \"The Time Traveller smiled round at us.\", \"meta\": "
                                       "{\"pile_set_name\": \"Time\"}}\n");
  const json by_default = eval("--data " + quoted(data) + " --mx mlp=mxfp4");
  EXPECT_EQ(timeless(by_default), timeless(eval("--data " + quoted(data) + " --protocol document --mx mlp=mxfp4")));
  const json& run = by_default["runs"][0];
  EXPECT_EQ(run["protocol"]["name"], "document");
  EXPECT_EQ(run["protocol"]["context"], 512);
  EXPECT_EQ(run["protocol"]["skipped_documents"], 1);
  EXPECT_EQ(run["data"]["documents"], 3);
  EXPECT_EQ(run["windows"], 2);
  EXPECT_EQ(eval("--data " + quoted(data) + " --max-samples 1 --no-variants")["runs"][0]["windows"], 1);
  ASSERT_EQ(run["subsets"].size(), 2U);
  EXPECT_EQ(run["subsets"][0]["name"], "Books");
  EXPECT_EQ(run["subsets"][1]["name"], "Time");
  double subset_nll = 0;
  for (const json& subset : run["subsets"]) {
    EXPECT_EQ(subset["windows"], 1);
    ASSERT_EQ(subset["variants"].size(), 2U);
    EXPECT_EQ(subset["variants"][1]["name"], "mlp=mxfp4_e2m1");
    EXPECT_GT(subset["variants"][1]["vs_baseline"]["kld_mean"], 0);
    subset_nll += subset["variants"][1]["nll"].get<double>() * subset["variants"][1]["tokens"].get<double>();
  }
  EXPECT_NEAR(subset_nll / run["variants"][1]["tokens"].get<double>(), run["variants"][1]["nll"].get<double>(), 1e-12);
  // Each document alone, as a text of one window.
  const std::string first = folder.file("first.txt", "Alice was beginning to get very tired.");
  EXPECT_EQ(eval("--data " + quoted(data) + " --max-samples 1 --no-variants")["runs"][0]["variants"][0]["nll"],
            eval("--text " + quoted(first) + " --no-variants")["runs"][0]["variants"][0]["nll"]);
}

TEST(Eval, OtherProtocolsScoreWhatTheySay) {
  const Folder folder;
  std::string wiki;
  for (int i = 0; i < 4; ++i) wiki += " \n = Alice = \n \n " + kText.substr(0, kText.size() - 1) + " \n";
  const std::string path = quoted(folder.file("wiki.raw", wiki));
  const json gptq = eval("--text " + path + " --protocol gptq --context 64 --no-variants")["runs"][0];
  EXPECT_EQ(gptq["protocol"]["name"], "gptq");
  EXPECT_GE(gptq["windows"].get<int>(), 2);
  EXPECT_EQ(gptq["variants"][0]["tokens"], gptq["windows"].get<int>() * 63);
  const json llamacpp = eval("--text " + path + " --protocol llamacpp --context 64 --no-variants")["runs"][0];
  EXPECT_EQ(llamacpp["protocol"]["name"], "llamacpp");
  EXPECT_GE(llamacpp["windows"].get<int>(), 2);
  EXPECT_EQ(llamacpp["variants"][0]["tokens"], llamacpp["windows"].get<int>() * 31);
  EXPECT_NE(llamacpp["variants"][0]["nll"], gptq["variants"][0]["nll"]);

  const json strided =
      eval("--text " + path + " --protocol hf-stride --context 64 --stride 32 --no-variants")["runs"][0];
  EXPECT_EQ(strided["protocol"]["stride"], 32);
  // Every token of gptq's stream but the first, and windows twice as often.
  EXPECT_GE(strided["windows"].get<int>(), 2 * gptq["windows"].get<int>() - 1);
  EXPECT_GE(strided["variants"][0]["tokens"].get<int>(), gptq["windows"].get<int>() * 64 - 1);
  EXPECT_LT(strided["variants"][0]["nll"].get<double>(), gptq["variants"][0]["nll"].get<double>());

  const json lmeval = eval("--text " + path + " --protocol lmeval --mx mlp=mxfp4")["runs"][0];
  EXPECT_EQ(lmeval["protocol"]["context"], 1024);  // the model's
  EXPECT_EQ(lmeval["windows"], 4);                 // pages, each in one
  for (const json& v : lmeval["variants"]) {
    EXPECT_EQ(v["bytes"].get<size_t>(), wiki.size() - 2 - 3);  // before the first title; newlines between pages
    const double nats = v["nll"].get<double>() * v["tokens"].get<double>();
    EXPECT_NEAR(v["word_perplexity"].get<double>(), std::exp(nats / v["words"].get<double>()), 1e-6);
    EXPECT_NEAR(v["bits_per_byte"].get<double>(), nats / v["bytes"].get<double>() / std::log(2.0), 1e-12);
  }

  const json self = eval("--text " + path + " --protocol self --context 48 --mx mlp=mxfp4")["runs"][0];
  EXPECT_EQ(self["windows"], 8);  // lines that are not blank
  for (const json& v : self["variants"]) {
    EXPECT_EQ(v["tokens"], 8 * 48);  // padding too
    EXPECT_EQ(v["ppl"], v["self_perplexity"]);
    EXPECT_NEAR(v["self_perplexity"].get<double>(), std::exp(v["self_nll"].get<double>()), 1e-9);
    EXPECT_GT(v["mean_entropy"].get<double>(), v["self_nll"].get<double>());  // of any distribution
  }
  EXPECT_GT(self["variants"][1]["vs_baseline"]["kld_mean"].get<double>(), 0);
  EXPECT_EQ(run_mxlm("eval --no-variants --stride 8").code, 2);
}

TEST(Eval, LoaderWorkersChangeNoDigit) {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 150; ++i) lines += json({{"text", kText.substr(static_cast<size_t>(i), 40)}}).dump() + "\n";
  const std::string data = "--data " + quoted(folder.file("data.jsonl", lines)) + " --no-variants --max-windows 90";
  const json one = timeless(eval(data + " --loader-workers 0"));
  EXPECT_EQ(timeless(eval(data + " --loader_workers 4")), one);
  EXPECT_EQ(timeless(eval(data)), one);
}

TEST(Eval, JsonInAFileLeavesTheTableOnStdout) {
  const Folder folder;
  const Outcome outcome = run_mxlm("eval" + kSmall + "--mx w4:mlp=mxfp4 --json " + quoted(folder / "out.json"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  EXPECT_THAT(outcome.out, HasSubstr("baseline"));
  EXPECT_THAT(outcome.out, HasSubstr("w4"));
  EXPECT_EQ(timeless(json::parse(slurp(folder / "out.json"))), timeless(eval(kSmall + "--mx w4:mlp=mxfp4")));
}

TEST(Eval, AModelOfNanFinishesWithNullsAndAWarning) {
  const Folder folder;
  const fs::path model = kModel;
  for (const char* name : {"config.json", "tokenizer.json"}) fs::copy_file(model / name, folder.path() / name);
  std::string bytes = slurp(model / "model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(8 + length), bytes.end(), '\xff');  // BF16 ffff is a NaN
  folder.file("model.safetensors", bytes);
  const Outcome outcome = run_mxlm("eval " + quoted(folder.path().string()) + kSmall + "--mx mlp=mxfp4 --json " +
                                   quoted(folder / "out.json"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("NaN"));
  const json result = json::parse(slurp(folder / "out.json"));
  EXPECT_EQ(result["runs"][0]["complete"], true);
  for (const json& variant : result["runs"][0]["variants"]) {
    EXPECT_EQ(variant["nonfinite"], variant["tokens"]);
    for (const char* key : {"nll", "ppl", "ppl_stderr"}) EXPECT_TRUE(variant.at(key).is_null()) << key;
  }
  const json& comparison = result["runs"][0]["variants"][1]["vs_baseline"];
  EXPECT_TRUE(comparison.is_null() || comparison["kld_mean"].is_null());
}

TEST(Eval, AnInterruptEndsItCleanlyAndWritesTheJson) {
  const Folder folder;
  const std::string out = folder / "out.json";
  // Seconds of work: every Linear in a format of its own, on the whole book.
  std::string command = "eval --quiet --threads 1 --json " + quoted(out);
  for (const char* format : {"mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8"}) {
    for (const char* key : {"", "@block=16", "@block=8", "@block=64"}) {
      command += std::string(" --mx linear=") + format + key;
    }
  }
  command += " --shard-tokens 256 --context 128 --journal " + quoted(folder / "j");
  // A shell with job control gives the program SIGINT as a terminal does.
  const Outcome outcome = run_mxlm(command + " & pid=$!; " + wait_until(a_record_in(quoted(folder / "j/rounds.mxj"))) +
                                   "kill -INT $pid; wait $pid");
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  ASSERT_TRUE(fs::exists(out)) << outcome.err;
  const json result = json::parse(slurp(out));
  EXPECT_EQ(result["runs"][0]["complete"], false);
  EXPECT_EQ(result["runs"][0]["variants"].size(), 25U);
}

}  // namespace
}  // namespace mxlm
