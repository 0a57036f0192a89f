// Figures of booklet-7m in float32 under hf-stride, lmeval and self, against the Hugging Face guide's loop,
// lm-evaluation-harness, and the formula in torch (tools/goldens/make_protocol_figures.py).
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "io/documents.hpp"
#include "load/load.hpp"
#include "run/evaluate.hpp"
#include "sanitized.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

/// The first bytes of a file of this repository, as a plain text.
DocumentSource first_bytes(const std::string& file, size_t bytes) {
  DocumentSource source = read_text((fs::path(MXLM_SOURCE_DIR) / file).string());
  source.documents[0].text.resize(bytes);
  return source;
}

TEST(ProtocolFigures, EqualThoseOfOtherImplementations) {
  std::ifstream file(fs::path(MXLM_TEST_DATA) / "eval/protocol_figures.json");
  const auto golden = nlohmann::json::parse(file);
  const LoadedModel model = load_model("", /*with_tokenizer=*/true);
  for (const auto& test : golden["cases"]) {
    const std::string protocol = test["protocol"];
    const int64_t context = test["context"];
    if (kSanitized && (context > 300 || test["text"] == "wiki")) continue;  // minutes there
    SCOPED_TRACE(protocol + " on " + test["text"].get<std::string>() + ", context " + std::to_string(context));
    const auto& text = golden["texts"][test["text"].get<std::string>()];
    const DocumentSource source = first_bytes(text["file"], test.value("bytes", text["bytes"].get<size_t>()));
    ResolvedOptions options;
    options.protocol.name = protocol;
    options.protocol.context = context;
    options.protocol.stride = test.value("stride", 0);
    options.asked.dtype = api::ComputeType::float32;
    const RunResult result = evaluate(model, source, options, {});
    const VariantFigures& figures = result.variants[0].figures;
    const auto& want = test["figures"];
    // As elsewhere, the mean NLL of a float32 model within 2e-6 of itself: of a word's or a byte's perplexity, its
    // logarithm.
    const auto near = [&](double got, double wanted) { EXPECT_NEAR(got, wanted, 2e-6 * std::abs(wanted)); };
    if (protocol == "hf-stride") near(figures.nll, want["nll"]);
    ASSERT_EQ(figures.rolling.has_value(), protocol == "lmeval");
    if (figures.rolling) {
      near(std::log(figures.rolling->word_perplexity), std::log(want["word_perplexity"].get<double>()));
      near(std::log(figures.rolling->byte_perplexity), std::log(want["byte_perplexity"].get<double>()));
      near(figures.rolling->bits_per_byte, want["bits_per_byte"]);
    }
    ASSERT_EQ(figures.self.has_value(), protocol == "self");
    if (figures.self) {
      EXPECT_EQ(figures.tokens, want["positions"].get<int64_t>());
      near(figures.nll, want["self_nll"]);
      near(figures.self->entropy, want["mean_entropy"]);
    }
  }
}

}  // namespace
}  // namespace mxlm
