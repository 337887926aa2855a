/* Includes KERNEL_TEXT once for each element type and instruction set. */

#define T float
#define LANES 4
#define VECTOR_BYTES 16
#define MAX_VECTORS 4
#define NAME(x) x##_f32_base
#define MAX_SUMS 8
#include "lanes.inc"
#include KERNEL_TEXT
#include "lanes_end.inc"
#define T double
#define LANES 2
#define VECTOR_BYTES 16
#define MAX_VECTORS 4
#define NAME(x) x##_f64_base
#define MAX_SUMS 8
#include "lanes.inc"
#include KERNEL_TEXT
#include "lanes_end.inc"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,prfchw"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,prfchw")
#endif
#define T float
#define LANES 8
#define VECTOR_BYTES 32
#define MAX_VECTORS 4
#define NAME(x) x##_f32_avx2
#define MAX_SUMS 8
#include "lanes.inc"
#include KERNEL_TEXT
#include "lanes_end.inc"
#define T double
#define LANES 4
#define VECTOR_BYTES 32
#define MAX_VECTORS 4
#define NAME(x) x##_f64_avx2
#define MAX_SUMS 8
#include "lanes.inc"
#include KERNEL_TEXT
#include "lanes_end.inc"
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prfchw"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,prfchw")
#endif
#define T float
#define LANES 16
#define VECTOR_BYTES 64
#define MAX_VECTORS 8
#define NAME(x) x##_f32_avx512
#define MAX_SUMS 8
#include "lanes.inc"
#include KERNEL_TEXT
#include "lanes_end.inc"
#define T double
#define LANES 8
#define VECTOR_BYTES 64
#define MAX_VECTORS 8
#define NAME(x) x##_f64_avx512
#define MAX_SUMS 8
#include "lanes.inc"
#include KERNEL_TEXT
#include "lanes_end.inc"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
