//! How samples come in: pushes, remote write, and imports of files.
