#pragma once

// Records of a finished (or interrupted) evaluation; the report room turns them into a table and JSON.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "devices/records.hpp"
#include "engine/quantization_error.hpp"
#include "statistics/noise.hpp"
#include "statistics/statistics.hpp"
#include "variants/sweep_point.hpp"

namespace mxlm {

/// What the rounds of a run took, in the usual order of float32 sums.
struct RunCosts {
  double forwards = 0;                // forward passes, in whole models: shared prefixes count once
  uint64_t planned_memory_bytes = 0;  // on the host, of the largest plan; 0 where all ran on devices
  std::vector<DeviceUse> devices;     // empty for the CPU
};

struct ModelInfo {
  std::string name, family, dtype, compute_dtype, revision, sha256;
  std::string adapter = {}, adapter_sha256 = {};  // folder and hash of what was merged into the weights, "" = nothing
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
  std::string route = {};  // PreparedWeight::route of its weight; "" where there is none, or it was never made
};

/// Error of the hidden state against the baseline's after one step of the forward pass.
struct LayerError {
  int64_t layer = 0;
  std::string part;  // "attention", "mlp", or "block" where a layer is one step
  ErrorSums sums;    // zero where the variant shares the baseline's state
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
  double weight_bits_baseline = 0, weight_bits_variant = 0;     // mean bits a weight of them, scales included
  std::optional<SweepPoint> sweep;
  std::vector<LayerError> layers;    // one a step; empty for the baseline
  std::vector<LinearError> linears;  // --linear-errors: of what is replaced
  // --noise: |difference| under another order of float32 sums, once
  bool noise_measured = false;
  double noise_nll = 0;   // of mean NLL
  double noise_kld = 0;   // of mean KL divergence; 0 for the baseline
  double noise_top1 = 0;  // of top-1 agreement, a fraction; 0 for the baseline
  NoiseFigures noise;
};

/// What errors take for independent.
struct ClusterCount {
  std::string kind;  // as Clusters::kind
  int64_t number = 0;
};

/// Figures of the windows whose documents carry one subset name, variants in the run's order.
struct SubsetResult {
  std::string name;
  int64_t windows = 0;
  ClusterCount clusters = {};
  std::vector<VariantFigures> variants;
};

/// Above this many variants not all of their k (k - 1) / 2 pairs are compared; see neighbours().
constexpr size_t kPairVariants = 32;

struct RunResult {
  ModelInfo model;
  DataInfo data;
  ProtocolInfo protocol;
  std::string command;
  bool complete = true;
  std::string stopped;          // a sentence: what ended an incomplete run other than an interrupt, else ""
  std::string journal_folder;   // where it is, or was, if there is one
  std::string journal_failure;  // why it misses rounds, if it does
  int64_t windows = 0;
  ClusterCount clusters;
  uint64_t peak_memory_bytes = 0;
  uint64_t planned_memory_bytes = 0;  // what the plan expected of it; 0 where the work is on GPUs
  double seconds_total = 0, seconds_load = 0, seconds_tokenize = 0;
  double seconds_rounds = 0;                          // from the first round's start to the last one's end
  std::vector<std::vector<double>> seconds_by_round;  // [worker][i]: of the i-th round that it finished
  std::vector<VariantResult> variants;                // variants[0] is the baseline
  std::vector<SubsetResult> subsets;                  // empty unless documents carry subset names
  std::vector<PairFigures> pairs;                     // of variants[1...] among each other
  // --linear-errors, --exponents
  std::vector<LinearExponents> exponents;
  int64_t studied_windows = 0, studied_tokens = 0;
  std::vector<DeviceUse> devices;          // empty for the CPU
  int ranks = 1;                           // processes under mpirun that shared the rounds
  std::optional<double> joules_per_token;  // of all devices / (positions x variants)
  std::string gemm_route = "exact";        // what --gemm asked for
  RouteCounts gemm_counts;                 // what became of it
  double forwards = 0;  // work of all variants in forward passes: those that share steps share their cost
};

struct EvalResult {
  MachineInfo machine;
  std::vector<RunResult> runs;
};

}  // namespace mxlm
