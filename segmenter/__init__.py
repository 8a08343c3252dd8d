"""The core: (pixels, header, model) -> findings -> DICOM objects. Knows no network, queue, TOML or environment."""
