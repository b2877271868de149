//! What answers mean, by example.
