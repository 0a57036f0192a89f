#include "eval/linear_study.hpp"

#include <algorithm>
#include <map>

#include "base/interrupt.hpp"
#include "base/parallel.hpp"
#include "eval/observing_backend.hpp"

namespace mxlm {
namespace {

constexpr int64_t kTokens = 4096;      // windows are taken until there are so many
constexpr int64_t kBatchTokens = 512;  // of a micro-batch; two float32 products of it are held
constexpr int64_t kHeadRows = 128;     // of the LM head at once

/// What was seen of one Linear at one node of the tree.
struct Seen {
  std::optional<QuantizationError> activation;
  ErrorSums output;
  std::optional<ExponentHistogram> exponents;
};

class Study {
 public:
  Study(const ModelSpec& model, Backend& backend, DType compute, std::span<const Variant> variants,
        const LinearStudyOptions& options)
      : model_(model),
        backend_(backend),
        compute_(compute),
        variants_(variants),
        options_(options),
        pool_(options.threads > 0 ? options.threads : default_thread_count()),
        observing_(
            backend, compute,
            [this](const Operand& x, const Tensor& plain, const PreparedWeight& weight) { look(x, plain, weight); }),
        forward_(model, observing_, compute),
        tree_(build_tree(model, forward_, variants)) {
    out_.errors.resize(variants.size());
  }

  LinearStudy run(std::span<const Window> windows) {
    make_batches(windows);
    for (int64_t step = 0; step < forward_.steps(); ++step) run_step(step);
    run_head();
    return std::move(out_);
  }

 private:
  void make_batches(std::span<const Window> windows) {
    size_t begin = 0;
    while (begin < windows.size() && out_.tokens < kTokens) {
      std::vector<std::span<const int32_t>> tokens;
      int64_t count = 0;
      do {
        tokens.emplace_back(windows[begin].tokens);
        count += static_cast<int64_t>(tokens.back().size());
        ++begin;
      } while (begin < windows.size() && out_.tokens + count < kTokens &&
               count + static_cast<int64_t>(windows[begin].tokens.size()) <= kBatchTokens);
      out_.tokens += count;
      batches_.push_back(forward_.make_batch(tokens));
      hidden_.front().push_back(forward_.embed(batches_.back()));
    }
    out_.windows = static_cast<int64_t>(begin);
    model_.embedding.release();
  }

  /// Calls `use` with the source of a Linear's weight in the values that the run computes with; `arithmetic` as in
  /// ProductSpec.
  template <typename Use>
  void with_source(const LinearSpec& linear, Arithmetic arithmetic, const Use& use) {
    std::vector<std::byte> storage;
    const HostMatrix source = linear.weight.view(storage);
    if (compute_ == DType::bf16 || arithmetic == Arithmetic::bf16_rounded) {
      use(RoundedMatrix(source).view());
    } else {
      use(source);
    }
  }

  std::shared_ptr<const PreparedWeight> prepare(const LinearSpec& linear, const ProductSpec& spec) {
    std::shared_ptr<const PreparedWeight> out;
    with_source(linear, spec.arithmetic,
                [&](const HostMatrix& source) { out = backend_.prepare(source, spec.weights); });
    return out;
  }

  void run_step(int64_t step) {
    const auto& nodes = tree_.levels[static_cast<size_t>(step)];
    linears_ = forward_.step_linears(step);
    plain_weights_.assign(linears_.size(), nullptr);
    std::vector<std::vector<Tensor>> next(nodes.size());
    std::vector<size_t> children(hidden_.size(), 0);
    for (const TreeNode& node : nodes) ++children[node.parent];
    for (size_t n = 0; n < nodes.size(); ++n) {
      products_ = nodes[n].products.linears;
      is_baseline_ = std::find(nodes[n].variants.begin(), nodes[n].variants.end(), 0) != nodes[n].variants.end();
      seen_.assign(linears_.size(), {});
      which_.clear();
      StepWeights weights;
      weights.qk = nodes[n].products.qk;
      weights.pv = nodes[n].products.pv;
      const size_t prepared = forward_.prepared_linears(step);
      const auto fetch = [&](size_t l) {
        // Of experts one is held at a time.
        if (l >= prepared)
          std::fill(plain_weights_.begin() + static_cast<std::ptrdiff_t>(prepared), plain_weights_.end(), nullptr);
        auto weight = prepare(*linears_[l], products_[l]);
        which_[weight.get()] = l;
        return weight;
      };
      for (size_t l = 0; l < linears_.size(); ++l) {
        throw_if_interrupted();
        weights.linears.push_back({.weight = l < prepared ? fetch(l) : nullptr, .spec = products_[l]});
      }
      auto& parent = hidden_[nodes[n].parent];
      const bool last = --children[nodes[n].parent] == 0;
      std::vector<const Tensor*> in;
      std::vector<Tensor*> outs;
      next[n].reserve(parent.size());
      for (Tensor& state : parent) {
        in.push_back(&state);
        outs.push_back(last ? &state : &next[n].emplace_back(backend_.empty(compute_, state.rows(), state.cols())));
      }
      forward_.run(step, weights, fetch, batches_, in, outs, [](int64_t /*rows*/) { throw_if_interrupted(); });
      if (last) next[n] = std::move(parent);
      for (size_t l = 0; l < linears_.size(); ++l) record(*linears_[l], products_[l], nodes[n].variants, l);
    }
    for (const LinearSpec* linear : linears_) linear->weight.release();
    weight_errors_.clear();
    hidden_ = std::move(next);
  }

  /// The head, whose rows are taken a few at a time.
  void run_head() {
    linears_ = {&model_.head};
    plain_weights_.assign(1, nullptr);
    std::vector<std::pair<ProductSpec, size_t>> done;  // (spec, leaf) -> the first variant's figures serve the others
    for (size_t v = 0; v < variants_.size(); ++v) {
      const ProductSpec& spec = tree_.head[v];
      const bool wanted = (spec.replaced() && options_.errors) || (v == 0 && options_.exponents);
      if (!wanted || std::find(done.begin(), done.end(), std::pair(spec, tree_.leaf[v])) != done.end()) continue;
      done.emplace_back(spec, tree_.leaf[v]);
      std::vector<size_t> same;
      for (size_t w = v; w < variants_.size(); ++w) {
        if (tree_.head[w] == spec && tree_.leaf[w] == tree_.leaf[v]) same.push_back(w);
      }
      products_ = {spec};
      is_baseline_ = v == 0;
      seen_.assign(1, {});
      which_.clear();
      const StepLinear head{.weight = prepare(model_.head, spec), .spec = spec};
      which_[head.weight.get()] = 0;
      for (const Tensor& hidden : hidden_[tree_.leaf[v]]) {
        for (int64_t begin = 0; begin < hidden.rows(); begin += kHeadRows) {
          throw_if_interrupted();
          std::vector<int32_t> rows;
          for (int64_t r = begin; r < std::min(begin + kHeadRows, hidden.rows()); ++r) {
            rows.push_back(static_cast<int32_t>(r));
          }
          const int64_t offsets[] = {0, static_cast<int64_t>(rows.size())};
          const Operand x = forward_.head_operand(hidden, rows, offsets, head);
          if (const Tensor* plain = observing_.plain(x)) look(x, *plain, *head.weight);
        }
      }
      record(model_.head, spec, same, 0);
    }
    model_.head.weight.release();
  }

  /// Takes in one product: what its operand was made of, and what it would have been.
  void look(const Operand& x, const Tensor& plain, const PreparedWeight& weight) {
    const auto found = which_.find(&weight);
    if (found == which_.end() || plain.rows() == 0) return;
    const size_t l = found->second;
    Seen& seen = seen_[l];
    const bool errors = options_.errors && products_[l].replaced();
    const bool exponents = options_.exponents && is_baseline_;
    const auto rows = plain.rows(), cols = plain.cols();
    if (exponents || (errors && products_[l].activations)) {
      values_.resize(static_cast<size_t>(rows * cols));
      backend_.download(plain, values_);
    }
    if (exponents) {
      if (!seen.exponents) seen.exponents.emplace();
      seen.exponents->add(values_);
    }
    if (!errors) return;
    if (products_[l].activations) {
      if (!seen.activation) {
        seen.activation = start_of(*products_[l].activations);
      }
      add_operand_error(*products_[l].activations, x, rows, cols, *seen.activation);
    }
    auto& plain_weight = plain_weights_[l];
    if (!plain_weight) plain_weight = prepare(*linears_[l], {});
    Operand reference{.type = backend_.operand_type(std::nullopt, *plain_weight, compute_)};
    const int64_t offsets[] = {0, rows};
    backend_.operands(plain, offsets, {&reference, 1});
    Tensor want = backend_.empty(DType::f32, rows, weight.rows());
    Tensor got = backend_.empty(DType::f32, rows, weight.rows());
    backend_.linear(reference, *plain_weight, {}, want);
    backend_.linear(x, weight, {}, got);
    sums_.resize(static_cast<size_t>(rows));
    backend_.compare(want, got, sums_);
    for (const ErrorSums& row : sums_) seen.output += row;
  }

  static QuantizationError start_of(const mx::BlockFormat& format) {
    QuantizationError out;
    out.blocks = format.scaling == mx::Scaling::block;
    return out;
  }

  /// Adds the errors of an operand whose plain values are in values_.
  void add_operand_error(const mx::BlockFormat& format, const Operand& x, int64_t rows, int64_t cols,
                         QuantizationError& sum) {
    const auto row_of = [cols](std::vector<float>& matrix, int64_t r) {
      return std::span<float>(matrix.data() + r * cols, static_cast<size_t>(cols));
    };
    row_errors_.resize(static_cast<size_t>(rows));
    if (format.scaling == mx::Scaling::block) {
      pool_.run(rows, [&](int64_t r, int /*worker*/) {
        row_errors_[static_cast<size_t>(r)] = row_error(format, row_of(values_, r));
      });
    } else {
      // Scales may depend on a whole window: what the product reads, with its scales and outliers put back.
      std::vector<float> decoded(static_cast<size_t>(rows * cols)), scales, outliers;
      backend_.download(x.values, decoded);
      if (!x.row_scales.empty()) {
        scales.resize(static_cast<size_t>(rows));
        backend_.download(x.row_scales, scales);
      }
      if (!x.outliers.empty()) {
        outliers.resize(decoded.size());
        backend_.download(x.outliers, outliers);
      }
      pool_.run(rows, [&](int64_t r, int /*worker*/) {
        const std::span<float> row = row_of(decoded, r);
        for (size_t i = 0; i < row.size(); ++i) {
          if (!scales.empty()) row[i] *= scales[static_cast<size_t>(r)];
          if (!outliers.empty()) row[i] += outliers[static_cast<size_t>(r * cols) + i];
        }
        row_errors_[static_cast<size_t>(r)] = decoded_row_error(row_of(values_, r), row);
      });
    }
    for (const QuantizationError& row : row_errors_) sum += row;
  }

  /// Of a weight in a stage: quantised as an activation of its shape is, the whole weight being one window.
  QuantizationError stage_weight_error(const LinearSpec& linear, const mx::BlockFormat& format) {
    QuantizationError out = start_of(format);
    const auto plain_weight = prepare(linear, {});
    with_source(linear, Arithmetic::model_dtype, [&](const HostMatrix& source) {
      const Tensor plain = backend_.upload(source, compute_);
      Operand x{.type = backend_.operand_type(format, *plain_weight, compute_)};
      const int64_t offsets[] = {0, source.rows};
      backend_.operands(plain, offsets, {&x, 1});
      values_.resize(static_cast<size_t>(source.rows * source.cols));
      backend_.download(plain, values_);
      add_operand_error(format, x, source.rows, source.cols, out);
    });
    return out;
  }

  /// Hands on what was seen of a Linear under a spec to the variants that share it.
  void record(const LinearSpec& linear, const ProductSpec& product, const std::vector<size_t>& variants, size_t l) {
    const std::string tensor = linear.module + ".weight", role(role_name(linear.role));
    if (options_.exponents && is_baseline_) {
      LinearExponents exponents{.tensor = tensor, .role = role, .weight = {}, .activation = seen_[l].exponents};
      std::vector<std::byte> storage;
      exponents.weight = matrix_exponents(linear.weight.view(storage), pool_);
      out_.exponents.push_back(std::move(exponents));
    }
    if (!options_.errors || !product.replaced()) return;
    LinearError error{
        .tensor = tensor, .role = role, .weight = {}, .activation = seen_[l].activation, .output = seen_[l].output};
    if (product.weights) error.weight = weight_error(linear, *product.weights);
    for (const size_t v : variants) out_.errors[v].push_back(error);
  }

  /// Computed once for each Linear and format of a step.
  QuantizationError weight_error(const LinearSpec& linear, const mx::BlockFormat& format) {
    auto& known = weight_errors_[&linear];
    auto found = std::find_if(known.begin(), known.end(), [&](const auto& k) { return k.first == format; });
    if (found == known.end()) {
      QuantizationError error;
      if (format.scaling == mx::Scaling::block) {
        with_source(linear, Arithmetic::model_dtype,
                    [&](const HostMatrix& source) { error = matrix_error(format, source, pool_); });
      } else {
        error = stage_weight_error(linear, format);
      }
      found = known.insert(found, {format, error});
    }
    return found->second;
  }

  const ModelSpec& model_;
  Backend& backend_;
  DType compute_;
  std::span<const Variant> variants_;
  const LinearStudyOptions& options_;
  ThreadPool pool_;
  ObservingBackend observing_;
  ForwardPass forward_;
  VariantTree tree_;
  LinearStudy out_;
  std::vector<MicroBatch> batches_;
  std::vector<std::vector<Tensor>> hidden_{1};  // [node][micro-batch]

  // Of the step and node at hand, by Linear.
  std::vector<const LinearSpec*> linears_;
  std::vector<ProductSpec> products_;
  bool is_baseline_ = false;
  std::vector<std::shared_ptr<const PreparedWeight>> plain_weights_;  // made when they are needed
  std::map<const PreparedWeight*, size_t> which_;
  std::vector<Seen> seen_;
  std::map<const LinearSpec*, std::vector<std::pair<mx::BlockFormat, QuantizationError>>> weight_errors_;
  std::vector<float> values_;
  std::vector<QuantizationError> row_errors_;
  std::vector<ErrorSums> sums_;
};

}  // namespace

LinearStudy study_linears(const ModelSpec& model, Backend& backend, DType compute, std::span<const Variant> variants,
                          std::span<const Window> windows, const LinearStudyOptions& options) {
  return Study(model, backend, compute, variants, options).run(windows);
}

}  // namespace mxlm
