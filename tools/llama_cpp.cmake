# Read while llama.cpp is configured for llama-cpp-python, which asks for half of it that it never installs.
set(LLAMA_BUILD_COMMON OFF)
# No AMX: GCC keeps 8 of the 64 bytes that its `ldtilecfg` reads, and every quantised matrix ends the process.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mno-amx-int8 TAKES_NO_AMX)
if(TAKES_NO_AMX)
  add_compile_options(-mno-amx-int8)
endif()
