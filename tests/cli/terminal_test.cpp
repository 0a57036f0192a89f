// What a terminal is given: text of files and of names, without anything that a terminal would obey.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

// A window title, a line that looks like ours, a C1 control, a mark that turns text around, a line separator.
const std::string kEvil =
    "EVIL\x1b]0;title\x07\nmxlm: error: fake\r\xc2\x9b[31m\xe2\x80\xaetxt\xe2\x80\xa8\xef\xbb\xbf";

/// The first byte of a character that must not be there, or npos.
size_t disruption(const std::string& text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  for (size_t i = 0; i < text.size(); ++i) {
    const bool c0 = byte(i) < 0x20 && text[i] != '\n';
    const bool c1 = byte(i) == 0xC2 && byte(i + 1) < 0xA0;
    const bool separator = byte(i) == 0xE2 && byte(i + 1) == 0x80 && byte(i + 2) >= 0xA8 && byte(i + 2) <= 0xAE;
    const bool isolate = byte(i) == 0xE2 && byte(i + 1) == 0x81 && byte(i + 2) >= 0xA6 && byte(i + 2) <= 0xA9;
    const bool bare = (byte(i) & 0xC0) == 0x80 && (i == 0 || byte(i - 1) < 0x80);
    if (c0 || c1 || separator || isolate || bare || byte(i) == 0x7F || byte(i) == 0xEF) return i;
  }
  return std::string::npos;
}

/// Nothing of `outcome` is obeyed, no line is forged, and the text that was to be quoted is there.
void expect_harmless(const Outcome& outcome, const std::string& what) {
  for (const std::string& text : {outcome.out, outcome.err}) {
    EXPECT_EQ(disruption(text), std::string::npos) << what << ": " << testing::PrintToString(text);
    EXPECT_THAT(text, testing::Not(HasSubstr("\nmxlm: error: fake"))) << what;
  }
  EXPECT_THAT(outcome.err + outcome.out, HasSubstr("EVIL")) << what << ": nothing is quoted";
}

json configuration() { return json::parse(slurp(kModel + "/config.json")); }

TEST(Terminal, ConfigurationsAreQuotedHarmlessly) {
  const json quark = {{"quant_method", "quark"}, {"export", json::object()}};
  const json compressed = {{"quant_method", "compressed-tensors"}, {"quantization_status", "compressed"}};
  const std::vector<std::pair<const char*, std::function<void(json&)>>> cases = {
      {"model_type", [](json& c) { c["model_type"] = kEvil; }},
      {"hidden_act", [](json& c) { c["hidden_act"] = kEvil; }},
      {"rope_type", [](json& c) { c["rope_parameters"]["rope_type"] = kEvil; }},
      {"rope_scaling",
       [](json& c) {
         c.erase("rope_parameters");
         c["rope_scaling"] = {{"rope_type", kEvil}, {"factor", 2.0}};
       }},
      {"layer_types",
       [](json& c) {
         c["model_type"] = "qwen3";
         c["layer_types"] = json(std::vector<std::string>(8, kEvil));
       }},
      {"quant_method",
       [](json& c) {
         c["quantization_config"] = {{"quant_method", kEvil}};
       }},
      {"compressed-tensors format",
       [&](json& c) {
         c["quantization_config"] = compressed;
         c["quantization_config"]["format"] = kEvil;
       }},
      {"quantization_status",
       [&](json& c) {
         c["quantization_config"] = compressed;
         c["quantization_config"]["quantization_status"] = kEvil;
       }},
      {"Quark's dtype",
       [&](json& c) {
         c["quantization_config"] = quark;
         c["quantization_config"]["global_quant_config"] = {{"weight", {{"dtype", kEvil}, {"qscheme", "per_group"}}}};
       }},
      {"ModelOpt's quant_algo",
       [](json& c) {
         c["quantization_config"] = {{"quant_method", "modelopt"}, {"quant_algo", kEvil}};
       }},
  };
  for (const auto& [what, change] : cases) {
    const Folder folder;
    fs::create_symlink(kModel + "/model.safetensors", folder / "model.safetensors");
    fs::create_symlink(kModel + "/tokenizer.json", folder / "tokenizer.json");
    json config = configuration();
    change(config);
    static_cast<void>(folder.file("config.json", config.dump()));
    const Outcome outcome = run_mxlm("inspect " + quoted(folder.path().string()));
    EXPECT_EQ(outcome.code, 1) << what;
    expect_harmless(outcome, what);
  }
}

TEST(Terminal, TokenizersAreQuotedHarmlessly) {
  const json base = {{"version", "1.0"},
                     {"added_tokens", json::array()},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", nullptr},
                     {"post_processor", nullptr},
                     {"decoder", nullptr},
                     {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}}}, {"merges", json::array()}}}};
  const json split = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Isolated"}, {"invert", false}};
  const std::vector<std::pair<const char*, std::function<void(json&)>>> cases = {
      {"model", [](json& t) { t["model"]["type"] = kEvil; }},
      {"normalizer",
       [](json& t) {
         t["normalizer"] = {{"type", kEvil}};
       }},
      {"normalizer in a sequence",
       [](json& t) {
         t["normalizer"] = {{"type", "Sequence"}, {"normalizers", json::array({json{{"type", kEvil}}})}};
       }},
      {"pre-tokenizer",
       [](json& t) {
         t["pre_tokenizer"] = {{"type", kEvil}};
       }},
      {"post-processor",
       [](json& t) {
         t["post_processor"] = {{"type", kEvil}};
       }},
      {"decoder",
       [](json& t) {
         t["decoder"] = {{"type", kEvil}};
       }},
      {"behavior",
       [&](json& t) {
         t["pre_tokenizer"] = split;
         t["pre_tokenizer"]["behavior"] = kEvil;
       }},
      {"prepend_scheme",
       [](json& t) {
         t["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\xe2\x96\x81"}, {"prepend_scheme", kEvil}};
       }},
      {"regular expression",
       [&](json& t) {
         t["pre_tokenizer"] = split;
         t["pre_tokenizer"]["pattern"]["Regex"] = kEvil + "(";
       }},
      {"property in a regular expression",
       [&](json& t) {
         t["pre_tokenizer"] = split;
         t["pre_tokenizer"]["pattern"]["Regex"] = "\\p{" + kEvil + "}";
       }},
      {"merge, as a pair",
       [](json& t) {
         t["model"]["merges"] = json::array({json::array({"a", kEvil})});
       }},
      {"merge, as a string",
       [](json& t) { t["model"]["merges"] = json::array({"a " + kEvil.substr(0, kEvil.find(' '))}); }},
      {"unk_token", [](json& t) { t["model"]["unk_token"] = kEvil; }},
      {"token of the template",
       [](json& t) {
         t["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", {{{"SpecialToken", {{"id", kEvil}, {"type_id", 0}}}}}},
                                {"pair", json::array()},
                                {"special_tokens", json::object()}};
       }},
      {"token beyond the limit", [](json& t) { t["model"]["vocab"][kEvil] = int64_t{1} << 40; }},
  };
  const Folder folder;
  const std::string text = quoted(folder.file("text.txt", "a b"));
  for (const auto& [what, change] : cases) {
    json tokenizer = base;
    change(tokenizer);
    const Outcome outcome =
        run_mxlm("tokenize " + quoted(folder.file("tokenizer.json", tokenizer.dump())) + " --text " + text);
    EXPECT_EQ(outcome.code, 1) << what;
    expect_harmless(outcome, what);
  }
  json warned = base;
  warned["added_tokens"] = {{{"id", 7},
                             {"content", kEvil},
                             {"single_word", false},
                             {"lstrip", false},
                             {"rstrip", false},
                             {"normalized", false},
                             {"special", true}}};
  const Outcome outcome =
      run_mxlm("tokenize " + quoted(folder.file("tokenizer.json", warned.dump())) + " --text " + text);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_harmless(outcome, "the warning of an added token's id");
}

TEST(Terminal, DataSetsAreQuotedHarmlessly) {
  const Folder folder;
  const json line = {{"text", "one two three four"}, {"meta", {{"pile_set_name", kEvil}}}};
  const std::string data = folder.file("d.jsonl", line.dump() + "\n");
  expect_harmless(run_mxlm("eval --data " + quoted(data + "::q")), "list of subsets");
  const Outcome outcome =
      run_mxlm("eval --data " + quoted(data) + " --context 16 --no-journal --mx mlp=mxfp4 --linear-errors");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(disruption(outcome.out + outcome.err), std::string::npos);
}

/// A safetensors file of one float32 tensor of two elements with this name.
std::string safetensors_of(const std::string& name) {
  std::string header = json{{name, {{"dtype", "F32"}, {"shape", {2}}, {"data_offsets", {0, 8}}}}}.dump();
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(header.size() >> (8 * i));
  return out + header + std::string(8, '\0');
}

TEST(Terminal, TensorsAndResultsAreQuotedHarmlessly) {
  const Folder folder;
  std::string broken = safetensors_of(kEvil);
  broken.resize(broken.size() - 4);
  expect_harmless(run_mxlm("cast " + quoted(folder.file("EVIL.safetensors", broken)) + " -o " +
                           quoted(folder / "out.safetensors") + " --format mxfp4"),
                  "tensor of a cut file");
  const std::string result = folder.file("r.json", json{{"schema", kEvil}}.dump());
  expect_harmless(run_mxlm("report " + quoted(result) + " -o -"), "schema");
  const json with_percentile = {
      {"schema", "mxlm.eval/1"},
      {"runs",
       {{{"model", json::object()},
         {"data", json::object()},
         {"protocol", json::object()},
         {"variants", {{{"name", "a"}, {"vs_baseline", {{"kld_percentiles", {{kEvil, 1}}}}}}}}}}}};
  expect_harmless(run_mxlm("report " + quoted(folder.file("p.json", with_percentile.dump())) + " -o -"),
                  "percentile's name");
  const json plan = {{"version", kEvil}};
  fs::create_directory(folder.path() / "EVIL");
  static_cast<void>(folder.file("EVIL/plan.json", plan.dump()));
  expect_harmless(run_mxlm("eval" + kSmall + "--journal " + quoted(folder / "EVIL") + " --resume"), "plan");
}

TEST(Terminal, NamesOnTheCommandLineAreQuotedHarmlessly) {
  const Folder folder;
  for (const std::string& evil : {kEvil, std::string("EVIL\x9b[31m\xff")}) {
    const std::string name = quoted(evil);
    for (const std::string& arguments : {"eval --text " + name,
                                         "eval " + name,
                                         "inspect " + name,
                                         name,
                                         "eval --" + name,
                                         "eval --mx " + name,
                                         "eval --mx " + quoted("linear=mxfp4@" + evil),
                                         "eval --data " + name,
                                         "eval --dtype " + name,
                                         "eval --bos " + name,
                                         "eval --gemm " + name,
                                         "eval --device " + name,
                                         "eval --protocol " + name,
                                         "eval --mx-format " + name,
                                         "eval --tier " + name,
                                         "eval --config " + name,
                                         "report -o x.html " + name,
                                         "report --csv " + quoted("no/" + evil) + " " + kModel + "/config.json",
                                         "cast -o x --format mxfp4 " + name,
                                         "tokenize " + name + " --text x",
                                         "models " + name,
                                         "eval --per-token " + name,
                                         "eval --log-file /dev/null/" + name,
                                         "sweep --formats " + name,
                                         "sweep --sensitivity " + name}) {
      const Outcome outcome = run_mxlm(arguments);
      EXPECT_NE(outcome.code, 0) << arguments;
      EXPECT_EQ(disruption(outcome.out + outcome.err), std::string::npos) << testing::PrintToString(outcome.err);
      EXPECT_THAT(outcome.err, testing::Not(HasSubstr("\nmxlm: error: fake"))) << arguments;
    }
  }
}

TEST(Terminal, FoldersWithSuchNamesAreShownHarmlessly) {
  const Folder folder;
  // A slash is the one byte of it that no name can hold.
  const fs::path model = folder.path() / ("m" + kEvil + "\x9b");
  fs::create_directory(model);
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
    fs::create_symlink(fs::path(kModel) / name, model / name);
  }
  expect_harmless(run_mxlm("inspect " + quoted(model.string())), "inspect");
  const std::string text = MXLM_SOURCE_DIR "/data/alice.txt";
  const Outcome outcome = run_mxlm("eval " + quoted(model.string()) + " --text " + quoted(text) +
                                   " --max-windows 4 --context 64 --shard-tokens 64 --journal " +
                                   quoted(folder / ("j" + kEvil)) + " --log-file " + quoted(folder / "log"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_harmless(outcome, "eval");
  EXPECT_EQ(disruption(slurp(folder / "log")), std::string::npos);
  // What programs read stays as it is.
  const Outcome json_outcome =
      run_mxlm("eval " + quoted(model.string()) + kSmall + "--no-journal --no-variants --json -");
  EXPECT_THAT(json::parse(json_outcome.out)["runs"][0]["model"]["name"].get<std::string>(), HasSubstr(kEvil));
}

}  // namespace
}  // namespace mxlm
