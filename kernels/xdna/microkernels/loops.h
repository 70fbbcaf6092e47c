// UNROLLED, before a loop over an array of registers, which cannot be indexed at run time. Other loops need no hint: their
// counts are constants, which Peano needs to pipeline them.
#pragma once

#define MICROKERNEL_PRAGMA(text) _Pragma(#text)

#ifdef __clang__
#define UNROLLED MICROKERNEL_PRAGMA(clang loop unroll(full))
#else
#define UNROLLED MICROKERNEL_PRAGMA(GCC unroll 16)
#endif
