"""What reading and writing GGUF both need to know of llama.cpp: names and conventions."""
