#include "backend/cpu/quantize.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "backend/cpu/quantize_avx2.hpp"
#include "backend/cpu/quantize_avx512.hpp"
#include "backend/cpu/quantize_block.hpp"
#include "backend/cpu/reference_formats.hpp"

namespace mxlm::cpu {
namespace {

bool has_avx512(Isa isa) { return isa >= Isa::avx512; }

int64_t block_length(const mx::Format& f, int64_t n) { return f.block_size == 0 ? n : f.block_size; }

template <typename In, typename Out>
void quantize_portable(const mx::Format& f, const In* in, int64_t n, Out* out) {
  const int64_t block = block_length(f, n);
  for (int64_t start = 0; start < n; start += block) {
    const int64_t length = std::min(block, n - start);
    quantize_block(f, exponent_of(f, in + start, length), in + start, length, out + start);
  }
}

template <typename In, typename Out>
void quantize(Isa isa, const mx::Format& f, const In* in, int64_t n, Out* out) {
  assert(!mx::has_row_scales(f));
  if (f.scaling != mx::Scaling::block) {
    cast_row(isa, f, in, n, out);
  } else if (has_avx512(isa)) {
    avx512::quantize_decode_row(f, in, n, out);
  } else if (isa == Isa::avx2) {
    avx2::quantize_decode_row(f, in, n, out);
  } else {
    quantize_portable(f, in, n, out);
  }
}

template <typename In>
void encode_portable(const mx::Format& f, const In* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  assert(f.scale_bits <= 8 && f.scaling == mx::Scaling::block);
  const int bits = f.element.bits();
  const int64_t block = block_length(f, n);
  std::memset(codes, 0, static_cast<size_t>(code_bytes(f, n)));
  for (int64_t start = 0; start < n; start += block) {
    const int64_t length = std::min(block, n - start);
    const int e = exponent_of(f, in + start, length);
    *scales++ = mx::scale_code(e);
    if (e == mx::kNanExponent) continue;
    for (int64_t i = start; i < start + length; ++i) {
      mx::put_code(codes, bits, i, mx::encode(f.element, f.rounding, e, load(in[i])));
    }
  }
}

template <typename Out>
void decode_portable(const mx::Format& f, const uint8_t* codes, const uint8_t* scales, int64_t n, Out* out) {
  const int bits = f.element.bits();
  const int64_t block = block_length(f, n);
  for (int64_t start = 0; start < n; start += block) {
    const int64_t length = std::min(block, n - start);
    const uint8_t scale = *scales++;
    for (int64_t i = start; i < start + length; ++i) {
      const float value = scale == mx::kNanScale ? mx::detail::float_of(mx::detail::kQuietNan)
                                                 : mx::scale_by(mx::decode(f.element, mx::get_code(codes, bits, i)),
                                                                scale - mx::kScaleBias);
      store(value, out[i]);
    }
  }
}

template <typename In>
void encode(Isa isa, const mx::Format& f, const In* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  if (has_avx512(isa) && avx512::packs_fast(f)) {
    avx512::encode_row(f, in, n, codes, scales);
  } else {
    encode_portable(f, in, n, codes, scales);
  }
}

template <typename Out>
void decode(Isa isa, const mx::Format& f, const uint8_t* codes, const uint8_t* scales, int64_t n, Out* out) {
  if (has_avx512(isa) && avx512::packs_fast(f)) {
    avx512::decode_row(f, codes, scales, n, out);
  } else {
    decode_portable(f, codes, scales, n, out);
  }
}

}  // namespace

void quantize_decode_row(Isa isa, const mx::Format& format, const float* in, int64_t n, float* out) {
  quantize(isa, format, in, n, out);
}
void quantize_decode_row(Isa isa, const mx::Format& format, const float* in, int64_t n, BFloat16* out) {
  assert(mx::decodes_exactly_to_bf16(format));
  quantize(isa, format, in, n, out);
}
void quantize_decode_row(Isa isa, const mx::Format& format, const BFloat16* in, int64_t n, float* out) {
  quantize(isa, format, in, n, out);
}
void quantize_decode_row(Isa isa, const mx::Format& format, const BFloat16* in, int64_t n, BFloat16* out) {
  assert(mx::decodes_exactly_to_bf16(format));
  quantize(isa, format, in, n, out);
}

void quantize_decode_stream(Isa isa, const mx::Format& format, const float* in, int64_t n, float* out) {
  if (has_avx512(isa) && format.scaling == mx::Scaling::block) {
    avx512::quantize_decode_stream(format, in, n, out);
  } else {
    quantize(isa, format, in, n, out);
  }
}

int64_t code_bytes(const mx::Format& format, int64_t n) { return mx::packed_bytes(format.element, n); }
int64_t scale_bytes(const mx::Format& format, int64_t n) { return mx::block_count(format, n); }

void encode_row(Isa isa, const mx::Format& format, const float* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  encode(isa, format, in, n, codes, scales);
}
void encode_row(Isa isa, const mx::Format& format, const BFloat16* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  encode(isa, format, in, n, codes, scales);
}

void decode_row(Isa isa, const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n,
                BFloat16* out) {
  assert(mx::decodes_exactly_to_bf16(format));
  decode(isa, format, codes, scales, n, out);
}
void decode_row(Isa isa, const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, float* out) {
  decode(isa, format, codes, scales, n, out);
}

}  // namespace mxlm::cpu
