#pragma once

// The place of a variant in a sweep, for reports.

#include <string>

namespace mxlm {

/// The values of a variant on the axes of a sweep.
struct SweepPoint {
  std::string format;  // "mxfp4_e2m1", "mxfp4_e2m1/mxfp8_e4m3", "mxfp4_e2m1/none"
  int block = 0, scale_bits = 0;
  std::string rule, round;
  std::string roles;  // targets joined by commas
  std::string unit;   // the Linear, role or layer of a sensitivity scan; else empty
  // rate_points sets the members from here on.
  double bits_saved = 0;   // mean bits saved for each weight of all Linears, compared with the stored dtype
  double kld_per_bit = 0;  // mean KL divergence / bits_saved; NaN if no bits are saved
  bool pareto = false;     // no other variant has at most this KL divergence with at most as many bits
};

}  // namespace mxlm
