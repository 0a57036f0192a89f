#include "engine/logits.hpp"

#include <algorithm>

#include "base/interrupt.hpp"
#include "engine/walk.hpp"
#include "io/file.hpp"

namespace mxlm {
namespace {

constexpr int64_t kLogitsBatchTokens = 2048;
constexpr int64_t kLogitsRows = 64;  // at a time, because the logits of all windows would not fit in memory

/// Gives the hidden states at the end of each layer to the sink.
class LogitsVisitor final : public StreamingVisitor {
 public:
  LogitsVisitor(const ForwardPass& forward, Backend& backend, const LogitsSinks& sinks)
      : StreamingVisitor(backend, forward.dtype()), steps_(forward.steps()), backend_(backend), sinks_(sinks) {}

  void end_step(const WalkStep& at, const WalkState& state) override {
    StreamingVisitor::end_step(at, state);
    if (at.index + 1 == steps_.size() || steps_[at.index + 1].layer != at.step.layer) write_hidden(state);
  }

  void write_hidden(const WalkState& state) {
    if (!sinks_.hidden) return;
    for (const Tensor& tensor : state.hidden.front()) {
      values_.resize(static_cast<size_t>(tensor.rows() * tensor.cols()));
      backend_.download(tensor, values_);
      sinks_.hidden(values_);
    }
  }

 private:
  const std::vector<Step>& steps_;
  Backend& backend_;
  const LogitsSinks& sinks_;
  std::vector<float> values_;
};

}  // namespace

void hidden_and_logits(const ModelSpec& model, Backend& backend, DType compute, const ResolvedVariant& variant,
                       std::span<const std::vector<int32_t>> windows, int64_t batch_windows, const LogitsSinks& sinks) {
  const ForwardPass forward(model, backend, compute);
  WalkState state;
  for (size_t begin = 0; begin < windows.size();) {
    const auto length = std::max<int64_t>(1, static_cast<int64_t>(windows[begin].size()));
    const int64_t most = batch_windows > 0 ? batch_windows : std::max<int64_t>(1, kLogitsBatchTokens / length);
    const auto some = windows.subspan(begin, std::min(static_cast<size_t>(most), windows.size() - begin));
    const std::vector<std::span<const int32_t>> tokens(some.begin(), some.end());
    state.add(forward, tokens);
    begin += some.size();
  }
  LogitsVisitor visitor(forward, backend, sinks);
  visitor.write_hidden(state);
  walk(forward, backend, build_tree(model, {&variant, 1}), state, visitor);

  const StepLinear head = visitor.head(model, variant.head());
  std::vector<float> logits;
  for (const Tensor& tensor : state.hidden.front()) {
    for (int64_t begin = 0; begin < tensor.rows(); begin += kLogitsRows) {
      throw_if_interrupted();
      std::vector<int32_t> rows;
      for (int64_t r = begin; r < std::min(tensor.rows(), begin + kLogitsRows); ++r) {
        rows.push_back(static_cast<int32_t>(r));
      }
      const int64_t offsets[] = {0, static_cast<int64_t>(rows.size())};
      const Operand operand = forward.head_operand(tensor, rows, offsets, head);
      logits.resize(rows.size() * static_cast<size_t>(model.vocabulary));
      backend.logits(forward.head_job(operand, head), logits);
      sinks.logits(logits);
    }
  }
  FileView::throw_if_changed();
}

}  // namespace mxlm
