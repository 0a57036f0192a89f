#include "engine/linear_study.hpp"

#include <algorithm>
#include <map>

#include "base/interrupt.hpp"
#include "base/parallel.hpp"
#include "engine/observing_backend.hpp"
#include "engine/tree.hpp"
#include "engine/walk.hpp"

namespace mxlm {
namespace {

constexpr int64_t kTokens = 4096;      // the study takes windows until it has this many tokens
constexpr int64_t kBatchTokens = 512;  // of a micro-batch; memory holds two float32 products of it
constexpr int64_t kHeadRows = 128;     // rows that the LM head computes at a time

/// What the study has collected of one Linear at one node of the tree.
struct Seen {
  std::optional<QuantizationError> activation;
  ErrorSums output;
  std::optional<ExponentHistogram> exponents;
};

class Study final : public WalkVisitor {
 public:
  Study(const ModelSpec& model, Backend& backend, DType compute, std::span<const ResolvedVariant> variants,
        const LinearStudyOptions& options)
      : model_(model),
        backend_(backend),
        compute_(compute),
        options_(options),
        pool_(options.threads > 0 ? options.threads : default_thread_count()),
        observing_(
            backend, compute,
            [this](const Operand& x, const Tensor& plain, const PreparedWeight& weight) { look(x, plain, weight); }),
        forward_(model, observing_, compute),
        tree_(build_tree(model, variants)) {
    out_.errors.resize(variants.size());
  }

  LinearStudy run(std::span<const Window> windows) {
    add_batches(windows);
    walk(forward_, backend_, tree_, state_, *this);
    run_head();
    return std::move(out_);
  }

  void begin_step(const WalkStep& at) override {
    linears_ = at.step.linears;
    plain_weights_.assign(linears_.size(), nullptr);
  }

  void begin_node(const WalkStep& /*at*/, const TreeNode& node) override {
    const auto& passing = node.variants;
    begin_products(node.products.linears, std::find(passing.begin(), passing.end(), 0) != passing.end());
  }

  std::shared_ptr<const PreparedWeight> weight(const WalkStep& at, const TreeNode& node, size_t linear) override {
    // Memory holds one expert at a time.
    if (linear >= at.step.prepared) {
      std::fill(plain_weights_.begin() + static_cast<std::ptrdiff_t>(at.step.prepared), plain_weights_.end(), nullptr);
    }
    auto weight = prepare(*linears_[linear], node.products.linears[linear]);
    which_[weight.get()] = linear;
    return weight;
  }

  void end_node(const WalkStep& /*at*/, const TreeNode& node) override {
    for (size_t l = 0; l < linears_.size(); ++l) record(*linears_[l], products_[l], node.variants, l);
  }

  void end_step(const WalkStep& at, const WalkState& /*state*/) override {
    for (const LinearSpec* linear : at.step.linears) linear->weight.release();
    weight_errors_.clear();
  }

 private:
  void add_batches(std::span<const Window> windows) {
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
      state_.add(forward_, tokens);
    }
    out_.windows = static_cast<int64_t>(begin);
    model_.embedding.release();
  }

  /// Calls `use` with the source of a Linear's weight, rounded to bfloat16 where the run computes with rounded values.
  /// `arithmetic` is ProductSpec::arithmetic.
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

  /// Starts a node: removes what was collected of the node before.
  void begin_products(std::span<const ProductSpec> products, bool is_baseline) {
    products_.assign(products.begin(), products.end());
    is_baseline_ = is_baseline;
    seen_.assign(products.size(), {});
    which_.clear();
  }

  /// Runs the LM head, a few rows at a time because logits are large.
  void run_head() {
    linears_ = {&model_.lm_head};
    plain_weights_.assign(1, nullptr);
    std::vector<std::pair<ProductSpec, size_t>> done;  // (spec, leaf); variants with the same pair share figures
    for (size_t v = 0; v < tree_.lm_head.size(); ++v) {
      const ProductSpec& spec = tree_.lm_head[v];
      const bool wanted = (spec.replaced() && options_.errors) || (v == 0 && options_.exponents);
      if (!wanted || std::find(done.begin(), done.end(), std::pair(spec, tree_.leaf[v])) != done.end()) continue;
      done.emplace_back(spec, tree_.leaf[v]);
      std::vector<size_t> same;
      for (size_t w = v; w < tree_.lm_head.size(); ++w) {
        if (tree_.lm_head[w] == spec && tree_.leaf[w] == tree_.leaf[v]) same.push_back(w);
      }
      begin_products({&spec, 1}, v == 0);
      const StepLinear head{.weight = prepare(model_.lm_head, spec), .product = spec};
      which_[head.weight.get()] = 0;
      for (const Tensor& hidden : state_.hidden[tree_.leaf[v]]) {
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
      record(model_.lm_head, spec, same, 0);
    }
    model_.lm_head.weight.release();
  }

  /// Takes in one product: its operand against the plain activation, and its result against the unquantised product.
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

  static QuantizationError start_of(const mx::Format& format) {
    QuantizationError out;
    out.blocks = format.scaling == mx::Scaling::block;
    return out;
  }

  /// Adds the errors of an operand to `sum`. `values_` holds the operand's values before quantising.
  void add_operand_error(const mx::Format& format, const Operand& x, int64_t rows, int64_t cols,
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
      // The scales may depend on a whole window, so quantising rows again would not give the same values. Instead this
      // decodes what the product reads: values times scales, with the outliers put back.
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

  /// The error of a weight in a reference format. The weight is quantised like an activation of its shape that is one
  /// window.
  QuantizationError stage_weight_error(const LinearSpec& linear, const mx::Format& format) {
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

  /// Adds what was collected of a Linear under one spec to the results of the variants that share the node.
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

  /// The error of a weight, computed once for each Linear and format of a step.
  QuantizationError weight_error(const LinearSpec& linear, const mx::Format& format) {
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
  const LinearStudyOptions& options_;
  ThreadPool pool_;
  ObservingBackend observing_;
  ForwardPass forward_;
  VariantTree tree_;
  LinearStudy out_;
  WalkState state_;

  // Of the current step and node, by Linear.
  std::vector<const LinearSpec*> linears_;
  std::vector<ProductSpec> products_;
  bool is_baseline_ = false;
  std::vector<std::shared_ptr<const PreparedWeight>> plain_weights_;  // each made at its first use
  std::map<const PreparedWeight*, size_t> which_;
  std::vector<Seen> seen_;
  std::map<const LinearSpec*, std::vector<std::pair<mx::Format, QuantizationError>>> weight_errors_;
  std::vector<float> values_;
  std::vector<QuantizationError> row_errors_;
  std::vector<ErrorSums> sums_;
};

}  // namespace

LinearStudy study_linears(const ModelSpec& model, Backend& backend, DType compute,
                          std::span<const ResolvedVariant> variants, std::span<const Window> windows,
                          const LinearStudyOptions& options) {
  return Study(model, backend, compute, variants, options).run(windows);
}

}  // namespace mxlm
