#pragma once

// Sums for figures: the compensated sum, and sums by cluster, which give errors.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace mxlm {

/// Neumaier's compensated sum, whose error stays at the last bit for any number of terms.
class Sum {
 public:
  void add(double x) {
    const double total = total_ + x;
    rest_ += std::abs(total_) >= std::abs(x) ? (total_ - total) + x : (x - total) + total_;
    total_ = total;
  }
  [[nodiscard]] double value() const { return total_ + rest_; }

 private:
  double total_ = 0, rest_ = 0;
};

/// Collects sums by cluster for the cluster-robust error of a ratio of sums, sum_c S_c / sum_c n_c. A weighted mean is
/// such a ratio.
class ClusterSums {
 public:
  explicit ClusterSums(size_t clusters) : clusters_(clusters) {}

  /// Adds `sum` to the numerator and `weight` to the denominator of a cluster.
  void add(size_t cluster, double sum, double weight) {
    clusters_[cluster].sum.add(sum);
    clusters_[cluster].weight.add(weight);
    clusters_[cluster].used = true;
  }

  /// The error sqrt(C / (C - 1) sum_c (S_c - n_c ratio)^2) / sum_c n_c over the C clusters that add() was called for;
  /// NaN for fewer than two clusters.
  [[nodiscard]] double error(double ratio) const {
    Sum squares, weight;
    size_t used = 0;
    for (const Cluster& c : clusters_) {
      if (!c.used) continue;
      ++used;
      const double deviation = c.sum.value() - c.weight.value() * ratio;
      squares.add(deviation * deviation);
      weight.add(c.weight.value());
    }
    if (used < 2) return std::numeric_limits<double>::quiet_NaN();
    const auto count = static_cast<double>(used);
    return std::sqrt(count / (count - 1) * squares.value()) / weight.value();
  }

 private:
  struct Cluster {
    Sum sum, weight;
    bool used = false;
  };
  std::vector<Cluster> clusters_;
};

}  // namespace mxlm
