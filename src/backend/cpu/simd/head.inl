// Sums over a chunk of logits; included once for each instruction set.

/// Adds the bias, finds the maximum and Infs. Returns the rescale factor of earlier terms.
MXLM_BODY static double begin_chunk(const LogitChunk& chunk, TokenState& state) {
  const int64_t end = round_up(chunk.count, kLanes);
  Floats high = spread(kLowest);
  Floats low = spread(kInfinity);
  if (chunk.bias != nullptr) {
    for (int64_t i = 0; i < chunk.count; i += kLanes) {
      store(chunk.logits + i, add(load(chunk.logits + i), load(lanes_left(chunk.count - i), chunk.bias + i)));
    }
  }
  pad(chunk);
  for (int64_t i = 0; i < end; i += kLanes) {
    const Floats x = load(chunk.logits + i);
    high = max_of(x, high);  // the second operand where x is NaN: passes NaNs over, which show in the sum
    low = min_of(x, low);
  }
  if (any(not_less(spread(-kInfinity), low))) state.finite = false;
  note_target(chunk, state);
  if (!state.started || any(less(spread(state.max), high))) return raise_max(chunk, state, max_of_lanes(high));
  return 1;
}

/// sum[i] += lane i + lane i + 8.
MXLM_OP void add_to(Floats x, std::array<double, 8>& sum) {
  alignas(64) float lane[16];
  store(lane, x);
  for (size_t j = 0; j < 8; ++j) sum[j] += static_cast<double>(lane[j]) + static_cast<double>(lane[j + 8]);
}

template <bool kSelf>
MXLM_BODY double baseline_chunk(const LogitChunk& chunk, TokenState& state, float* powers) {
  const double rescale = begin_chunk(chunk, state);
  const int64_t end = round_up(chunk.count, kLanes);
  const Floats scale = spread(kLog2e);
  const Floats max = spread(state.max);
  Floats sum = zeros();
  Floats moment = zeros();
  for (int64_t i = 0; i < end; i += kLanes) {
    const Floats below = sub(load(chunk.logits + i), max);
    const Floats power = exp2_sum(mul(below, scale));
    store(powers + i, power);
    sum = add(sum, power);
    if constexpr (kSelf) moment = fma(power, below, moment);
  }
  add_to(sum, state.sum);
  if constexpr (kSelf) add_to(moment, state.moment);
  return rescale;
}

template <bool kSelf>
MXLM_BODY void variant_chunk(const LogitChunk& chunk, TokenState& state, const float* baseline, const float* powers,
                             double rescale) {
  begin_chunk(chunk, state);
  const int64_t end = round_up(chunk.count, kLanes);
  const Floats scale = spread(kLog2e);
  const Floats max = spread(state.max);
  Floats sum = zeros();
  Floats cross = zeros();
  Floats reverse = zeros();
  Floats moment = zeros();
  for (int64_t i = 0; i < end; i += kLanes) {
    const Floats x = load(chunk.logits + i);
    const Floats below = sub(x, max);
    const Floats power = exp2_sum(mul(below, scale));
    sum = add(sum, power);
    if constexpr (kSelf) moment = fma(power, below, moment);
    const Floats ahead = sub(load(baseline + i), x);
    cross = fma(load(powers + i), ahead, cross);
    reverse = fnma(power, ahead, reverse);
  }
  add_to(sum, state.sum);
  add_to(reverse, state.reverse);
  if constexpr (kSelf) add_to(moment, state.moment);
  if (rescale != 1) {
    for (double& s : state.cross) s *= rescale;
  }
  add_to(cross, state.cross);
}
