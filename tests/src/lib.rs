//! What the macros accept and refuse, and end-to-end stories: everything is in `tests/`.
