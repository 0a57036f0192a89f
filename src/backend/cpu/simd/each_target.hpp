// Compiles the row operations of MXLM_SIMD_BODIES for each instruction set, into the namespaces portable, avx2 and
// avx512 of mxlm::cpu. To be included at file scope of that namespace, once for each file of bodies. MXLM_OP marks
// functions that become part of their callers, MXLM_BODY the others.

namespace portable {
#define MXLM_OP MXLM_PORTABLE_OP
#define MXLM_BODY
#include MXLM_SIMD_BODIES
#undef MXLM_OP
#undef MXLM_BODY
}  // namespace portable

namespace avx2 {
#define MXLM_OP MXLM_AVX2_OP
#define MXLM_BODY MXLM_TARGET_AVX2
#include MXLM_SIMD_BODIES
#undef MXLM_OP
#undef MXLM_BODY
}  // namespace avx2

namespace avx512 {
#define MXLM_OP MXLM_AVX512_OP
#define MXLM_BODY MXLM_TARGET_AVX512
#include MXLM_SIMD_BODIES
#undef MXLM_OP
#undef MXLM_BODY
}  // namespace avx512

#undef MXLM_SIMD_BODIES

// A call of such a function in the namespace of an instruction set.
#undef MXLM_DISPATCH
#define MXLM_DISPATCH(isa, ...) \
  ((isa) >= Isa::avx512 ? avx512::__VA_ARGS__ : (isa) == Isa::avx2 ? avx2::__VA_ARGS__ : portable::__VA_ARGS__)
