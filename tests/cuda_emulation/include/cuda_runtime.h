#pragma once
// Stands before the toolkit's header of the same name: kernels compiled by the C++ compiler get the
// toolkit's types and prototypes, and from here what only nvcc gives them.
#ifdef __CUDACC__
#error "tests/cuda_emulation must not be on nvcc's include path"
#endif

#undef __shared__
#define __shared__ thread_local  // one block at a time runs on an OS thread
#define __launch_bounds__(...)
#include_next <cuda_runtime.h>
#undef __cluster_dims__
#define __cluster_dims__(...)
#undef __maxnreg__
#define __maxnreg__(...)

#include "emulation/atomics.h"
#include "emulation/engine.h"
#include "emulation/intrinsics.h"
#include "emulation/launch.h"
#include "emulation/warp.h"
