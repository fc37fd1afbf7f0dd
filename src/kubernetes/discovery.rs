//! What discovery answers.
