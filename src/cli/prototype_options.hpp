#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "eval/devices.hpp"
#include "eval/variant.hpp"

namespace mxlm::cli {

/// The stages of the Python prototype, as they were typed.
struct StageArguments {
  bool full_pipeline = false;
  bool skip_mx = false, skip_bf16 = false, skip_bfp16 = false, skip_int8 = false, skip_fp8_emulation = false,
       skip_fp8_backend = false;
};

/// --full-pipeline, --skip-mx, --skip-bf16, --skip-bfp16, --skip-int8, --skip-nvfp8-emulation, --skip-nvfp8-backend.
void add_stage_options(CLI::App& command, StageArguments& stages);

/// The variants of the full pipeline that are no MX variants, without those that are skipped, for the Linears that
/// `targets` names; none without --full-pipeline.
std::vector<Variant> pipeline_variants(const StageArguments& stages, const std::vector<std::string>& targets);

/// How GPUs are shared; a CPU has one memory and one worker.
struct DeviceArguments {
  double min_free_ratio = 0;
  int workers_per_device = 1;
};

/// --min-free-ratio, --workers-per-device.
void add_device_options(CLI::App& command, DeviceArguments& devices);

/// The devices that --device and the rest ask for, with `threads` for the CPU. Throws Error.
DeviceSet choose_devices(const std::string& device, const std::string& gemm, const DeviceArguments& devices,
                         int threads);

/// The name of a data set in today's words: the prototype's `wikitext` is wikitext2. Splits and paths that exist stay.
std::string modern_data_name(const std::string& name);

}  // namespace mxlm::cli
