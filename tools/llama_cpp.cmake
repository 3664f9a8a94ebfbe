# Read while llama.cpp is configured for llama-cpp-python, which asks for half of it that it never installs.
set(LLAMA_BUILD_COMMON OFF)
