#pragma once

// The instruction sets of x86-64 that the CPU backend has code for.

#include <cstdint>

#if !defined(__x86_64__)
#error "The CPU backend is written for x86-64 processors."
#endif

namespace mxlm::cpu {

/// Instruction sets, each including those before it.
enum class Isa : uint8_t { portable, avx2, avx512, avx512_bf16, amx_bf16 };

/// The best one that this processor and kernel allow (asks the kernel for AMX state on first use), lowered by the
/// environment variable MXLM_ISA (portable, avx2, avx512, avx512_bf16, amx_bf16) for tests.
Isa detect_isa();
const char* isa_name(Isa isa);

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace mxlm::cpu
