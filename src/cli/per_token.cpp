#include "cli/per_token.hpp"

#include "base/error.hpp"
#include "base/quote.hpp"
#include "report/per_token.hpp"

namespace mxlm::cli {

PerTokenFile::PerTokenFile(const std::string& path, size_t runs, Formulas formulas) : formulas_(formulas) {
  if (path.empty()) return;
  if (!path.ends_with(".csv")) {
    fail_usage("--per-token {} has no known extension; give a .csv file.", quote(path));
  }
  if (runs > 1) fail_usage("--per-token writes the tokens of one run, not of {}; run them one by one.", runs);
  file_.emplace(path);
}

void PerTokenFile::attach(ResolvedOptions& options) {
  if (!file_) return;
  options.on_scores = [this](const ScoredTokens& tokens) {
    try {
      write_per_token_csv(*file_, tokens.variants, tokens.windows, tokens.scores, formulas_);
    } catch (const Error&) {
      failure_ = std::current_exception();
    }
  };
}

void PerTokenFile::finish() const {
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace mxlm::cli
