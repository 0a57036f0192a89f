// The page, the CSV and the Markdown table of a result: their figures are the JSON's, and nothing in a name is markup.
#include "report/page.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "base/error.hpp"

namespace mxlm::report {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

json against(double ln_ratio, double error, double kld) {
  return {{"ppl_ratio", std::exp(ln_ratio)},
          {"ln_ppl_ratio", ln_ratio},
          {"ln_ppl_ratio_stderr", error / 2},
          {"ln_ppl_ratio_stderr_windows", error},
          {"correlation", 0.998},
          {"kld_mean", kld},
          {"kld_stderr", kld / 80},
          {"kld_stderr_windows", kld / 40},
          {"kld_median", kld / 2},
          {"kld_max", 0.357},
          {"kld_reverse_mean", 0.0123},
          {"kld_reverse_stderr", 0.0002},
          {"kld_reverse_stderr_windows", 0.0004},
          {"jensen_shannon_mean", 0.0029},
          {"jensen_shannon_stderr", 0.0001},
          {"jensen_shannon_stderr_windows", 0.0002},
          {"kld_percentiles", {{"1", 2.5e-5}, {"50", kld / 2}, {"99.9", 0.2}}},
          {"top1_agreement", 0.9323},
          {"top1_stderr", 0.0016},
          {"top1_stderr_windows", 0.0031},
          {"top1_interval", {0.9291, 0.9354}},
          {"top1_error", 0.0032},
          {"flips",
           {{"right_to_wrong", 0.0312},
            {"right_to_wrong_stderr_windows", 0.0021},
            {"wrong_to_right", 0.0213},
            {"wrong_to_right_stderr_windows", 0.0015}}},
          {"accuracy_difference", -0.0099},
          {"accuracy_difference_stderr_windows", 0.002},
          {"delta_p_mean", -0.0012},
          {"delta_p_rms", 0.0251},
          {"delta_p_rms_stderr", 0.0002},
          {"delta_p_rms_stderr_windows", 0.0004},
          {"delta_p_percentiles", {{"50", -1e-5}}}};
}

json variant(const std::string& name, double ppl, json vs_baseline) {
  return {
      {"name", name},
      {"spec", name == "baseline" ? "" : "mlp=mxfp8_e4m3"},
      {"nll", std::log(ppl)},
      {"ppl", ppl},
      {"ppl_stderr", 0.41919},
      {"ppl_stderr_windows", 0.77938},
      {"tokens", 6138},
      {"nonfinite", 0},
      {"vs_baseline", std::move(vs_baseline)},
      {"power", {{"tokens_ppl_1_percent", 4500.5}, {"tokens_kld_1_mnat", 91000}}},
      {"tokens_per_second", 21951.2},
      {"seconds", {{"load", 0.1}, {"tokenize", 0.2}, {"prepare", 0.011}, {"forward", 0.24}, {"head", 0.039}}},
      {"replaced",
       {{{"tensor", "model.layers.0.mlp.up_proj.weight"}, {"role", "mlp"}, {"weights", "w"}, {"activations", "a"}},
        {{"tensor", "model.layers.1.mlp.up_proj.weight"}, {"role", "mlp"}, {"weights", "w"}, {"activations", "a"}},
        {{"tensor", "model.layers.3.mlp.up_proj.weight"}, {"role", "mlp"}, {"weights", "w"}, {"activations", "a"}}}},
      {"weight_bytes", {{"baseline", 13893632}, {"variant", 9700000}}}};
}

/// What the program writes today, and the optional members that some commands add.
json sample() {
  json w8 = variant("w8", 22.8613, against(0.0102227, 0.0019, 0.00984));
  w8["noise"] = {{"nll", 0.0004},    {"kld_mean", 0.0021},      {"top1_agreement", 0.001},
                 {"nll_sd", 0.0003}, {"ln_ppl_ratio_sd", 4e-4}, {"kld_sd", 1e-5},
                 {"top1_sd", 0.002}, {"floor_kld", 0.0002},     {"floor_flips", 0.011}};
  w8["weight_bits"] = {{"baseline", 16.0}, {"variant", 8.25}};
  w8["layers"] = {{{"layer", 0}, {"part", "attention"}, {"sqnr_db", 41.25}, {"cosine", 0.9999}},
                  {{"layer", 0}, {"part", "mlp"}, {"sqnr_db", 30.5}, {"cosine", 0.999}}};
  w8["linears"] = {{{"tensor", "model.layers.0.mlp.up_proj.weight"},
                    {"role", "mlp"},
                    {"weight",
                     {{"sqnr_db", 31.5},
                      {"cosine", 0.9997},
                      {"saturated", 0.00012},
                      {"flushed", 0.021},
                      {"subnormal", 0.13},
                      {"spread", {{"mean", 2.5}, {"max", 7}}}}},
                    {"activation", nullptr},
                    {"output_sqnr_db", 28.75},
                    {"output_cosine", 0.9991}}};
  json base = variant("baseline", 22.6288, nullptr);
  base["noise"] = w8["noise"];
  base["replaced"] = json::array();
  base["weight_bits"] = {{"baseline", 16.0}, {"variant", 16.0}};
  json w4 = variant("w4", 26.7, against(0.1656, 0.006, 0.183));
  w4["weight_bits"] = {{"baseline", 16.0}, {"variant", 4.25}};
  json subset = {{"name", "ArXiv"},
                 {"windows", 3},
                 {"clusters", {{"kind", "window"}, {"number", 3}}},
                 {"variants", {base, w8, w4}}};
  return {{"schema", "mxlm.eval/1"},
          {"version", "0.1.0"},
          {"machine",
           {{"cpu", "a cpu"},
            {"backend", "cpu"},
            {"os", "an os"},
            {"cores", 4},
            {"threads", 2},
            {"memory_bytes", 25276063744}}},
          {"runs",
           {{{"model",
              {{"name", "booklet-7m"},
               {"family", "llama"},
               {"parameters", 6951168},
               {"dtype", "BF16"},
               {"compute_dtype", "bfloat16"},
               {"revision", "main"},
               {"sha256", "4b35"}}},
             {"data", {{"name", "alice.txt"}, {"documents", 1}, {"sha256", "ce36"}}},
             {"command", "mxlm eval --text 'a b.txt'"},
             {"complete", true},
             {"peak_memory_bytes", 66912256},
             {"protocol",
              {{"name", "window"},
               {"context", 1024},
               {"bos", "template"},
               {"aggregate", "token mean"},
               {"skipped_documents", 2}}},
             {"windows", 6},
             {"clusters", {{"kind", "window"}, {"number", 42}}},
             {"seconds", {{"total", 1.25}, {"load", 0.1}, {"tokenize", 0.2}}},
             {"subsets", {subset}},
             {"variants", {base, w8, w4}},
             {"exponents",
              {{{"tensor", "t"},
                {"role", "mlp"},
                {"weight", {{"first", -3}, {"zeros", 5}, {"counts", {1, 20, 300, 7}}}},
                {"activation", {{"first", -1}, {"zeros", 0}, {"counts", {2, 3}}}}}}},
             {"pairs",
              {{{"a", "w8"},
                {"b", "w4"},
                {"ln_ppl_ratio", 0.15538},
                {"ln_ppl_ratio_stderr", 0.0025},
                {"ln_ppl_ratio_stderr_windows", 0.005},
                {"kld_difference", 0.17316},
                {"kld_difference_stderr", 0.002},
                {"kld_difference_stderr_windows", 0.004}}}}}}}};
}

Record read(const json& result, const std::string& name = "result.json") {
  Record record;
  add_json(record, name, result.dump());
  return record;
}

struct Shown {
  std::string pointer, value, text;
};

/// The elements of the page that say which member they show. `text` is what follows the tag, up to the next one.
std::vector<Shown> figures(const std::string& html) {
  static const std::regex element(R"re(<[a-z]+[^<>]* data-j="0:([^"]*)"(?: data-v="([^"]*)")?[^<>]*>([^<]*))re");
  std::vector<Shown> out;
  for (auto at = std::sregex_iterator(html.begin(), html.end(), element); at != std::sregex_iterator(); ++at) {
    out.push_back({(*at)[1], (*at)[2], (*at)[3]});
  }
  return out;
}

/// The number that a reader sees, and half a unit of its last digit.
std::optional<std::pair<double, double>> seen(std::string text) {
  if (const size_t at = text.find("\u2212"); at != std::string::npos) {
    text[at] = '-';
    text.erase(at + 1, 2);  // the other bytes of the minus sign
  }
  std::erase(text, ',');
  if (const size_t at = text.find("± "); at != std::string::npos) text.erase(0, at + 3);
  static const std::regex number(R"(^([+-]?\d+(?:\.(\d+))?)(?:e([+-]?\d+))?)");
  std::smatch match;
  if (!std::regex_search(text, match, number)) return std::nullopt;
  const double exponent = match[3].matched ? std::stod(match[3]) : 0;
  const double unit = std::pow(10.0, exponent - static_cast<double>(match[2].length()));
  return std::pair(std::stod(match[0]), 0.5 * unit);
}

TEST(Page, EveryFigureIsTheJsons) {
  const json result = sample();
  const std::vector<Shown> shown = figures(render_html(read(result)));
  std::set<std::string> pointers;
  for (const Shown& s : shown) {
    const json& member = result.at(json::json_pointer(s.pointer));
    ASSERT_TRUE(member.is_number()) << s.pointer;
    EXPECT_EQ(std::stod(s.value), member.get<double>()) << s.pointer;
    pointers.insert(s.pointer);
  }
  EXPECT_GT(shown.size(), 100U);
  for (const char* v : {"1", "2"}) {
    for (const char* member :
         {"ppl", "ppl_stderr_windows", "vs_baseline/ppl_ratio", "vs_baseline/ln_ppl_ratio_stderr_windows",
          "vs_baseline/kld_mean", "vs_baseline/kld_stderr_windows", "vs_baseline/top1_error",
          "vs_baseline/flips/right_to_wrong", "vs_baseline/top1_agreement", "vs_baseline/kld_percentiles/99.9",
          "vs_baseline/kld_reverse_mean", "vs_baseline/jensen_shannon_stderr_windows", "vs_baseline/delta_p_rms",
          "weight_bits/variant", "weight_bytes/variant", "tokens_per_second", "seconds/forward"}) {
      EXPECT_TRUE(pointers.contains(fmt::format("/runs/0/variants/{}/{}", v, member))) << v << " " << member;
    }
  }
  for (const char* pointer :
       {"/runs/0/variants/0/ppl", "/runs/0/variants/0/noise/floor_kld", "/runs/0/variants/1/layers/1/sqnr_db",
        "/runs/0/variants/1/linears/0/output_sqnr_db", "/runs/0/variants/1/linears/0/weight/flushed",
        "/runs/0/exponents/0/weight/zeros", "/runs/0/subsets/0/variants/2/vs_baseline/ppl_ratio",
        "/runs/0/subsets/0/windows", "/runs/0/pairs/0/ln_ppl_ratio", "/runs/0/pairs/0/kld_difference_stderr_windows",
        "/runs/0/peak_memory_bytes"}) {
    EXPECT_TRUE(pointers.contains(pointer)) << pointer;
  }
}

// What is read is the figure in the unit of its column, rounded: computed here from the JSON alone.
TEST(Page, WhatIsReadIsTheFigureRounded) {
  const json result = sample();
  size_t compared = 0;
  for (const Shown& s : figures(render_html(read(result)))) {
    const auto text = seen(s.text);
    if (!text) continue;
    const json& member = result.at(json::json_pointer(s.pointer));
    const json& figures = result.at(json::json_pointer(s.pointer.substr(0, s.pointer.find("/vs_baseline"))));
    const auto ends = [&](const char* end) { return s.pointer.ends_with(end); };
    double expected = member.get<double>();
    if (ends("vs_baseline/ppl_ratio")) {
      expected = (expected - 1) * 100;
    } else if (ends("vs_baseline/ln_ppl_ratio_stderr_windows")) {
      expected *= 100 * figures["vs_baseline"]["ppl_ratio"].get<double>();
    } else if (s.pointer.find("/pairs/") != std::string::npos || s.pointer.find("/kld_") != std::string::npos ||
               s.pointer.find("/jensen_shannon_") != std::string::npos || ends("floor_kld")) {
      expected *= 1000;
    } else if (s.pointer.find("top1") != std::string::npos || s.pointer.find("flips") != std::string::npos ||
               s.pointer.find("delta_p") != std::string::npos || ends("flushed") || ends("saturated") ||
               ends("subnormal")) {
      expected *= 100;
    } else if (s.pointer.find("bytes") != std::string::npos) {
      expected /= 1e6;
    }
    double unit = text->second;
    // Three digits of a large number, as "22,000", end in zeros.
    if (ends("tokens_per_second")) unit = 50;
    EXPECT_NEAR(text->first, expected, unit * (1 + 1e-9)) << s.pointer << ": " << s.text;
    ++compared;
  }
  EXPECT_GT(compared, 80U);
}

/// Gives every string of `node` the value `text`, but for those that have to be what they are.
void fill_strings(json& node, const std::string& text) {
  for (auto& [key, value] : node.items()) {
    if (value.is_string() && key != "schema") value = text;
    if (value.is_structured()) fill_strings(value, text);
  }
}

TEST(Page, NamesAreNeverMarkup) {
  const std::set<std::string> known{
      "!DOCTYPE", "html",  "head",    "meta",    "title",   "style",     "body", "main", "p",     "h1",
      "h2",       "h3",    "section", "ul",      "li",      "b",         "span", "div",  "table", "tr",
      "th",       "td",    "a",       "caption", "thead",   "tbody",     "svg",  "desc", "g",     "path",
      "text",     "rect",  "circle",  "figure",  "dl",      "dt",        "dd",   "br",   "wbr",   "pre",
      "code",     "small", "script",  "details", "summary", "figcaption"};
  for (const std::string attack :
       {"<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)",
        "</style><svg onload=x>", "</script><b>", "<!--", "&lt;img&gt;", "a,b=<i>/c@\"x\""}) {
    json result = sample();
    fill_strings(result, attack);
    result["runs"].push_back(result["runs"][0]);
    const std::string html = render_html(read(result, attack));
    const size_t end = html.find("<script>");
    ASSERT_NE(end, std::string::npos);
    EXPECT_EQ(html.find("<script", end + 1), std::string::npos);
    EXPECT_EQ(html.find("<img"), std::string::npos);
    const std::string body = html.substr(html.find("<body>"), end - html.find("<body>"));
    // Outside tags and inside the quotes of attributes there is no '<'; attributes are all of our own.
    static const std::regex tag(R"re(<(/?)([A-Za-z!0-9]+)((?: [a-z0-9A-Z-]+="[^"<>]*")*)/?>)re");
    static const std::regex attribute(R"re( ([a-z0-9A-Z-]+)="[^"]*")re");
    size_t tags = 0;
    for (auto at = std::sregex_iterator(body.begin(), body.end(), tag); at != std::sregex_iterator(); ++at, ++tags) {
      EXPECT_TRUE(known.contains((*at)[2])) << (*at)[0];
      const std::string attributes = (*at)[3];
      for (auto one = std::sregex_iterator(attributes.begin(), attributes.end(), attribute);
           one != std::sregex_iterator(); ++one) {
        EXPECT_FALSE((*one)[1].str().starts_with("on")) << attributes;
      }
    }
    EXPECT_EQ(tags, static_cast<size_t>(std::count(body.begin(), body.end(), '<'))) << attack;
    EXPECT_GT(tags, 500U);
  }
}

TEST(Page, AllowsNothingButItsOwnStyleAndScript) {
  const std::string html = render_html(read(sample()));
  static const std::regex policy(
      "content=\"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; script-src "
      "'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; form-action 'none'\"");
  EXPECT_TRUE(std::regex_search(html, policy));
  EXPECT_LT(html.find("Content-Security-Policy"), html.find("<style>"));
  EXPECT_THAT(html, Not(HasSubstr(" style=")));
  EXPECT_THAT(html, Not(HasSubstr("http://")));
  EXPECT_THAT(html, Not(HasSubstr("https://")));
}

TEST(Page, SaysWhatChangedAndWhetherThatIsChance) {
  json result = sample();
  const std::string two = render_html(read(result));
  EXPECT_THAT(two, HasSubstr("Of 2 variants, 1 is like the baseline and 1 is visible by KL divergence; all raise "
                             "perplexity significantly."));
  EXPECT_THAT(two, HasSubstr("(z = +5.4, significant)"));  // 0.0102227 / 0.0019
  EXPECT_THAT(
      two, HasSubstr("mlp.up_proj.weight</td><td>mlp</td><td>w</td><td>a</td><td class=\"n\">3</td><td>0–1, 3</td>"));

  json& variants = result["runs"][0]["variants"];
  result["runs"][0].erase("subsets");
  variants.erase(2);
  variants[1]["vs_baseline"]["ln_ppl_ratio_stderr_windows"] = 0.0045;  // z = 2.3
  EXPECT_THAT(render_html(read(result)), HasSubstr(", on the border of chance."));
  variants[1]["vs_baseline"]["ln_ppl_ratio_stderr_windows"] = 0.02;
  EXPECT_THAT(render_html(read(result)),
              HasSubstr("The variant is like the baseline: perplexity does not change by more than its error."));
  variants[1]["vs_baseline"]["ln_ppl_ratio_stderr_windows"] = 0.0019;
  variants[1]["noise"]["ln_ppl_ratio_sd"] = 0.006;
  EXPECT_THAT(render_html(read(result)), HasSubstr("no more than the rounding noise"));
  variants[1]["vs_baseline"]["kld_mean"] = 0.0003;  // the floor is 0.0002
  EXPECT_THAT(render_html(read(result)), HasSubstr("The variant is no more than rounding: "));
  variants[1]["vs_baseline"] = against(-0.0102227, 0.0019, 0.6);
  variants[1].erase("noise");
  EXPECT_THAT(render_html(read(result)), HasSubstr("The variant is broken: perplexity falls, by "));
  // Of three windows chance alone gives 5.4 errors in one of 31 runs.
  result["runs"][0]["clusters"]["number"] = 3;
  EXPECT_THAT(render_html(read(result)), HasSubstr("on the border of chance"));
  EXPECT_THAT(render_html(read(result)), HasSubstr("So few (under 8)"));
}

TEST(Page, OfAnOldOrInterruptedResult) {
  json result = sample();
  json& run = result["runs"][0];
  for (const char* key :
       {"subsets", "exponents", "pairs", "seconds", "peak_memory_bytes", "command", "complete", "clusters"}) {
    run.erase(key);
  }
  for (json& v : run["variants"]) {
    for (const char* key : {"weight_bits", "layers", "linears", "noise", "seconds", "replaced"}) v.erase(key);
  }
  const std::string old = render_html(read(result));
  EXPECT_THAT(old, HasSubstr("weights, MB"));
  EXPECT_THAT(old, HasSubstr("takes tokens as independent"));
  EXPECT_THAT(old, HasSubstr("variants/1/vs_baseline/ln_ppl_ratio_stderr\""));
  EXPECT_THAT(old, Not(HasSubstr("Error by layer")));
  EXPECT_THAT(old, Not(HasSubstr("nan")));

  run["variants"][1]["ppl"] = nullptr;
  run["variants"][1]["nonfinite"] = 12;
  run["variants"][1]["vs_baseline"]["ppl_ratio"] = nullptr;
  run["variants"][1]["vs_baseline"]["ln_ppl_ratio"] = nullptr;
  const std::string broken = render_html(read(result));
  EXPECT_THAT(broken, HasSubstr("12 of 6,138 tokens have NaN or infinite logits"));
  EXPECT_THAT(broken, HasSubstr("1 raises perplexity significantly and 1 has no finite figures"));

  run["complete"] = false;
  EXPECT_THAT(render_html(read(result)), HasSubstr("These figures are of 6 windows only."));
  run["variants"] = json::array();
  EXPECT_THAT(render_html(read(result)), HasSubstr("Nothing was scored."));
  result["runs"] = json::array();
  EXPECT_THAT(render_html(read(result)), HasSubstr("No runs"));
}

TEST(Page, SeveralResultsHaveAnOverview) {
  Record record = read(sample(), "a.json");
  add_json(record, "b.json", sample().dump());
  const std::string html = render_html(record);
  EXPECT_THAT(html, HasSubstr("<h1>2 runs in MX formats</h1>"));
  EXPECT_THAT(html, HasSubstr("href=\"#run-1-0\""));
  EXPECT_THAT(html, HasSubstr("id=\"run-1-0\""));
  EXPECT_THAT(html, HasSubstr("data-j=\"1:/runs/0/variants/2/ppl\""));
  EXPECT_THAT(html, HasSubstr("b.json"));
}

TEST(Csv, HasEveryScalarExactly) {
  json result = sample();
  result["runs"][0]["model"]["name"] = "a \"quoted\", name\nof two lines";
  const std::string csv = render_csv(read(result));
  // RFC 4180, read back.
  std::vector<std::vector<std::string>> rows(1, std::vector<std::string>(1));
  bool quoted = false;
  for (size_t i = 0; i < csv.size(); ++i) {
    std::string& field = rows.back().back();
    if (quoted && csv[i] == '"' && csv[i + 1] == '"') {
      field += csv[i++];
    } else if (csv[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && csv[i] == ',') {
      rows.back().emplace_back();
    } else if (!quoted && csv.substr(i, 2) == "\r\n") {
      ++i;
      rows.emplace_back(1);
    } else {
      field += csv[i];
    }
  }
  ASSERT_EQ(rows.size(), 5U);  // the head, three variants, nothing after the last line
  const auto value = [&](size_t row, const std::string& column) {
    const auto at = std::find(rows[0].begin(), rows[0].end(), column);
    EXPECT_NE(at, rows[0].end()) << column;
    EXPECT_EQ(rows[row].size(), rows[0].size());
    return rows[row].at(static_cast<size_t>(at - rows[0].begin()));
  };
  EXPECT_EQ(value(1, "model"), "a \"quoted\", name\nof two lines");
  EXPECT_EQ(value(1, "ppl_ratio"), "");
  EXPECT_EQ(value(3, "command"), "mxlm eval --text 'a b.txt'");
  const json& v = result["runs"][0]["variants"][1];
  for (const auto& [column, pointer] : std::vector<std::pair<std::string, std::string>>{
           {"nll", "/nll"},
           {"ppl", "/ppl"},
           {"ppl_stderr", "/ppl_stderr"},
           {"ppl_stderr_windows", "/ppl_stderr_windows"},
           {"tokens", "/tokens"},
           {"ppl_ratio", "/vs_baseline/ppl_ratio"},
           {"ln_ppl_ratio", "/vs_baseline/ln_ppl_ratio"},
           {"ln_ppl_ratio_stderr", "/vs_baseline/ln_ppl_ratio_stderr"},
           {"ln_ppl_ratio_stderr_windows", "/vs_baseline/ln_ppl_ratio_stderr_windows"},
           {"kld_stderr_windows", "/vs_baseline/kld_stderr_windows"},
           {"right_to_wrong", "/vs_baseline/flips/right_to_wrong"},
           {"accuracy_difference", "/vs_baseline/accuracy_difference"},
           {"noise_kld_sd", "/noise/kld_sd"},
           {"noise_floor_kld", "/noise/floor_kld"},
           {"power_tokens_ppl_1_percent", "/power/tokens_ppl_1_percent"},
           {"kld_mean", "/vs_baseline/kld_mean"},
           {"kld_percentile_99.9", "/vs_baseline/kld_percentiles/99.9"},
           {"top1_agreement", "/vs_baseline/top1_agreement"},
           {"delta_p_rms", "/vs_baseline/delta_p_rms"},
           {"delta_p_percentile_50", "/vs_baseline/delta_p_percentiles/50"},
           {"noise_kld_mean", "/noise/kld_mean"},
           {"weight_bits_variant", "/weight_bits/variant"},
           {"weight_bytes_variant", "/weight_bytes/variant"},
           {"seconds_head", "/seconds/head"}}) {
    EXPECT_EQ(std::stod(value(2, column)), v.at(json::json_pointer(pointer)).get<double>()) << column;
  }
}

TEST(Csv, ALongCommandStandsOnce) {
  json result = sample();
  result["runs"][0]["command"] = std::string(5000, 'x');
  const std::string csv = render_csv(read(result));
  const size_t first = csv.find(std::string(5000, 'x'));
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(csv.find(std::string(100, 'x'), first + 5000), std::string::npos);
}

TEST(Csv, FormulasAreInert) {
  json result = sample();
  result["runs"][0]["model"]["name"] = "=HYPERLINK(1)";
  result["runs"][0]["command"] = "@SUM(1+1)*cmd|'/C calc'!A0";
  const Record record = read(result);
  EXPECT_THAT(render_csv(record), HasSubstr(",'=HYPERLINK(1),"));
  EXPECT_THAT(render_csv(record), HasSubstr(",'@SUM(1+1)*cmd|'/C calc'!A0\r\n"));
  EXPECT_THAT(render_csv(record, Formulas::raw), HasSubstr(",=HYPERLINK(1),"));
}

TEST(Page, FiguresAtTheEndsOfADoubleAreReadable) {
  for (const double figure : {5e-324, 1.7e308}) {
    json result = sample();
    for (json& variant : result["runs"][0]["variants"]) {
      variant["ppl"] = variant["ppl_stderr"] = variant["tokens_per_second"] = figure;
      variant["weight_bytes"] = {{"baseline", figure}, {"variant", figure}};
      if (!variant["vs_baseline"].is_object()) continue;
      for (auto& [key, value] : variant["vs_baseline"].items()) {
        if (value.is_number()) value = figure;
      }
      for (auto& [key, value] : variant["vs_baseline"]["kld_percentiles"].items()) value = figure;
    }
    const Record record = read(result);
    for (const std::string& text : {render_html(record), render_markdown(record)}) {
      EXPECT_EQ(text.find("0000000000000000000000"), std::string::npos) << figure;
      EXPECT_EQ(text.find(">inf<"), std::string::npos) << figure;
      EXPECT_EQ(text.find(">nan<"), std::string::npos) << figure;
    }
  }
}

TEST(Page, ManySubsetsAndVariantsAreBounded) {
  json result = sample();
  json& run = result["runs"][0];
  const json variant = run["variants"][1], subset = run["subsets"][0];
  for (int i = 0; i < 600; ++i) run["variants"].push_back(variant);
  json figures = json::array();
  for (const json& v : run["variants"]) {
    json of = {{"ppl", 20.0}, {"ppl_stderr", 1.0}, {"tokens", 5}};
    of["vs_baseline"] = v["vs_baseline"];
    figures.push_back(of);
  }
  run["subsets"] = json::array();
  for (int i = 0; i < 12; ++i) run["subsets"].push_back({{"name", "s"}, {"windows", 1}, {"variants", figures}});
  const std::string html = render_html(read(result));
  EXPECT_THAT(html, HasSubstr("The first 12 subsets of 12, and 32 variants of 602; the JSON has all."));
  EXPECT_THAT(html, HasSubstr("The first 500; the JSON has all."));
  EXPECT_LT(html.size(), 6'000'000U);
}

TEST(Page, IsRefusedWhereItWouldBeTooLarge) {
  Record record = read(sample());
  const size_t size = render_html(record).size();
  record.limits.output_bytes = size;
  EXPECT_EQ(render_html(record).size(), size);
  record.limits.output_bytes = size - 1;
  EXPECT_THROW(render_html(record), Error);
  record.limits.output_bytes = render_csv(record).size() - 1;
  EXPECT_THROW(render_csv(record), Error);
}

TEST(Markdown, MakesNoLinks) {
  const auto name = [](const std::string& text) {
    json result = sample();
    result["runs"][0]["model"]["name"] = text;
    const std::string out = render_markdown(read(result));
    return out.substr(2, out.find("** on ") - 2);
  };
  EXPECT_EQ(name("https://x.org"), "https:&#8203;//x.org");
  EXPECT_EQ(name("www.x.org WWW.y"), "www&#8203;.x.org WWW&#8203;.y");
  EXPECT_EQ(name("@user"), "@&#8203;user");
  EXPECT_EQ(name("x @user/team"), "x @&#8203;user/team");
  EXPECT_EQ(name("a@b.org"), "a@&#8203;b.org");
  EXPECT_EQ(name("mailto:a@b.org"), "mailto:a@&#8203;b.org");
  EXPECT_EQ(name("a\u202eb\xc2\x9b"
                 "c\x1b"
                 "d\ne"),
            "a\uFFFDb\uFFFDc d e");
  // What makes no link stays as it is.
  EXPECT_EQ(name("org/model@main"), "org/model@main");
  EXPECT_EQ(name("v1.5: a-b"), "v1.5: a-b");
}

TEST(Markdown, IsATable) {
  json result = sample();
  result["runs"][0]["model"]["name"] = "a|b <i> *c*";
  EXPECT_EQ(render_markdown(read(result)),
            "**a\\|b &lt;i\\> \\*c\\*** on alice.txt: protocol window, context 1,024, 6 windows.\n"
            "\n"
            "| variant | PPL | ΔPPL % | z | verdict | KL mnats | top-1 % | bits a weight | tok/s |\n"
            "|---|---:|---:|---:|---|---:|---:|---:|---:|\n"
            "| baseline | 22.6 ± 0.8 |  |  |  |  |  | 16.0 | 22,000 |\n"
            "| w8 | 22.9 ± 0.8 | +1.03 ± 0.19 | +5.4 | like the baseline, significant | 9.84 ± 0.25 | 93.23 ± 0.32 | "
            "8.25 | 22,000 |\n"
            "| w4 | 26.7 ± 0.8 | +18.0 ± 0.7 | +28 | visible, significant | 183 ± 5 | 93.23 ± 0.32 | 4.25 | 22,000 |\n"
            "\n"
            "± is one standard error, for other windows of this text, from 42 windows.\n"
            "\n"
            "* w8: mlp=mxfp8\\_e4m3\n"
            "* w4: mlp=mxfp8\\_e4m3\n");
}

}  // namespace
}  // namespace mxlm::report
