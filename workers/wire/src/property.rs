//! Properties of both parsers under generated input. `SEED=… cargo test` replays a failure.
