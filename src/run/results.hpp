#pragma once

// Records of a finished or interrupted evaluation. The room report writes tables, JSON, CSV and pages from them.

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

/// The costs of a run's shards, without those of the other order of float32 sums (--noise).
struct RunCosts {
  double forwards = 0;                // forward passes through the whole model; a shared step counts once
  uint64_t planned_memory_bytes = 0;  // host memory of the largest plan; 0 if all shards ran on GPUs
  std::vector<DeviceUse> devices;     // empty for the CPU
};

struct ModelInfo {
  std::string name, family, dtype, compute_dtype, revision, sha256;
  std::string adapter = {}, adapter_sha256 = {};  // of the adapter in the weights, "" = no adapter
  int64_t parameters = 0;
};

struct DataInfo {
  std::string name, sha256;
  int64_t documents = 0;
};

struct ProtocolInfo {
  std::string name;
  int64_t context = 0, stride = 0;  // stride 0 = the protocol has no stride
  std::string bos, aggregate;
  int64_t skipped_documents = 0;
};

struct ReplacedLinear {
  std::string tensor, role, weights, activations;
  std::string outputs = "none";
  std::string route = {};  // PreparedWeight::route of the weight; "" if no weight was prepared
};

/// The error of the hidden state after one step of the forward pass, against the baseline's hidden state.
struct LayerError {
  int64_t layer = 0;
  std::string part;  // "attention", "mlp", or "block" if the layer is one step
  ErrorSums sums;    // zero if the variant shares the baseline's hidden state
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
  int64_t weight_bytes_baseline = 0, weight_bytes_variant = 0;  // of all Linears
  double weight_bits_baseline = 0, weight_bits_variant = 0;     // mean bits per weight, with scales
  std::optional<SweepPoint> sweep;
  std::vector<LayerError> layers;    // one per step; empty for the baseline
  std::vector<LinearError> linears;  // --linear-errors: of the replaced Linears
  // --noise: the absolute change of a figure under one other order of float32 sums.
  bool noise_measured = false;
  double noise_nll = 0;   // of mean NLL
  double noise_kld = 0;   // of mean KL divergence; 0 for the baseline
  double noise_top1 = 0;  // of top-1 agreement, a fraction; 0 for the baseline
  NoiseFigures noise;
};

/// The clusters that error bars take as independent observations.
struct ClusterCount {
  std::string kind;  // see Clusters::kind
  int64_t number = 0;
};

/// The figures of the windows whose documents name this subset, with variants in the order of the run.
struct SubsetResult {
  std::string name;
  int64_t windows = 0;
  ClusterCount clusters = {};
  std::vector<VariantFigures> variants;
};

/// With more variants than this, only the pairs of neighbours() are compared, because all k (k - 1) / 2 are too many.
constexpr size_t kPairVariants = 32;

struct RunResult {
  ModelInfo model;
  DataInfo data;
  ProtocolInfo protocol;
  std::string command;
  bool complete = true;
  std::string stopped;          // the reason, as a sentence, if anything but an interrupt ended the run early
  std::string journal_folder;   // "" = no journal; commands remove an automatic journal once nothing needs it
  std::string journal_failure;  // why the journal lacks shards; "" = it lacks none
  int64_t windows = 0;
  ClusterCount clusters;
  uint64_t peak_memory_bytes = 0;
  uint64_t planned_memory_bytes = 0;  // the plan's estimate of the peak; 0 if the work is on GPUs
  double seconds_total = 0, seconds_load = 0, seconds_tokenize = 0;
  double seconds_rounds = 0;                          // from the start of the first shard to the end of the last
  std::vector<std::vector<double>> seconds_by_round;  // [worker][i]: of the i-th shard that the worker finished
  std::vector<VariantResult> variants;                // variants[0] is the baseline
  std::vector<SubsetResult> subsets;                  // empty unless documents carry subset names
  std::vector<PairFigures> pairs;                     // pairs of variants[1...]
  // --linear-errors, --exponents
  std::vector<LinearExponents> exponents;
  int64_t studied_windows = 0, studied_tokens = 0;
  std::vector<DeviceUse> devices;          // empty for the CPU
  int ranks = 1;                           // processes under mpirun that shared the shards
  std::optional<double> joules_per_token;  // of all devices / (positions x variants)
  std::string gemm_route = "exact";        // the value of --gemm
  RouteCounts gemm_counts;                 // how many products and rows took which path
  double forwards = 0;                     // see RunCosts::forwards
};

/// The runs of one command on one machine.
struct EvalResult {
  MachineInfo machine;
  std::vector<RunResult> runs;
};

}  // namespace mxlm
