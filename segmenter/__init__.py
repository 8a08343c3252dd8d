"""(Pixels, header, model) -> findings -> DICOM objects. Independent of network, queue, configuration files and environment."""
