"""From a configuration to weights on disk, and from there to detections and numbers."""
