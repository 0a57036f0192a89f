#include "backend/cpu/isa.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"

namespace mxlm::cpu {
namespace {

constexpr std::array<Isa, 5> kAll{Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16};

// From <asm/prctl.h> of newer kernels than the oldest headers this builds with.
constexpr int kArchRequestPermission = 0x1023;
constexpr int kXfeatureTileData = 18;

constexpr uint64_t kXcr0Avx = 0x6;      // SSE, AVX
constexpr uint64_t kXcr0Avx512 = 0xe6;  // SSE, AVX, opmask, upper halves of zmm0-15, zmm16-31
constexpr uint64_t kXcr0Amx = 0x60000;  // tile configuration and tile data
constexpr bool has(uint32_t word, int bit) { return ((word >> bit) & 1U) != 0; }

uint64_t read_xcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

/// What the processor and the kernel allow, up to `limit`. Tile data is asked for only where the limit lets AMX be
/// used: the permission makes every signal frame of the process larger.
Isa probe(Isa limit) {
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;
  if (limit == Isa::portable || __get_cpuid(1, &a, &b, &c, &d) == 0) return Isa::portable;
  const bool osxsave = has(c, 27);
  const bool fma = has(c, 12);
  if (!osxsave || !fma) return Isa::portable;
  const uint64_t xcr0 = read_xcr0();
  if ((xcr0 & kXcr0Avx) != kXcr0Avx || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return Isa::portable;
  if (!has(b, 5)) return Isa::portable;
  if (limit == Isa::avx2 || (xcr0 & kXcr0Avx512) != kXcr0Avx512) return Isa::avx2;
  const uint32_t sub_leaves = a;
  const bool avx512 = has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31);  // F, DQ, BW, VL
  const bool amx = has(d, 24) && has(d, 22);                                 // TILE, BF16
  if (!avx512) return Isa::avx2;
  if (limit == Isa::avx512 || sub_leaves < 1 || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || !has(a, 5)) {
    return Isa::avx512;
  }
  if (limit == Isa::avx512_bf16 || !amx || (xcr0 & kXcr0Amx) != kXcr0Amx ||
      syscall(SYS_arch_prctl, kArchRequestPermission, kXfeatureTileData) != 0) {
    return Isa::avx512_bf16;
  }
  return Isa::amx_bf16;
}

Isa limit_from_environment() {
  const char* value = std::getenv("MXLM_ISA");  // NOLINT(concurrency-mt-unsafe): read once, nothing here sets it
  if (value == nullptr || *value == '\0') return Isa::amx_bf16;
  for (const Isa isa : kAll) {
    if (isa_name(isa) == std::string_view(value)) return isa;
  }
  fail("MXLM_ISA is \"{}\"; set it to portable, avx2, avx512, avx512_bf16 or amx_bf16, or unset it.", value);
}

}  // namespace

Isa detect_isa() {
  static const Isa best = probe(limit_from_environment());
  return best;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx_bf16:
      return "amx_bf16";
  }
  return "?";
}

}  // namespace mxlm::cpu
