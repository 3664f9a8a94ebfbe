"""Where an ONNX artifact has its graphs: no runtime is loaded for that."""

GRAPH_FOLDER, ROOT = "onnx", "."  # transformers.js's graph; Optimum's and GenAI's
