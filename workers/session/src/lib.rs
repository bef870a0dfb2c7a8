//! The session: its record, its state machine, offsets. Pure: inputs in, effects out
