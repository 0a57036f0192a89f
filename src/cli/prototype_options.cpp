// Options that came with the Python prototype: its stages, its data sets, its way to share GPUs.

#include "cli/prototype_options.hpp"

#include <filesystem>
#include <system_error>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "eval/shorthands.hpp"

namespace mxlm::cli {

void add_stage_options(CLI::App& command, StageArguments& s) {
  command.add_flag("--full-pipeline", s.full_pipeline,
                   "Adds the prototype's other stages before the MX variants: BF16, BFP16, INT8, FP8 emulation, FP8 "
                   "backend");
  command.add_flag("--skip-mx", s.skip_mx, "No MX variants, whatever --mx-format and --tier say");
  command.add_flag("--skip-bf16", s.skip_bf16, "--full-pipeline without the BF16 cast");
  command.add_flag("--skip-bfp16", s.skip_bfp16, "--full-pipeline without BFP16, the prototype's other word for BF16");
  command.add_flag("--skip-int8", s.skip_int8, "--full-pipeline without LLM.int8");
  command.add_flag("--skip-nvfp8-emulation", s.skip_fp8_emulation, "--full-pipeline without FP8 by elements");
  command.add_flag("--skip-nvfp8-backend", s.skip_fp8_backend, "--full-pipeline without FP8 scaled by tensors");
}

std::vector<Variant> pipeline_variants(const StageArguments& s, const std::vector<std::string>& targets) {
  if (!s.full_pipeline) return {};
  std::vector<Variant> out;
  const auto add = [&](PipelineStage stage, bool skipped) {
    if (skipped) return;
    for (Variant& variant : stage_variants(stage, targets)) out.push_back(std::move(variant));
  };
  add(PipelineStage::bf16, s.skip_bf16);
  add(PipelineStage::bfp16, s.skip_bfp16);
  add(PipelineStage::int8, s.skip_int8);
  add(PipelineStage::fp8_emulation, s.skip_fp8_emulation);
  add(PipelineStage::fp8_backend, s.skip_fp8_backend);
  return out;
}

void add_device_options(CLI::App& command, DeviceArguments& d) {
  command
      .add_option(
          "--min-free-ratio", d.min_free_ratio,
          "Share of a GPU's memory, 0 to 1, that must be free for it to be used unless it is named; nothing to a CPU")
      ->check(CLI::Range(0.0, 1.0));
  command
      .add_option("--workers-per-device", d.workers_per_device,
                  "Workers a GPU; a CPU has one whatever is asked for, with --threads threads")
      ->check(CLI::Range(1, 64));
}

DeviceSet choose_devices(const std::string& device, const std::string& gemm, const DeviceArguments& devices,
                         int threads) {
  return mxlm::choose_devices({.request = DeviceRequest::parse(device),
                               .min_free_ratio = devices.min_free_ratio,
                               .workers_per_device = devices.workers_per_device,
                               .gemm = parse_gemm(gemm)},
                              threads);
}

std::string modern_data_name(const std::string& name) {
  constexpr std::string_view kOld = "wikitext";
  const std::string head = name.substr(0, name.find(':'));
  std::error_code error;
  if (head != kOld || std::filesystem::exists(name, error) || std::filesystem::exists(head, error)) return name;
  return "wikitext2" + name.substr(head.size());
}

}  // namespace mxlm::cli
