// Weights, products and the head on the GPU beside the CPU's.

#include <gmock/gmock.h>

#include "mx/quantize.hpp"
#include "support.hpp"

namespace mxlm::cuda_test {
namespace {

using Products = CudaTest;

OperandSpec spec_of(const char* name) { return mx::parse_format(name); }

/// x [m, k] and w [n, k] multiplied by a backend, with everything in between asked of it.
std::vector<float> product(Backend& b, const HostMatrix& x, const HostMatrix& w, const OperandSpec& weights,
                           const OperandSpec& activations, DType model, const std::vector<float>* bias = nullptr,
                           bool residual = false) {
  const auto weight = b.prepare(w, weights);
  const Tensor input = b.upload(x, model);
  Operand operand{.type = b.operand_type(activations, *weight, model), .values = {}, .row_scales = {}, .outliers = {}};
  const std::vector<int64_t> windows{0, x.rows};
  b.operands(input, windows, {&operand, 1});
  Tensor out = b.empty(model, x.rows, w.rows);
  Tensor bias_tensor, residual_tensor;
  if (bias != nullptr) bias_tensor = b.upload(matrix(*bias, 1, w.rows), DType::f32);
  std::vector<float> add(static_cast<size_t>(x.rows * w.rows));
  for (size_t i = 0; i < add.size(); ++i) add[i] = static_cast<float>(static_cast<int>(i % 7) - 3);
  if (residual) residual_tensor = b.upload(matrix(add, x.rows, w.rows), model);
  b.linear(operand, *weight,
           {.bias = bias == nullptr ? nullptr : &bias_tensor,
            .residual = residual ? &residual_tensor : nullptr,
            .outputs = std::nullopt,
            .multiplier = 1,
            .arithmetic = Arithmetic::model_dtype},
           out);
  return values_of(b, out);
}

struct Shape {
  int64_t m, n, k;
};

/// Root of the sum of squared errors against float64, each relative to the root of the sum of the squares of the
/// output's terms: of a product, and of float32 arithmetic in the order of the columns.
struct Errors {
  double ours = 0, plain = 0;
};

Errors errors_of(const std::vector<float>& got, const std::vector<float>& x, const std::vector<float>& w, Shape s) {
  Errors errors;
  for (int64_t r = 0; r < s.m; ++r) {
    for (int64_t c = 0; c < s.n; ++c) {
      double exact = 0, size = 0;
      float sum = 0;
      for (int64_t i = 0; i < s.k; ++i) {
        const float a = x[static_cast<size_t>(r * s.k + i)], b = w[static_cast<size_t>(c * s.k + i)];
        const double term = double{a} * b;
        exact += term;
        size += term * term;
        sum = std::fma(a, b, sum);
      }
      const double error = got[static_cast<size_t>(r * s.n + c)] - exact;
      errors.ours += error * error / size;
      errors.plain += (sum - exact) * (sum - exact) / size;
    }
  }
  errors.ours = std::sqrt(errors.ours / static_cast<double>(s.m * s.n));
  errors.plain = std::sqrt(errors.plain / static_cast<double>(s.m * s.n));
  return errors;
}

TEST_F(Products, OfFloat32AreAsExactAsFloat32Arithmetic) {
  for (const Shape s : {Shape{1, 1, 1}, Shape{3, 5, 7}, Shape{33, 257, 97}, Shape{40, 96, 768}, Shape{130, 96, 1021},
                        Shape{64, 257, 2048}, Shape{20, 64, 8192}}) {
    const auto x = random_values(static_cast<size_t>(s.m * s.k), 1),
               w = random_values(static_cast<size_t>(s.n * s.k), 2);
    const auto got = product(gpu(), matrix(x, s.m, s.k), matrix(w, s.n, s.k), {}, {}, DType::f32);
    const Errors errors = errors_of(got, x, w, s);
    // (A term alone is rounded once by float32, and may be off by 2^-21.4 here.)
    EXPECT_LE(errors.ours, 2 * errors.plain + 3e-7 / std::sqrt(static_cast<double>(s.k)))
        << s.m << " x " << s.n << " x " << s.k;
  }
}

/// Values times 2^-reach to 2^reach: each by its own power, or by that of its column (its inverse, if `inverse`).
std::vector<float> spread(std::vector<float> values, int64_t cols, int reach, bool by_column, bool inverse) {
  std::mt19937 engine(by_column ? 77U : inverse ? 78U : 79U);  // powers of columns are the same on both sides
  std::uniform_int_distribution<int> power(-reach, reach);
  std::vector<int> of_column(static_cast<size_t>(cols));
  for (int& p : of_column) p = power(engine);
  for (size_t i = 0; i < values.size(); ++i) {
    const int p = by_column ? of_column[i % static_cast<size_t>(cols)] : power(engine);
    values[i] = std::ldexp(values[i], inverse ? -p : p);
  }
  return values;
}

TEST_F(Products, OfFloat32OfManySizesAreExact) {
  struct Sizes {
    const char* name;
    int x_reach, w_reach;
    bool by_column;  // x and w by powers that cancel
  };
  for (const Shape s : {Shape{9, 40, 97}, Shape{16, 40, 768}, Shape{16, 40, 2048}, Shape{8, 24, 8192}}) {
    for (const Sizes& sizes : {Sizes{"values", 20, 0, false}, Sizes{"both sides' values", 20, 20, false},
                               Sizes{"columns", 20, 0, true}, Sizes{"cancelling columns", 10, 10, true}}) {
      const auto x =
          spread(random_values(static_cast<size_t>(s.m * s.k), 3), s.k, sizes.x_reach, sizes.by_column, false);
      const auto w =
          spread(random_values(static_cast<size_t>(s.n * s.k), 4), s.k, sizes.w_reach, sizes.by_column, true);
      const auto got = product(gpu(), matrix(x, s.m, s.k), matrix(w, s.n, s.k), {}, {}, DType::f32);
      const Errors errors = errors_of(got, x, w, s);
      // The few largest terms make the sum, so that float32 arithmetic rounds little, but the tensor cores' sums of 16
      // terms are cut off as ever: at most 2^-23, and half of that on average, at every 16th of the depth of about
      // 16 sqrt(K) between float32 additions.
      const double cut = std::sqrt(static_cast<double>(s.k)) * 0x1p-24;
      EXPECT_LE(errors.ours, 2 * errors.plain + cut + 3e-7 / std::sqrt(static_cast<double>(s.k)))
          << sizes.name << ' ' << s.k;
    }
  }
}

TEST_F(Products, OfFloat32RowsOfAnySizeScaleExactly) {
  // Rows and outputs by powers of two from nearly the smallest to nearly the largest: the same bits times the powers.
  const int64_t m = 7, n = 9, k = 130;
  const auto x = random_values(static_cast<size_t>(m * k), 5), w = random_values(static_cast<size_t>(n * k), 6);
  const std::vector<int> x_powers{0, -60, 60, -110, 110, 1, 0}, w_powers{0, 60, -60, 110, -110, -1, 3, 20, -20};
  auto scaled_x = x, scaled_w = w;
  for (size_t i = 0; i < x.size(); ++i) scaled_x[i] = std::ldexp(x[i], x_powers[i / static_cast<size_t>(k)]);
  for (size_t i = 0; i < w.size(); ++i) scaled_w[i] = std::ldexp(w[i], w_powers[i / static_cast<size_t>(k)]);
  auto want = product(gpu(), matrix(x, m, k), matrix(w, n, k), {}, {}, DType::f32);
  const auto got = product(gpu(), matrix(scaled_x, m, k), matrix(scaled_w, n, k), {}, {}, DType::f32);
  for (size_t i = 0; i < want.size(); ++i) {
    want[i] = std::ldexp(want[i], x_powers[i / static_cast<size_t>(n)] + w_powers[i % static_cast<size_t>(n)]);
  }
  EXPECT_EQ(different(got, want), 0U);
}

TEST_F(Products, OfFloat32KeepWhatIsNotFiniteInItsRow) {
  const int64_t m = 6, n = 300, k = 97;
  auto x = random_values(static_cast<size_t>(m * k), 8), w = random_values(static_cast<size_t>(n * k), 9);
  const auto clean = product(gpu(), matrix(x, m, k), matrix(w, n, k), {}, {}, DType::f32);
  x[static_cast<size_t>(1 * k + 5)] = NAN;
  x[static_cast<size_t>(3 * k)] = -INFINITY;
  std::fill_n(x.begin() + 4 * k, k, 0.0F);
  w[static_cast<size_t>(7 * k + 96)] = INFINITY;
  std::fill_n(w.begin() + 8 * k, k, 0.0F);
  const auto got = product(gpu(), matrix(x, m, k), matrix(w, n, k), {}, {}, DType::f32);
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      const auto at = static_cast<size_t>(r * n + c);
      if (r == 1 || r == 3 || c == 7) {
        EXPECT_FALSE(std::isfinite(got[at])) << r << ' ' << c;
      } else {
        EXPECT_EQ(got[at], r == 4 || c == 8 ? 0 : clean[at]) << r << ' ' << c;
      }
    }
  }
}

TEST_F(Products, OfAFloat32WeightServeAnyOperand) {
  const Shape s{20, 70, 200};
  const auto x = random_values(static_cast<size_t>(s.m * s.k), 12),
             w = random_values(static_cast<size_t>(s.n * s.k), 13);
  const std::vector<float> bias = random_values(static_cast<size_t>(s.n), 14);
  for (const char* activations : {"", "mxfp8_e4m3", "llm_int8"}) {
    for (const DType model : {DType::f32, DType::bf16}) {
      for (const bool residual : {false, true}) {
        const auto run = [&](Backend& b) {
          return product(b, matrix(x, s.m, s.k), matrix(w, s.n, s.k), {}, spec_of(activations), model, &bias, residual);
        };
        EXPECT_LE(relative_error(run(gpu()), run(cpu())), model == DType::bf16 ? 1e-3 : 1e-6)
            << activations << ' ' << residual;
      }
    }
  }
}

TEST_F(Products, OfQuantisedOperandsAgreeWithTheCpu) {
  for (const char* name :
       {"mxfp8_e4m3", "mxfp4_e2m1", "mxint8", "mxint16", "fp8_e4m3_row", "int8_row", "nvfp4", "llm_int8"}) {
    for (const DType model : {DType::bf16, DType::f32}) {
      for (const Shape s : {Shape{1, 3, 40}, Shape{37, 130, 576}, Shape{65, 64, 1000}}) {
        const auto x = random_values(static_cast<size_t>(s.m * s.k), 3, 2.5F);
        const auto w = to_bf16(random_values(static_cast<size_t>(s.n * s.k), 4, 0.02F));
        const auto run = [&](Backend& b) {
          return product(b, matrix(x, s.m, s.k), matrix(w, s.n, s.k), spec_of(name), spec_of(name), model);
        };
        // Sums in another order; one rounding to bfloat16 may differ.
        EXPECT_LE(relative_error(run(gpu()), run(cpu())), model == DType::bf16 ? 1e-3 : 1e-6) << name << ' ' << s.k;
      }
    }
  }
}

TEST_F(Products, TakeBiasAndResidual) {
  const auto x = random_values(50 * 96, 5);
  const auto w = to_bf16(random_values(70 * 96, 6));
  std::vector<float> bias = random_values(70, 7);
  for (float& b : bias) b = to_float(to_bfloat16(b));
  for (const DType model : {DType::bf16, DType::f32}) {
    for (const bool residual : {false, true}) {
      const auto run = [&](Backend& b) {
        return product(b, matrix(x, 50, 96), matrix(w, 70, 96), {}, {}, model, &bias, residual);
      };
      EXPECT_LE(relative_error(run(gpu()), run(cpu())), model == DType::bf16 ? 1e-3 : 1e-6);
    }
  }
}

TEST_F(Products, GiveARowTheSameBitsInAnyBatch) {
  for (const char* name : {"", "mxfp8_e4m3"}) {
    for (const DType model : {DType::bf16, DType::f32}) {
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{576, 576}, {4096, 1024}, {1000, 130}}) {
        const int64_t rows = 3000;
        const auto x = random_values(static_cast<size_t>(rows * k), 8);
        const auto w = to_bf16(random_values(static_cast<size_t>(n * k), 9));
        const auto run = [&](int64_t first, int64_t count) {
          const std::vector<float> part(x.begin() + first * k, x.begin() + (first + count) * k);
          return product(gpu(), matrix(part, count, k), matrix(w, n, k), spec_of(name), spec_of(name), model);
        };
        const auto all = run(0, rows);
        for (const auto& [first, count] :
             {std::pair<int64_t, int64_t>{0, 1}, {7, 17}, {100, 128}, {5, 777}, {1, 2999}}) {
          const std::vector<float> same(all.begin() + first * n, all.begin() + (first + count) * n);
          EXPECT_EQ(different(run(first, count), same), 0U) << name << ' ' << n << ' ' << count;
        }
      }
    }
  }
}

TEST_F(Products, OfFloat32GiveARowTheSameBitsInAnyBatch) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{576, 576}, {2000, 1024}, {1000, 130}}) {
    const int64_t rows = 1500;
    const auto x = random_values(static_cast<size_t>(rows * k), 8), w = random_values(static_cast<size_t>(n * k), 9);
    const auto run = [&](int64_t first, int64_t count) {
      const std::vector<float> part(x.begin() + first * k, x.begin() + (first + count) * k);
      return product(gpu(), matrix(part, count, k), matrix(w, n, k), {}, {}, DType::f32);
    };
    const auto all = run(0, rows);
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {7, 17}, {5, 777}, {1, 1499}}) {
      const std::vector<float> same(all.begin() + first * n, all.begin() + (first + count) * n);
      EXPECT_EQ(different(run(first, count), same), 0U) << n << ' ' << count;
    }
  }
}

TEST_F(Products, AreTheSameFromKeptWeights) {
  for (const char* name : {"mxfp8_e4m3", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8", "nvfp4"}) {
    const auto w = to_bf16(random_values(33 * 200, 10, 1, true));
    const auto x = random_values(5 * 200, 11);
    const HostMatrix source = matrix(w, 33, 200);
    const auto run = [&](const std::shared_ptr<const PreparedWeight>& weight) {
      const Tensor input = gpu().upload(matrix(x, 5, 200), DType::bf16);
      Operand operand{
          .type = gpu().operand_type({}, *weight, DType::bf16), .values = {}, .row_scales = {}, .outliers = {}};
      const std::vector<int64_t> windows{0, 5};
      gpu().operands(input, windows, {&operand, 1});
      Tensor out = gpu().empty(DType::f32, 5, 33);
      gpu().linear(operand, *weight, {}, out);
      return values_of(gpu(), out);
    };
    EXPECT_EQ(
        different(run(gpu().prepare(gpu().keep(source, spec_of(name)))), run(gpu().prepare(source, spec_of(name)))), 0U)
        << name;
  }
}

TEST_F(Products, ReadWeightsThatWereAnnounced) {
  std::vector<std::vector<BFloat16>> sources;
  for (uint32_t i = 0; i < 6; ++i) sources.push_back(to_bf16(random_values(700 * 130, 20 + i)));
  for (const auto& s : sources) gpu().prefetch(matrix(s, 700, 130));
  const auto x = random_values(3 * 130, 30);
  for (const size_t i : {3, 0, 5, 1}) {
    const HostMatrix w = matrix(sources[i], 700, 130);
    EXPECT_LE(relative_error(product(gpu(), matrix(x, 3, 130), w, {}, {}, DType::f32),
                             product(cpu(), matrix(x, 3, 130), w, {}, {}, DType::f32)),
              1e-6);
  }
  for (const auto& s : sources) gpu().forget(matrix(s, 700, 130));
}

using Head = CudaTest;

struct Scored {
  std::vector<std::vector<TokenScore>> scores;
};

Scored score(Backend& b, int64_t rows, int64_t vocabulary, int64_t hidden, DType model, ScoreKind kind, float softcap,
             bool with_nan = false, bool float32_weights = false) {
  const auto wide = random_values(static_cast<size_t>(vocabulary * hidden), 40, 0.3F);
  const auto narrow = to_bf16(wide);
  const HostMatrix w = float32_weights ? matrix(wide, vocabulary, hidden) : matrix(narrow, vocabulary, hidden);
  std::vector<Operand> operands;
  std::vector<std::shared_ptr<const PreparedWeight>> weights;
  Scored out;
  const std::vector<float> bias = random_values(static_cast<size_t>(vocabulary), 41);
  const Tensor bias_tensor = b.upload(matrix(bias, 1, vocabulary), DType::f32);
  for (const char* name : {"", "mxfp8_e4m3", "mxfp4_e2m1"}) {
    auto x = random_values(static_cast<size_t>(rows * hidden), 42);
    if (with_nan) x[static_cast<size_t>(hidden) + 3] = NAN;
    weights.push_back(b.prepare(w, spec_of(name)));
    const Tensor input = b.upload(matrix(x, rows, hidden), model);
    operands.push_back({.type = b.operand_type(spec_of(name), *weights.back(), model),
                        .values = {},
                        .row_scales = {},
                        .outliers = {}});
    const std::vector<int64_t> windows{0, rows};
    b.operands(input, windows, {&operands.back(), 1});
    out.scores.emplace_back(static_cast<size_t>(rows));
  }
  std::vector<HeadJob> inputs;
  for (size_t i = 0; i < operands.size(); ++i) {
    inputs.push_back({.hidden = &operands[i],
                      .weight = weights[i].get(),
                      .bias = &bias_tensor,
                      .logit_multiplier = 0.75F,
                      .logit_softcap = softcap,
                      .arithmetic = Arithmetic::model_dtype,
                      .scores = out.scores[i],
                      .seconds = nullptr,
                      .kind = kind,
                      .jensen_shannon = true});
  }
  std::vector<int32_t> targets(static_cast<size_t>(rows));
  for (size_t r = 0; r < targets.size(); ++r)
    targets[r] = static_cast<int32_t>(r * 7919 % static_cast<size_t>(vocabulary));
  b.score(inputs, targets);
  return out;
}

TEST_F(Head, ScoresAsTheCpuDoes) {
  for (const auto& [rows, vocabulary] : {std::pair<int64_t, int64_t>{1, 5}, {3, 300}, {40, 8192}, {17, 20001}}) {
    for (const ScoreKind kind : {ScoreKind::next_token, ScoreKind::self}) {
      for (const auto& [softcap, float32_weights] : {std::pair{0.0F, false}, {5.0F, false}, {0.0F, true}}) {
        const auto run = [&, softcap = softcap, wide = float32_weights](Backend& b) {
          return score(b, rows, vocabulary, 96, DType::f32, kind, softcap, /*with_nan=*/false, wide);
        };
        const Scored ours = run(gpu()), theirs = run(cpu());
        for (size_t v = 0; v < ours.scores.size(); ++v) {
          for (size_t r = 0; r < ours.scores[v].size(); ++r) {
            const TokenScore &a = ours.scores[v][r], &b = theirs.scores[v][r];
            EXPECT_NEAR(a.nll, b.nll, 5e-6 * (1 + b.nll));
            EXPECT_NEAR(a.kld, b.kld, 3e-6 * (1 + b.kld));
            EXPECT_NEAR(a.kld_reverse, b.kld_reverse, 3e-6 * (1 + b.kld_reverse));
            EXPECT_NEAR(a.jensen_shannon, b.jensen_shannon, 3e-6 * (1 + b.jensen_shannon));
            EXPECT_NEAR(a.p, b.p, 1e-5);
            EXPECT_NEAR(a.entropy, b.entropy, 1e-5 * (1 + b.entropy));
            EXPECT_EQ(a.finite, b.finite);
          }
          if (v == 0) {
            for (const TokenScore& s : ours.scores[0]) {
              EXPECT_EQ(s.kld, 0);
              EXPECT_EQ(s.kld_reverse, 0);
              EXPECT_EQ(s.jensen_shannon, 0);
            }
          }
        }
      }
    }
  }
}

TEST_F(Head, TellsRowsThatAreNotFinite) {
  for (const bool float32_weights : {false, true}) {
    const Scored ours =
        score(gpu(), 3, 9000, 64, DType::f32, ScoreKind::next_token, 0, /*with_nan=*/true, float32_weights);
    for (const auto& scores : ours.scores) {
      EXPECT_TRUE(scores[0].finite);
      EXPECT_FALSE(scores[1].finite);
      EXPECT_TRUE(scores[2].finite);
    }
  }
}

TEST_F(Head, GivesATokenTheSameFiguresInAnyBatch) {
  // 1,100 rows cross a tile's end.
  const Scored many = score(gpu(), 1100, 9001, 64, DType::bf16, ScoreKind::next_token, 0);
  const Scored few = score(gpu(), 3, 9001, 64, DType::bf16, ScoreKind::next_token, 0);
  for (size_t v = 0; v < few.scores.size(); ++v) {
    for (size_t r = 0; r < 3; ++r) {
      EXPECT_EQ(few.scores[v][r].nll, many.scores[v][r].nll);
      EXPECT_EQ(few.scores[v][r].kld, many.scores[v][r].kld);
      EXPECT_EQ(few.scores[v][r].kld_reverse, many.scores[v][r].kld_reverse);
      EXPECT_EQ(few.scores[v][r].top1, many.scores[v][r].top1);
    }
  }
}

TEST_F(Head, RefusesATargetOutsideTheVocabulary) {
  const auto w = to_bf16(random_values(10 * 64, 1));
  const auto weight = gpu().prepare(matrix(w, 10, 64), std::nullopt);
  Operand operand{.type = {.spec = std::nullopt, .storage = DType::bf16},
                  .values = gpu().upload(matrix(w, 1, 64), DType::bf16),
                  .row_scales = {},
                  .outliers = {}};
  std::vector<TokenScore> scores(1);
  const HeadJob input{.hidden = &operand, .weight = weight.get(), .scores = scores};
  const std::vector<int32_t> targets{10};
  EXPECT_ANY_THROW(gpu().score({&input, 1}, targets));
}

}  // namespace
}  // namespace mxlm::cuda_test
