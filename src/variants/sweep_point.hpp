#pragma once

#include <string>

namespace mxlm {

/// Where a variant lies in a sweep.
struct SweepPoint {
  std::string format;  // "mxfp4_e2m1", "mxfp4_e2m1/mxfp8_e4m3", "mxfp4_e2m1/none"
  int block = 0, scale_bits = 0;
  std::string rule, round;
  std::string roles;  // targets joined by commas
  std::string unit;   // of a sensitivity scan: the Linear, role or layer; else empty
  // Set by rate_points:
  double bits_saved = 0;   // mean bits a weight of all Linears, against the stored dtype
  double kld_per_bit = 0;  // mean KL divergence / bits_saved; NaN where no bits are saved
  bool pareto = false;     // nothing has at most this KL divergence with at most these bits
};

}  // namespace mxlm
