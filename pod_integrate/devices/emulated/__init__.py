"""The CUDA kernel on emulated SMs, compiled by a C++ compiler; it finds races and misuse."""
