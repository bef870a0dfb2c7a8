//! The application side: the trait, and the built-in application relay
