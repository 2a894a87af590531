"""The drawn benchmark: glyphs, scenes, files and its small CLIP."""
