#include "engine/round.hpp"

namespace mxlm {

double RunScores::tokens_per_second(size_t variant) const {
  double sum = 0;
  for (const WorkerReport& worker : workers) {
    if (worker.rounds == 0) continue;
    const double took = worker.seconds[variant].forward + worker.seconds[variant].head;
    if (took > 0) sum += static_cast<double>(worker.positions) / took;
  }
  return sum;
}

}  // namespace mxlm
