//! Operator commands: health, selftest, doctor, sessions
