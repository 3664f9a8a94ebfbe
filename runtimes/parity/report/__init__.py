"""How a parity run is told: JSON, terminal, JUnit, Markdown and HTML, one module for each."""
