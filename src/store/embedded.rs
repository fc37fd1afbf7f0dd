//! The embedded engine behind the store seam.
