#pragma once

// Records of a finished (or interrupted) evaluation; the report room turns them into a table and JSON.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "eval/statistics.hpp"
#include "eval/variant.hpp"

namespace mxlm {

struct MachineInfo {
  std::string cpu, backend, os;
  int cores = 0, threads = 0;
  uint64_t memory_bytes = 0;
};

struct ModelInfo {
  std::string name, family, dtype, compute_dtype, revision, sha256;
  int64_t parameters = 0;
};

struct DataInfo {
  std::string name, sha256;
  int64_t documents = 0;
};

struct ProtocolInfo {
  std::string name;
  int64_t context = 0, stride = 0;  // stride 0: the protocol has none
  std::string bos, aggregate;
  int64_t skipped_documents = 0;
};

struct ReplacedLinear {
  std::string tensor, role, weights, activations;
  std::string outputs = "none";
};

struct PhaseSeconds {
  double load = 0, tokenize = 0, prepare = 0, forward = 0, head = 0;
};

struct VariantResult {
  std::string name, spec;  // "baseline", "" for the baseline
  VariantFigures figures;
  double tokens_per_second = 0;
  PhaseSeconds seconds;
  std::vector<ReplacedLinear> replaced;
  int64_t weight_bytes_baseline = 0, weight_bytes_variant = 0;  // of the Linears of the model
  // --noise: |difference| under another order of float32 sums
  bool noise_measured = false;
  double noise_nll = 0;   // of mean NLL
  double noise_kld = 0;   // of mean KL divergence; 0 for the baseline
  double noise_top1 = 0;  // of top-1 agreement, a fraction; 0 for the baseline
};

/// Figures of the windows whose documents carry one subset name, variants in the run's order.
struct SubsetResult {
  std::string name;
  int64_t windows = 0;
  std::vector<VariantFigures> variants;
};

struct RunResult {
  ModelInfo model;
  DataInfo data;
  ProtocolInfo protocol;
  std::string command;
  bool complete = true;
  int64_t windows = 0;
  uint64_t peak_memory_bytes = 0;
  double seconds_total = 0, seconds_load = 0, seconds_tokenize = 0;
  std::vector<VariantResult> variants;  // variants[0] is the baseline
  std::vector<SubsetResult> subsets;    // empty unless documents carry subset names
};

struct EvalResult {
  MachineInfo machine;
  std::vector<RunResult> runs;
};

}  // namespace mxlm
