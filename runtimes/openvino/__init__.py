"""OpenVINO: ONNX graphs, and GGUF files as OpenVINO GenAI reads them."""
